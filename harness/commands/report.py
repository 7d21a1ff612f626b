"""`lafite-bench report`: the tables of a folder of results, once, or again as cells finish."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.plan.options import DEFAULT_OUT, Results, completing, keeping
from harness.plan.registry import UsageError, did_you_mean

FORMATS = ("terminal", "md", "latex", "csv", "parquet", "html")
TABLES = "tables"
if TYPE_CHECKING:
    import polars as pl

POLL_SECONDS = 2.0
PAGE = "report.html"


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
    metric: Annotated[
        list[str] | None,
        keeping(
            "--metric",
            help="The metric that is tested, image_auroc by default; give it again for more.",
        ),
    ] = None,
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
    from harness.screen.progress import shown

    try:
        seen = _state(folder)
        while watch and not seen:
            time.sleep(POLL_SECONDS)
            seen = _state(folder)
        with shown("making the report"):
            made = _report(folder, fmt, out, metrics)
        yield made
        while watch:
            time.sleep(POLL_SECONDS)
            if (now := _state(folder)) != seen:
                seen = now
                yield _report(folder, fmt, out, metrics)
    except KeyboardInterrupt:
        if not watch:
            raise


def _report(folder: Path, fmt: str, out: Path | None, metrics: Sequence[str]) -> str:
    from harness.plan.addresses import address_of
    from harness.screen.progress import columns
    from harness.store.folder import folder_at
    from harness.work.copies import refresh
    from results.analysis.statistics import PRIMARY
    from results.calibration import read_held
    from results.reports.text import frames, render
    from results.table import read, read_scores

    refresh(folder)
    metrics = metrics or PRIMARY
    if fmt == "parquet":
        tables = frames(read(folder), read_scores(folder), read_held(folder), metrics)
        return _tables(tables, out or folder / TABLES)
    if fmt == "html":
        from results.reports.page.page import page  # jinja2, for this alone

        text, out = page(folder, metrics), out or folder / PAGE
    else:
        scores, held = read_scores(folder), read_held(folder)
        text = render(read(folder), fmt, columns(), scores, held, metrics=metrics)
        if out is None:
            return text
    try:
        folder_at(out.parent).put(out.name, text.encode(), replace=True)
    except OSError as error:
        raise UsageError(f"--out {out}: {error.strerror or error}; name another file") from None
    return address_of(out)


def _tables(tables: Mapping[str, pl.DataFrame], folder: Path) -> str:
    """A Parquet file for each table, its columns as `results/README.md` has them."""
    import io

    from harness.plan.addresses import address_of
    from harness.store.folder import folder_at

    for name, table in tables.items():
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        file = f"{folder.name}/{name}.parquet"
        folder_at(folder.parent).put(file, buffer.getvalue(), replace=True)
    return f"{address_of(folder)}/: {', '.join(tables)}"


def _state(folder: Path) -> frozenset[tuple[str, Any]]:
    """Names and stamps of the parts: they change as cells finish, fail or are done again."""
    from harness.store.folder import folder_at

    kinds = ("parts", "failures")
    return frozenset(item for kind in kinds for item in folder_at(folder).list(kind).items())
