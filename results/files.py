"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from pathlib import Path


def write_whole(path: Path, content: bytes | memoryview, *, replace: bool = False) -> None:
    """Publish bytes at `path`, whole or not at all.

    Of several writers of one path the first wins and the others change nothing, unless `replace`
    is true. Raises OSError, naming the path and the bytes needed, where it cannot be written.
    """
    # Written under a temporary name in the same folder, synced, then given its name.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _give_name(temporary, path, replace)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        size = memoryview(content).nbytes
        message = f"{error.strerror}; {size:,} bytes could not be written"
        raise OSError(error.errno, message, str(path)) from error


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


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
