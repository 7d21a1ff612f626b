"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

STALE_SECONDS = 86_400
"""Age in seconds at which a file or folder that is not whole was left by a crash."""
WRITING = ".writing-"
"""Prefix of the names of folders that are not whole yet."""


class ResultsError(ValueError):
    """Results that cannot be read, or lack a row; one line says what, where and what to do."""


def record_in(content: str | bytes, *fields: str) -> dict[str, Any]:
    """A JSON object with these fields at least; ValueError for anything else, however it is made.

    Whoever can write to a folder of results decides what lies there, so this is no place for trust.
    """
    try:
        record = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    if missing := [name for name in fields if name not in record]:
        raise ValueError(f"without {', '.join(missing)}")
    return record


def write_whole(path: Path, content: bytes | memoryview, *, replace: bool = False) -> None:
    """Publish bytes at `path`, as `whole_file` does.

    Raises OSError, naming the path and the bytes needed, where it cannot be written.
    """
    with (
        naming(path, memoryview(content).nbytes),
        whole_file(path, replace=replace) as scratch,
    ):
        scratch.write_bytes(content)


@contextmanager
def naming(path: Path, size: int) -> Iterator[None]:
    """An OSError of the block names this path and how many bytes were to be written there."""
    try:
        yield
    except OSError as error:
        message = f"{error.strerror or error}; {size:,} bytes could not be written"
        raise OSError(error.errno, message, str(path)) from error


@contextmanager
def whole_file(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yields a scratch file to write, which is synced and becomes `path` at the end.

    Of several writers of one path the first wins and the others change nothing, unless `replace`
    is true. After an error nothing is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield scratch
        _sync(scratch)
        _give_name(scratch, path, replace)
    finally:
        scratch.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a scratch folder to fill, which becomes `folder` at the end.

    Of several writers the first wins. After an error nothing is left.
    """
    scratch = folder.parent / f"{WRITING}{uuid.uuid4().hex}"
    scratch.mkdir(parents=True)  # not `mkdtemp`: others may read it as far as the umask lets them
    try:
        yield scratch
        for path in scratch.rglob("*"):
            if path.is_file():
                _sync(path)
                # Some writers make private files, whatever the umask.
                path.chmod(scratch.stat().st_mode & 0o666)
        scratch.replace(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """A lock that one process at a time holds, of those that come here with the same path.

    `waiting()` is called before a wait. The lock is the kernel's and ends with its process, so a
    crash leaves none. Where files can't be locked, or not by this user, nobody waits: what is
    written is whole anyway, and the first writer wins.
    """
    handle = _take(path, waiting)
    try:
        yield
    finally:
        if handle is not None:
            with suppress(OSError):
                path.unlink()  # while it is held, so that nobody holds what is no longer there
            os.close(handle)


def _take(path: Path, waiting: Callable[[], None]) -> int | None:
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError:
            return None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        with suppress(OSError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # the holder before removed it


def _give_name(temporary: Path, path: Path, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        path.hardlink_to(temporary)  # unlike a rename, it never takes a name that is in use
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if not path.exists():
            temporary.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
