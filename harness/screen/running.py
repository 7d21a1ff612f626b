"""OUT/running/HOST-PID.json: what a command works on, for whoever looks from afar.

It goes with the command; one that crashed leaves it with its last time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.screen.progress import Tasks, bars, lasting
from harness.store.folder import folder_at
from methods.parts.progress import Progress

if TYPE_CHECKING:
    from harness.work.task import Show

EVERY = 5.0
"""Least seconds between two writes."""


@contextmanager
def watched(
    tasks: Tasks, console: Console, out: Path, rows: Callable[[], str] = lambda: ""
) -> Iterator[Show]:
    """Yields the `show` of `bars`, which keeps the file as well."""
    folder, name = folder_at(out), f"running/{platform.node()}-{os.getpid()}.json"
    began, written = time.time(), 0.0

    def write() -> None:
        nonlocal written
        written = time.time()
        lines = [f"{tasks.summary()}, after {lasting(written - began)}", *tasks.doing()]
        # A full disk, or a folder that is gone, is told by what is worked on, not by this.
        with suppress(OSError):
            content = json.dumps({"heard": written, "lines": lines})
            folder.put(name, content.encode(), replace=True)

    with bars(tasks, console, rows) as show:

        def show_and_keep(number: int, news: Progress | None) -> None:
            show(number, news)
            if news is None or time.time() - written >= EVERY:
                write()

        write()
        try:
            yield show_and_keep
        finally:
            with suppress(OSError):
                folder.remove(name)
