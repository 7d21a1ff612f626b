"""OUT/running/HOST-PID.json: what a command works on, for whoever looks from afar.

It goes with the command; one that crashed leaves it with its last time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.screen.eta import Clock
from harness.screen.progress import how_far
from harness.store.folder import OnDisk, folder_at
from harness.work.task import Show
from methods.base import Progress

EVERY, EVERY_AWAY = 1.0, 5.0
"""Least seconds between two writes: to a disk, and to a folder that is elsewhere."""


@contextmanager
def running(
    out: Path,
    title: str,
    labels: Sequence[str],
    show: Show,
    clock: Clock,
    counted: Collection[int] = (),
) -> Iterator[Show]:
    """Yields a `Show` that keeps the file and tells `show` all; of the tasks those `counted`, or
    all, are what there is to do."""
    counted = counted or range(len(labels))
    folder, name = folder_at(out), f"running/{platform.node()}-{os.getpid()}.json"
    every, began = EVERY if isinstance(folder, OnDisk) else EVERY_AWAY, time.time()
    work: dict[int, tuple[str, float]] = {}
    written = 0.0

    def write() -> None:
        nonlocal written
        written = time.time()
        done = sum(number in clock.took for number in counted)
        content = {
            "done": f"{title}: {done} of {len(counted)}",
            "left": clock.left(),
            "since": began,
            "heard": written,
            "work": list(work.values()),
        }
        # A full disk, or a folder that is gone, is told by what is worked on, not by this.
        with suppress(OSError):
            folder.put(name, json.dumps(content).encode(), replace=True)

    def show_and_keep(number: int, news: Progress | None) -> None:
        show(number, news)
        if news is None:
            work.pop(number, None)
        elif not news.note:
            at = f" on {news.where}" if news.where else ""
            since = work[number][1] if number in work else time.time()
            work[number] = f"{labels[number]}: {how_far(news)}{at}", since
        if news is None or time.time() - written >= every:
            write()

    write()
    try:
        yield show_and_keep
    finally:
        with suppress(OSError):
            folder.remove(name)
