"""`lafite-bench compare`: two rows of a folder against one another."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.options import DEFAULT_OUT, Results, keeping
from harness.registry import UsageError, did_you_mean

FORMATS = ("terminal", "md")


def command(
    a: Annotated[str, typer.Argument(help="A row of the tables: method and variant.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
    path: Results = DEFAULT_OUT,
    *,
    format_: Annotated[
        str, keeping("--format", metavar="|".join(FORMATS), help="How it is written.")
    ] = "terminal",
) -> None:
    """Say for each metric whether one row is better than another, and where.

    Example: lafite-bench compare lafite patchcore
    """
    from harness.commands._progress import columns
    from results.reports.verdicts import comparison
    from results.table import read, read_scores

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: {did_you_mean(format_, FORMATS)}")
    scores = read_scores(path)
    typer.echo(comparison(read(path), a, b, format_, columns(), scores=scores))
