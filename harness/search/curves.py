"""Loss and pseudo-validation scores against epochs, measured while a model is trained.

OUT/curves/<fit>.jsonl     points as they come
OUT/curves/<fit>.parquet   epoch, variant, category, metric, value; `loss` has no category, and of
                           its yardsticks `variant` says which predictor it is the loss of
OUT/curves/<fit>.png
"""

from __future__ import annotations

import io
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import torch
from matplotlib.figure import Figure
from torch import nn

from benchmarks.base import sealed
from harness.cell import Cell
from harness.execute import Scorer, learn, score
from harness.place import Place
from harness.registry import load
from harness.store.checkpoints import Checkpoints
from methods.base import Keeper, Method, OnProgress, quiet
from methods.parts.training import last_epoch
from results.identity import POOLED

METRIC = "image_auroc"
YARDSTICK = "yardstick"
STROKES = ("--", "-.", ":")


def curve_path(place: Place, cell: Cell) -> Path:
    """Where the finished table is; the picture lies beside it."""
    return place.store.out / "curves" / f"{cell.fit_id}.parquet"


def draw_curve(cell: Cell, every: int, place: Place, tell: OnProgress) -> None:
    """Train the cell's model, though it may be in the store, and write its curve.

    It is scored after `every` so many epochs. Nothing but held-out normal images and those made of
    them is scored; the training is the same as without watching.
    """
    path = curve_path(place, cell)
    points = f"curves/{cell.fit_id}.jsonl"
    with sealed():
        learn(cell, cell.data.open_kept(), place, tell, Watch(cell, every, place, points))
    # A training that was cut off and went on has some epochs twice: the later ones count.
    rows = {
        tuple(map(str, row[:4])): row
        for point in place.store.entries(points)
        for row in point["rows"]
    }
    names = ["epoch", "variant", "category", "metric", "value"]
    frame = pl.DataFrame(list(rows.values()), schema=names, orient="row").sort("epoch")
    table, picture = io.BytesIO(), io.BytesIO()
    frame.write_parquet(table)
    _figure(frame, cell.label).savefig(picture, dpi=110, format="png")
    for file, content in ((path.with_suffix(".png"), picture), (path, table)):
        place.store.folder.put(f"curves/{file.name}", content.getvalue(), replace=True)


def last_loss(path: Path) -> str:
    """The training loss at the end of a curve, and what it has to beat, in one line."""
    frame = pl.read_parquet(path, glob=False).filter(pl.col("epoch") == pl.col("epoch").max())
    [loss] = frame.filter(pl.col("metric") == "loss")["value"]
    beside = frame.filter(pl.col("metric") == YARDSTICK).select("variant", "value")
    words = ", ".join(f"{name} {value:.4f}" for name, value in beside.iter_rows())
    return f"{loss:.4f}" + (f" ({words})" if words else "")


class Watch(Keeper):
    """Keeps a training as another keeper does, and scores it on pseudo-validation now and then."""

    def __init__(self, cell: Cell, every: int, place: Place, points: str) -> None:
        self.cell, self.every, self.points, self.place = cell, every, points, place
        self.seconds = 0.0

    def around(self, method: Method, keeper: Checkpoints) -> Keeper:
        """Begin to watch; the other keeper has the mean loss of each epoch that is done."""
        self.keeper = keeper
        self.scorer = Scorer(self.cell, method, self.place, quiet)
        return self

    def resume(self, optimiser: torch.optim.Optimizer, average: nn.Module | None) -> int:
        """As the other keeper."""
        return self.keeper.resume(optimiser, average)

    def keep(
        self, epochs: int, optimiser: torch.optim.Optimizer, average: nn.Module | None
    ) -> None:
        """Keep, and score where it is time. The weights are scored, not their moving average."""
        self.keeper.keep(epochs, optimiser, average)
        rows: list[list[object]] = [[epochs, "", "", "loss", self.keeper.losses[-1]]]
        rows += [[epochs, name, "", YARDSTICK, at] for name, at in self.keeper.yardsticks.items()]
        started = time.perf_counter()
        last = last_epoch(self.cell.config, self.cell.data.train_images)
        if epochs % self.every == 0 or epochs == last:
            training = [module for module in self.scorer.method.modules() if module.training]
            self.scorer.method.eval()
            rows += [row for name in variants(self.cell) for row in self._scored(epochs, name)]
            for module in training:
                module.training = True
        self.seconds += time.perf_counter() - started
        self.place.store.log(self.points, {"rows": rows})

    def _scored(self, epochs: int, variant: str) -> list[list[object]]:
        cell, scorer = variants(self.cell)[variant], self.scorer
        scored = score(cell, scorer.benchmark, scorer.samples, scorer.spread, self.place, quiet)
        return [
            [epochs, variant, category, metric, measured.value]
            for category, metrics in scored.metrics.items()
            for metric, measured in metrics.items()
        ]


def variants(cell: Cell) -> dict[str, Cell]:
    """The cell, and what tells what its parts add, as far as one training serves them."""
    every = load("methods", cell.method).ablation(cell.config, cell.knobs)
    same_training = {
        name: replace(cell, knobs=knobs)
        for name, (config, knobs) in every.items()
        if config == cell.config
    }
    return {"": cell} | same_training


def _figure(frame: pl.DataFrame, title: str) -> Figure:
    figure = Figure(figsize=(8.0, 3.2), layout="constrained")
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    loss = frame.filter(pl.col("metric") == "loss")
    left.plot(loss["epoch"], loss["value"], "o-", markersize=3)
    known = frame.filter(pl.col("metric") == YARDSTICK).unique("variant").sort("value")
    for at, (variant, value) in enumerate(known.select("variant", "value").iter_rows()):
        left.axhline(value, color="0.5", linestyle=STROKES[at % len(STROKES)], label=variant)
    left.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    if len(known):
        left.legend(fontsize=7)
    scored = frame.filter(pl.col("metric") == METRIC, pl.col("category") != POOLED)
    mean = scored.group_by("variant", "epoch").agg(value=100 * pl.col("value").mean())
    for (variant,), line in mean.sort("variant", "epoch").group_by("variant", maintain_order=True):
        right.plot(line["epoch"], line["value"], "o-", markersize=3, label=variant or "default")
    right.set(xlabel="epoch", ylabel=f"pseudo-validation {METRIC}, %")
    right.legend(fontsize=8)
    return figure
