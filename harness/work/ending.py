"""Ctrl-C and SIGTERM (Slurm, Docker, systemd): either ends a command in order, and only once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from types import FrameType
from unittest.mock import patch

HEEDED = signal.SIGINT, signal.SIGTERM
LONGEST_SECONDS = 30.0
"""How long an orderly end may take; who waits for it in vain could not even press Ctrl-C again."""


class _Ending:
    """The signals that this process has heard; handlers are the process's."""

    def __init__(self) -> None:
        self.heard: int | None = None
        """The first signal."""
        self.deferred = False
        self.timer: Timer | None = None

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The first signal raises KeyboardInterrupt; the end that it begins hears no other."""
        if self.heard is not None:
            return
        self.heard = number
        self.timer = Timer(LONGEST_SECONDS, _at_once)
        self.timer.daemon = True
        self.timer.start()
        if not self.deferred:
            raise KeyboardInterrupt


_ENDING = _Ending()


@contextmanager
def heeded() -> Iterator[None]:
    """A block that both signals end by KeyboardInterrupt, whatever a parent shell made of them."""
    before = {number: signal.signal(number, _ENDING.hear) for number in HEEDED}
    try:
        yield
    finally:
        if _ENDING.timer is not None:
            _ENDING.timer.cancel()
        _ENDING.__init__()  # type: ignore[misc]
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """A block that no signal cuts off, nor takes over: what was heard ends it when it is through.

    What it starts can so be ended in order. Processes that it starts hear neither signal: they end
    with this one, even where both are sent to all of a job, as Slurm and systemd do.
    """
    _ENDING.deferred = True
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)
    try:
        with patch.object(signal, "signal", lambda number, handler: signal.getsignal(number)):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _ENDING.deferred = False
    if _ENDING.heard is not None:
        raise KeyboardInterrupt


def exit_code() -> int:
    """The exit code of a command that was ended: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_ENDING.heard or signal.SIGINT)


def _at_once() -> None:
    print(f"lafite-bench: not ended within {LONGEST_SECONDS:.0f} s; left at once", file=sys.stderr)
    os._exit(exit_code())
