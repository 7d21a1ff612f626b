"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview, *, replace: bool = False) -> None:
    """Publish bytes at `path`, as `whole_file` does.

    Raises OSError, naming the path and the bytes needed, where it cannot be written.
    """
    try:
        with whole_file(path, replace=replace) as scratch:
            scratch.write_bytes(content)
    except OSError as error:
        size = memoryview(content).nbytes
        message = f"{error.strerror}; {size:,} bytes could not be written"
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
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        yield scratch
        scratch.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


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
