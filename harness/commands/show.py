"""`lafite-bench show`: pictures of what a trained model sees."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.plan.options import DataRoot, Method, Results, first_few, keeping, selecting
from harness.plan.registry import UsageError, did_you_mean

if TYPE_CHECKING:
    from benchmarks.base import Sample
    from harness.plan.cell import Cell
    from harness.store.store import Store

WORST, ALARMS = 3, 2
"""Shown by default: the lowest-scored defective images and the highest-scored normal ones."""


def command(
    path: Results,
    *,
    category: Annotated[str, selecting(help="The category to look at.")],
    method: Method = "lafite",
    seed: Annotated[int, selecting(help="The training to look at.")] = 0,
    image: Annotated[str | None, selecting(help="Default: the worst misses and alarms.")] = None,
    data: DataRoot = None,
    out: Annotated[Path, keeping(help="Folder of PNG files.")] = Path("preview"),
) -> None:
    """Draw what a trained model sees: image, mask, map and distances.

    Example: lafite-bench show results/runs --category screw -m patchcore
    """
    from rich.console import Console

    with Console(stderr=True).status("starting") as status:
        from harness.store.store import Store
        from harness.use.panels import panel
        from harness.use.predict import load
        from harness.use.trained import find_cell
        from harness.work.features import open_split

        status.update("looking for the model and hashing its images")
        store = Store(path)
        cell = find_cell(store, method, seed, category, data)
        model = load(store.model(cell), cell.cell_id, device="cpu")
        benchmark, samples = open_split(cell.data, "test")
        samples = [sample for sample in samples if sample.category == category]
        chosen = _chosen(store, cell, samples, image)
        out.mkdir(parents=True, exist_ok=True)
        for number, sample in enumerate(chosen, 1):
            status.update(f"drawing {number} of {len(chosen)}: {sample.key}")
            panel(model, benchmark, sample).savefig(out / _name(sample), dpi=110)
            typer.echo(str(out / _name(sample)))


def _name(sample: Sample) -> str:
    return sample.key.replace("/", "_").rsplit(".", 1)[0] + ".png"


def _chosen(store: Store, cell: Cell, samples: Sequence[Sample], image: str | None) -> list[Sample]:
    import polars as pl

    from benchmarks.parts.inventory import nfc
    from results.table import scores_path

    by_key = {sample.key: sample for sample in samples}
    if image is not None:
        wanted = nfc(image)
        matches = [key for key in by_key if key == wanted]
        matches = matches or [key for key in by_key if f"/{key}".endswith(f"/{wanted}")]
        matches = matches or [key for key in by_key if f"/{wanted}".endswith(f"/{key}")]
        matches = matches or [key for key in by_key if Path(key).name == Path(wanted).name]
        if not matches:
            raise UsageError(f"--image {image}: {did_you_mean(image, sorted(by_key)[:20])}")
        if len(matches) > 1:
            raise UsageError(f"--image {image}: which of {', '.join(first_few(matches, 3))}?")
        return [by_key[matches[0]]]
    scores = pl.read_parquet(scores_path(store.out, cell.cell_id), glob=False)
    present = scores.filter(pl.col("key").is_in(list(by_key)))
    misses = present.filter(pl.col("label")).sort("score").head(WORST)["key"]
    alarms = present.filter(~pl.col("label")).sort("score", descending=True).head(ALARMS)["key"]
    return [by_key[key] for key in [*misses, *alarms]]
