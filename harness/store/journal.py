"""Logs that only grow: one JSON object a line, each on disk before the work that it tells of."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results.files import record_in


def append(path: Path, **facts: Any) -> None:
    """Add a line with the time (UTC) and the facts; OSError where it can't be written.

    One write to a file opened for appending, so lines of several processes do not mix.
    """
    line = json.dumps({"time": datetime.now(UTC).isoformat(), **facts}, default=str) + "\n"
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)  # less the umask
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, ("\n" * torn + line).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All entries, oldest first; none where there is no file.

    A line that a full disk or a power cut tore is left out: what it would have told never began.
    """
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield record_in(line)
