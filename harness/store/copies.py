"""The copies of folders in object stores that this process works with: results, data, weights."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa

from harness.options import Say
from harness.registry import UsageError
from harness.store.addresses import INPUTS, RESULTS
from harness.store.remote import Copy, reason
from methods.base import quiet
from results.files import STALE_SECONDS

PUT_SECONDS = 5.0
"""Between two looks for what is new in a copy."""
LONGEST_WAIT = 60.0
"""Between two trials of a store that can't be reached."""
LAST_TRIALS = 3
HEAVY = re.compile(r"models/(?!\w+/(fit|cells/\w+)\.json$)")
"""Fetched when it is wanted."""


@contextmanager
def results_of(root: Path, address: str, say: Say, *, writes: bool) -> Iterator[Path]:
    """A copy of a folder of results, below `root`, whose news are put back until the block ends.

    A store that can't be reached meanwhile is tried again, and `say` is told. UsageError where it
    can't be read, or written though this `writes`, and where at the end it is still away: what was
    made is kept in the copy then, and the next command puts it.
    """
    copy = Copy.at(root, address)
    if writes:
        copy.check_writable()
    try:
        copy.pull(lambda name: not HEAVY.match(name))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{address}: can't be read: {reason(error)}") from None
    RESULTS[copy.folder] = address
    ended = Event()
    keeper = Thread(target=_keep_putting, args=(copy, say, ended), daemon=True)
    keeper.start()
    try:
        yield copy.folder
    finally:
        ended.set()
        keeper.join()
        _put_last(copy)
        del RESULTS[copy.folder]


def _keep_putting(copy: Copy, say: Say, ended: Event) -> None:
    wait = PUT_SECONDS
    while not ended.wait(wait):
        try:
            copy.put()
        except (OSError, pa.ArrowException) as error:
            if wait == PUT_SECONDS:
                say(f"{copy.address}: {reason(error)}; results are kept in {copy.folder}")
            wait = min(2 * wait, LONGEST_WAIT)
        else:
            if wait > PUT_SECONDS:
                say(f"{copy.address}: answers again")
            wait = PUT_SECONDS


def _put_last(copy: Copy) -> None:
    for trial in range(LAST_TRIALS):
        try:
            return copy.put()
        except (OSError, pa.ArrowException) as error:
            why = reason(error)
            time.sleep(2.0**trial)
    raise UsageError(
        f"{copy.address}: {why}; all results are kept in {copy.folder}: run the same command "
        "again when the store can be written, which puts them there"
    )


def fetch(folder: Path) -> None:
    """What is missing of a folder of a copy, such as a model; nothing for any other folder."""
    for out, address in RESULTS.items():
        if folder.is_relative_to(out):
            Copy(address, out).fetch(folder)


def forget(folder: Path) -> None:
    """Remove a folder of a copy from its store as well; nothing for any other folder."""
    for out, address in RESULTS.items():
        if folder.is_relative_to(out):
            Copy(address, out).forget(folder)


def input_of(root: Path, address: str, say: Say = quiet) -> Path:
    """A copy, below `root`, of data or a file of weights; UsageError where it can't be had.

    Room is made, if need be, by removing copies that nobody used for a day.
    """
    copy = Copy.at(root, address)
    path = ensure(copy, say)
    INPUTS[copy.folder] = address
    return path


def have_input(folder: Path, address: str) -> None:
    """See to it that a machine has a copy that another one planned with; once a process."""
    if folder not in INPUTS:
        folder.mkdir(parents=True, exist_ok=True)
        ensure(Copy(address, folder))
        INPUTS[folder] = address


def ensure(copy: Copy, say: Say = quiet) -> Path:
    """Bring a copy of data up to date, on whichever machine this is."""
    try:
        there = copy.listed()
        size = sum(stamp[0] for stamp in there.values())
        if not there:
            raise UsageError(f"{copy.address}: nothing is there")
        have = sum(path.stat().st_size for path in copy.folder.rglob("*") if path.is_file())
        _make_room(copy, size - have)
        if size > have:
            say(f"{copy.address}: {size / 1e9:.2f} GB are copied to {copy.folder}")
        copy.pull()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{copy.address}: can't be read: {reason(error)}") from None
    os.utime(copy.folder)
    return copy.folder / copy.single


def _make_room(copy: Copy, needed: int) -> None:
    root = copy.folder.parents[1]
    old = sorted(root.glob("*/*"), key=lambda folder: folder.stat().st_mtime)
    for folder in old:
        if shutil.disk_usage(root).free > needed:
            return
        if folder != copy.folder and time.time() - folder.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(folder.parent, ignore_errors=True)
    if (free := shutil.disk_usage(root).free) < needed:
        raise UsageError(
            f"{copy.address}: {needed:,} bytes are needed below {root}, {free:,} are free; make "
            "room, or set LAFITE_BENCH_CACHE to another disk"
        )
