"""`lafite-bench compare`: two rows of a folder against one another, or two folders."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.plan.options import DEFAULT_OUT, Metrics, Results, address_or_path, is_address, keeping
from harness.plan.registry import UsageError, did_you_mean

FORMATS = ("terminal", "md")
MOST = 40
"""Values of two folders that are listed."""
CELL = ("benchmark", "mode", "preset", "profile", "method", "variant", "seed")
PROVENANCE = ("code_version", "torch_version", "weights_sha256", "data_fingerprint", "device")


def row_or_folder(text: str) -> Any:
    """A row's name or a path as it is, or the Address of a folder."""
    return address_or_path("reads results", text) if is_address(text) else text


def command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="ROW|DIR", parser=row_or_folder, help="A row of the tables: method and variant."
        ),
    ],
    b: Annotated[str | None, typer.Argument(metavar="ROW", help="Another one.")] = None,
    path: Results = DEFAULT_OUT,
    *,
    other: Annotated[
        Path | None,
        keeping(
            "--with",
            metavar="DIR|URI",
            parser=partial(address_or_path, "reads results"),
            help="Another folder: compare all values of DIR with its.",
        ),
    ] = None,
    metric: Metrics = None,
    above: Annotated[
        float, keeping(min=0, help="With --with: points below which values count as equal.")
    ] = 0.0,
    format_: Annotated[
        str, keeping("--format", metavar="|".join(FORMATS), help="How it is written.")
    ] = "terminal",
) -> bool:
    """Say whether one row is better than another in a metric, and by what in all of them; or, with
    exit code 3, in which values two folders of results differ.

    Example: lafite-bench compare lafite patchcore

    Example: lafite-bench compare results/runs --with other/runs
    """
    from harness.screen.progress import columns
    from results.analysis.statistics import PRIMARY
    from results.reports.verdicts import comparison
    from results.table import read, read_scores

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: {did_you_mean(format_, FORMATS)}")
    if (b is None) != (other is not None):
        raise UsageError("compare: name two rows, ROW ROW [DIR], or two folders, DIR --with DIR")
    if other is not None:
        return _same_values(Path(a), other, above)
    scores, metrics = read_scores(path), metric or PRIMARY
    typer.echo(comparison(read(path), a, str(b), format_, columns(), scores, metrics))
    return True


def _same_values(a: Path, b: Path, above: float) -> bool:
    """Say which values only one of two folders has, and which differ; False where any does."""
    from results.reports.numbers import percent

    one, other = _values(a), _values(b)
    for name, mine, theirs in ((a, one, other), (b, other, one)):
        lost = sorted(mine.keys() - theirs.keys())
        typer.echo("\n  ".join([f"only in {name}: {len(lost)} values", *lost[:MOST]]))
    changed = []
    for key in sorted(one.keys() & other.keys()):
        x, y = one[key]["value"], other[key]["value"]
        if x != y and (x is None or y is None or 100 * abs(x - y) > above):
            why = ", ".join(name for name in PROVENANCE if one[key][name] != other[key][name])
            gap = "" if x is None or y is None else f" ({100 * (y - x):+.2f} points)"
            changed.append(
                f"{key}: {percent(x, decimals=2)}, {percent(y, decimals=2)} there{gap}; "
                f"else differs: {why or '–'}"
            )
    equal = len(one.keys() & other.keys()) - len(changed)
    typer.echo("\n  ".join([f"{equal} values are equal, {len(changed)} differ", *changed[:MOST]]))
    return not changed and one.keys() == other.keys()


def _values(folder: Path) -> dict[str, dict[str, Any]]:
    """Finished rows by what their value is of; the newest of each."""
    from results.table import DONE, read

    frame = read(folder)
    rows = frame.filter(frame["status"] == DONE).sort("finished_at").to_dicts()
    return {" ".join(str(row[n]) for n in (*CELL, "category", "metric")): row for row in rows}
