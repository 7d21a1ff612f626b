"""What runs, as a small file beside the results: what the bars show, for whoever looks from afar.

OUT/running/<host>-<pid>.json, while a command works; one that crashed leaves it with its last time.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.commands._eta import Clock
from harness.store.folder import OnDisk, folder_at
from harness.task import Show
from methods.base import Progress
from results.files import record_in

EVERY = 1.0
"""Seconds between two writes, at least."""
EVERY_AWAY = 5.0
"""The same, where the folder is not on a disk."""
FOLDER = "running"
FIELDS = ("title", "total", "done", "since", "heard", "work")
ITEM = {"label", "where", "stage", "step", "steps", "loss", "since"}


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
    folder, name = folder_at(out), f"{FOLDER}/{platform.node()}-{os.getpid()}.json"
    every = EVERY if isinstance(folder, OnDisk) else EVERY_AWAY
    began = time.time()
    work: dict[int, dict[str, Any]] = {}
    ended: set[int] = set()
    written = 0.0

    def write() -> None:
        nonlocal written
        written = time.time()
        content = {
            "title": title,
            "total": len(counted),
            "done": len(ended.intersection(counted)),
            "left": clock.left(),
            "since": began,
            "heard": written,
            "work": list(work.values()),
        }
        # A full disk, or a folder that is gone, is told by what is worked on, not by this.
        with suppress(OSError):
            folder.put(name, json.dumps(content).encode(), replace=True)

    def show_and_keep(number: int, progress: Progress | None) -> None:
        show(number, progress)
        if progress is None:
            ended.add(number)
            work.pop(number, None)
        elif not progress.note:
            before = work.get(number, {"since": time.time()})
            work[number] = {
                "label": labels[number],
                "where": progress.where,
                "stage": progress.stage,
                "step": progress.step,
                "steps": progress.steps,
                "loss": progress.loss,
                "since": before["since"],
            }
        if progress is None or time.time() - written >= every:
            write()

    write()
    try:
        yield show_and_keep
    finally:
        with suppress(OSError):
            folder.remove(name)


def what_runs(out: Path) -> list[dict[str, Any]]:
    """What the commands that work into a folder wrote last, by their files' names."""
    found = []
    for path in sorted((out / FOLDER).glob("[!.]*.json")):
        with suppress(OSError, ValueError):  # it ended while we looked
            record = record_in(path.read_bytes(), *FIELDS)
            if any(not isinstance(item, dict) or ITEM - item.keys() for item in record["work"]):
                raise ValueError
            found.append({"command": path.stem, **record})
    return found
