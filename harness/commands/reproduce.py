"""`lafite-bench reproduce`: one stored cell done again, and compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from harness.plan.options import DataRoot, Results, selecting
from harness.plan.registry import UsageError, did_you_mean

if TYPE_CHECKING:
    import polars as pl


CLOSE = 1e-3
"""Relative difference of scores that another kind of CPU may make."""


def command(
    path: Results,
    *,
    row: Annotated[str, selecting(help="The cell_id of a stored row: a name in OUT/parts.")],
    data: DataRoot = None,
) -> bool:
    """Do a stored cell again from its images, and say whether the same scores come out.

    Example: lafite-bench reproduce results/runs --row CELL_ID
    """
    import tempfile
    from pathlib import Path

    from harness.store.store import Store
    from harness.use.trained import stored_cell
    from harness.work.cache import FeatureCache
    from harness.work.execute import run_job
    from harness.work.place import Place
    from harness.work.rows import code_version
    from methods.parts.progress import quiet
    from results.table import read, read_scores

    store = Store(path)
    before = read(path)
    known = before["cell_id"].unique().to_list()
    if row not in known:
        raise UsageError(f"--row {row}: {did_you_mean(row, sorted(known)[:20])}")
    stored = before.filter(cell_id=row)
    cell = stored_cell(store, row, data)
    said = stored["code_version"][0]
    if said != (here := code_version()):
        typer.echo(f"the row is of {said}, this is {here}")
    with tempfile.TemporaryDirectory() as folder:
        again = Store(Path(folder) / "again").prepare()
        cache = FeatureCache(root=Path(folder) / "cache")
        cache.root.mkdir()
        run_job([cell], Place(store=again, cache=cache, code_version=here), quiet)
        now, was = (read_scores(s.out).filter(cell_id=row) for s in (again, store))
        equal = _compared(was, now)
        _show_values(stored, read(again.out))
    return equal


def _compared(was: pl.DataFrame, now: pl.DataFrame) -> bool:
    both = was.select("key", "score").join(now.select("key", again="score"), on="key")
    if not len(both) == len(was) == len(now):
        typer.echo("other test images than the row's")
        return False
    score, again = both["score"].to_numpy(), both["again"].to_numpy()
    if (score == again).all():
        typer.echo(f"all {len(both)} scores are the same, bit by bit")
        return True
    worst = float(abs(score - again).max() / max(abs(score).max(), 1e-12))
    typer.echo(
        f"scores differ by {worst:.2g} of the largest at most; up to {CLOSE:g} is another CPU"
    )
    return worst <= CLOSE


def _show_values(was: pl.DataFrame, now: pl.DataFrame) -> None:
    keys = ["category", "metric"]
    both = was.select(*keys, "value").join(now.select(*keys, again="value"), on=keys)
    changed = both.filter(both["value"].ne_missing(both["again"]))
    typer.echo(f"{len(both) - len(changed)} of {len(both)} values are the same")
    for category, metric, value, again in changed.iter_rows():
        typer.echo(f"  {category} {metric}: {value} then, {again} now")
