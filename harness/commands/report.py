"""Reports of a folder of results: once, or again as cells finish."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from harness.registry import UsageError
from results.files import write_whole
from results.reports.text import render
from results.reports.verdicts import comparison
from results.table import read, read_scores

POLL_SECONDS = 2.0
PAGE = "report.html"


def reports(folder: Path, fmt: str, out: Path | None, *, watch: bool) -> Iterator[str]:
    """What to print: the report, or the path of the file that it was written to.

    With `watch` one more each time that cells have finished or failed, until Ctrl-C; it waits for
    the first. UsageError for a folder without results and a file that can't be written.
    """
    try:
        seen = _state(folder)
        while watch and not seen:
            time.sleep(POLL_SECONDS)
            seen = _state(folder)
        yield _report(folder, fmt, out)
        while watch:
            time.sleep(POLL_SECONDS)
            if (now := _state(folder)) != seen:
                seen = now
                yield _report(folder, fmt, out)
    except KeyboardInterrupt:
        return


def compared(folder: Path, a: str, b: str, fmt: str) -> str:
    """Two rows of a folder against one another; UsageError where one is not there."""
    try:
        return comparison(read(folder), a, b, fmt)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _report(folder: Path, fmt: str, out: Path | None) -> str:
    try:
        if fmt != "html":
            text = render(read(folder), fmt, scores=read_scores(folder))
            if out is None:
                return text
        else:
            from results.reports.page.page import (
                page,  # matplotlib and jinja2, for this format alone
            )

            text, out = page(folder), out or folder / PAGE
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        write_whole(out, text.encode(), replace=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror}; name another file") from None
    return str(out)


def _state(folder: Path) -> frozenset[tuple[str, int]]:
    """Names and times of the parts: they change as cells finish, fail or are done again."""
    return frozenset(
        (path.name, path.stat().st_mtime_ns)
        for kind in ("parts", "failures")
        for path in folder.glob(f"{kind}/[!.]*.parquet")
    )
