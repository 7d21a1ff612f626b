"""Copies on this machine, below the cache, of data and results that a command reads by URI."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

from harness.plan.addresses import COPIES
from harness.plan.options import Address, Say
from harness.plan.registry import UsageError
from harness.store.folder import OnDisk, Uri, folder_at
from methods.parts.progress import quiet
from results.files import STALE_SECONDS


def copy_of(address: Address) -> Path:
    """The path that stands for a URI on this machine; UsageError where it can't be reached.

    Data and weights are there. Of results that are only read all is there but the models, which are
    fetched when they are wanted; those that are written go to the URI, not to this path.
    """
    from harness.work.cache import FeatureCache

    root = FeatureCache.default(_say).root
    if address.use == "reads data":
        return input_of(root / "inputs", address.uri, _say)
    folder = Uri.below(root / "results", address.uri)
    COPIES[folder.here] = address.uri
    if address.use == "reads results":
        refresh(folder.here)
    return folder.here


def refresh(path: Path) -> None:
    """Bring the copy of a folder of results up to date, but for the models."""
    folder = folder_at(path)
    if isinstance(folder, OnDisk):
        return
    try:
        kinds = {name.partition("/")[0] for name in folder.list()} - {"models"}
        for kind in sorted(kinds | {"parts", "failures"}):
            folder.local(kind)
    except OSError as error:
        raise UsageError(f"can't read {error}") from None


def input_of(root: Path, address: str, say: Say = quiet) -> Path:
    """A copy, below `root`, of data or a file of weights; UsageError where it can't be had.

    Room is made, if need be, by removing copies that nobody used for a day.
    """
    return have_input(Uri.below(root, address).here, address, say)


def have_input(path: Path, address: str, say: Say = quiet) -> Path:
    """See to it that this machine has the copy of data or weights under a path; once a process."""
    if path in COPIES:
        return path
    folder = Uri(address, path)
    try:
        there = folder.list()
        size = sum(stamp.size for stamp in there.values())
        if not there:
            raise UsageError(f"{address}: nothing is there")
        have = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
        _make_room(folder, size - have)
        if size > have:
            say(f"{address}: {size / 1e9:.2f} GB are copied to {path}")
        folder.local("")
    except OSError as error:
        raise UsageError(f"can't read {error}") from None
    os.utime(path.parent)
    COPIES[path] = address
    return path


def _make_room(folder: Uri, needed: int) -> None:
    root = folder.here.parents[1]
    root.mkdir(parents=True, exist_ok=True)
    for old in sorted(root.iterdir(), key=lambda path: path.stat().st_mtime):
        if shutil.disk_usage(root).free > needed:
            return
        if old != folder.here.parent and time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    if (free := shutil.disk_usage(root).free) < needed:
        raise UsageError(
            f"{folder.address}: {needed:,} bytes are needed below {root}, {free:,} are free; make "
            "room, or set LAFITE_BENCH_CACHE to another disk"
        )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
