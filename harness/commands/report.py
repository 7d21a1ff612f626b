"""`lafite-bench report`: the tables of a folder of results, once, or again as cells finish."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.plan.options import DEFAULT_OUT, Metrics, Results, completing, keeping
from harness.plan.registry import UsageError, did_you_mean

FORMATS = ("terminal", "md", "latex", "csv", "parquet", "html")
POLL_SECONDS = 2.0
PAGE, TABLES = "report.html", "tables"


def command(
    path: Results = DEFAULT_OUT,
    *,
    format_: Annotated[
        str,
        keeping(
            "--format",
            metavar="|".join(FORMATS),
            help="How it is written.",
            autocompletion=completing(FORMATS),
        ),
    ] = "terminal",
    metric: Metrics = None,
    out: Annotated[
        Path | None, keeping(help="File to write; default of html: report.html in the folder.")
    ] = None,
    watch: Annotated[
        bool, keeping("--watch", help="Write it again as cells finish, until Ctrl-C.")
    ] = False,
) -> None:
    """Print the tables of a folder of results, or write them as one HTML file.

    Example: lafite-bench report results/runs --format html
    """
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: {did_you_mean(format_, FORMATS)}")
    for text in reports(path, format_, out, metric or (), watch=watch):
        typer.echo(text)


def reports(
    folder: Path, fmt: str, out: Path | None, metrics: Sequence[str] = (), *, watch: bool
) -> Iterator[str]:
    """The text to print: the report, or the path of the file that it was written to.

    Pairs are tested in `metrics`, by default in PRIMARY. With `watch` one more each time that cells
    have finished or failed, until Ctrl-C; it waits for the first. ResultsError for a folder without
    results or of other metrics, UsageError where `out` can't be written.
    """
    from harness.screen.progress import working

    seen = None
    try:
        while watch or seen is None:
            now = _state(folder)
            if now != seen and (now or not watch):
                with working("making the report"):
                    made = _report(folder, fmt, out, metrics)
                yield made
                seen = now
            if watch:
                time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        if not watch:
            raise


def _report(folder: Path, fmt: str, out: Path | None, metrics: Sequence[str]) -> str:
    from harness.plan.addresses import address_of
    from harness.screen.progress import columns
    from harness.work.copies import refresh
    from results.analysis.statistics import PRIMARY
    from results.calibration import read_held
    from results.reports.text import frames, render
    from results.table import read, read_scores

    refresh(folder)
    metrics = metrics or PRIMARY
    if fmt == "html":
        from results.reports.page.page import page  # jinja2, for this alone

        return _written(out or folder / PAGE, page(folder, metrics).encode())
    frame, scores, held = read(folder), read_scores(folder), read_held(folder)
    if fmt != "parquet":
        text = render(frame, fmt, columns(), scores, held, metrics=metrics)
        return text if out is None else _written(out, text.encode())
    tables, out = frames(frame, scores, held, metrics), out or folder / TABLES
    for name, table in tables.items():
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        _written(out / f"{name}.parquet", buffer.getvalue())
    return f"{address_of(out)}/: {', '.join(tables)}"


def _written(path: Path, content: bytes) -> str:
    """Write a file on a disk or below a URI; its address."""
    from harness.plan.addresses import address_of
    from harness.store.folder import folder_at

    try:
        folder_at(path.parent).put(path.name, content, replace=True)
    except OSError as error:
        raise UsageError(f"--out {path}: {error.strerror or error}; name another file") from None
    return address_of(path)


def _state(folder: Path) -> frozenset[tuple[str, Any]]:
    """Names and stamps of the parts: they change as cells finish, fail or are done again."""
    from harness.store.folder import folder_at

    kinds = ("parts", "failures")
    return frozenset(item for kind in kinds for item in folder_at(folder).list(kind).items())
