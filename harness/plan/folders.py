"""Folders of the user who runs this: of the home, and of the cache."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def at_home(text: str | Path) -> str:
    """A path that begins with ~ as a shell gives it, any other text as it is."""
    if str(text) == "~" or str(text).startswith("~/"):
        with suppress(RuntimeError):  # a user without a home
            return str(Path(text).expanduser())
    return str(text)


def usual_cache() -> Path:
    """LAFITE_BENCH_CACHE, else below the user's cache folder; relative where there is no home."""
    if named := os.environ.get("LAFITE_BENCH_CACHE"):
        return Path(at_home(named)).resolve()
    return Path(at_home(os.environ.get("XDG_CACHE_HOME") or "~/.cache")) / "lafite-bench"


def spare_cache() -> Path:
    """A folder of the user among temporary files."""
    return Path(tempfile.gettempdir()).resolve() / f"lafite-bench-{os.getuid()}"
