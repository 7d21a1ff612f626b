"""`lafite-bench diff`: two folders of results beside one another."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from harness.options import Results, keeping

MOST = 40
ROW = ("benchmark", "mode", "preset", "profile", "method", "variant", "seed")
PROVENANCE = ("code_version", "torch_version", "weights_sha256", "data_fingerprint", "device")


def command(
    a: Results,
    b: Results,
    *,
    above: Annotated[float, keeping(min=0, help="Points below which values count as equal.")] = 0.0,
) -> bool:
    """Say which cells only one of two folders has, and where the values of both differ.

    Example: lafite-bench diff results/runs other/runs
    """
    from results.reports.layout import join_blocks
    from results.reports.model import Entry, Table
    from results.reports.numbers import points

    one, other = _rows(a), _rows(b)
    for name, mine, theirs in ((a, one, other), (b, other, one)):
        lost = sorted(mine.keys() - theirs.keys())
        typer.echo(f"only in {name}: {len(lost)} values")
        for key in lost[:MOST]:
            typer.echo(f"  {' '.join(map(str, key))}")
    changed = []
    for key in sorted(one.keys() & other.keys()):
        x, y = one[key]["value"], other[key]["value"]
        if x != y and (x is None or y is None or 100 * abs(x - y) > above):
            gap = points(y - x) if x is not None and y is not None else "–"
            why = [n for n in PROVENANCE if one[key][n] != other[key][n]]
            changed.append([" ".join(map(str, key)), _shown(x), _shown(y), gap, ", ".join(why)])
    typer.echo(
        f"{len(one.keys() & other.keys()) - len(changed)} values are equal, {len(changed)} differ"
    )
    if changed:
        header = ["value", str(a), str(b), "points", "what else differs"]
        rows = [[*map(Entry, line)] for line in changed[:MOST]]
        typer.echo(join_blocks([Table("", header, rows)], "terminal", 160))
    return not changed and one.keys() == other.keys()


def _rows(folder: Any) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Finished values by what they are of; the newest of each."""
    from results.table import DONE, read

    frame = read(folder)
    rows = frame.filter(frame["status"] == DONE).sort("finished_at").to_dicts()
    return {(*(row[n] for n in ROW), row["category"], row["metric"]): row for row in rows}


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}"
