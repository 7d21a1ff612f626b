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

PUBLISHED = "published.jsonl"
"""The log of finished cells, with hashes of their files."""


def entry(**facts: Any) -> str:
    """A line with the time (UTC) and the facts."""
    return json.dumps({"time": datetime.now(UTC).isoformat(), **facts}, default=str) + "\n"


def add(path: Path, line: str) -> None:
    """Add a line to a file; OSError where it can't be written.

    One write to a file opened for appending, so lines of several processes do not mix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)  # less the umask
    try:
        size = os.fstat(handle).st_size
        torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
        os.write(handle, ("\n" * torn + line).encode())
        os.fsync(handle)
    finally:
        os.close(handle)


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All entries of a file, or of a folder with a file a line, oldest first; none without it.

    A line that a full disk or a power cut tore is left out: what it would have told never began.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path] * path.exists()
    for line in (line for file in files for line in file.read_text().splitlines()):
        with contextlib.suppress(ValueError):
            yield record_in(line)
