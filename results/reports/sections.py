"""The sections of a report: a data set run in one way, its methods, and a key for each number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from results.analysis.cells import (
    SECTION,
    heading,
    label,
    labelled,
    one_cell_per_seed,
    title,
    with_every_seed,
)
from results.analysis.images import with_images
from results.analysis.statistics import PRIMARY, pairwise
from results.analysis.summary import per_category
from results.identity import POOLED, backbone_of
from results.reports.numbers import counted

MEAN = "mean over categories"


class Section:
    """One data set, mode, preset and metric profile: everything that may be compared.

    `frame` are its rows, `summary` those of `summary.summary`, with labels, and `pairs` those of
    `pairwise`. `labels` are the methods of the whole report, where each has one colour, and `cells`
    the ids of all its cells, whose numbers tell where a value comes from.
    """

    def __init__(
        self,
        index: int,
        frame: pl.DataFrame,
        summary: pl.DataFrame,
        pairs: Sequence[dict[str, Any]],
        labels: Sequence[str],
        cells: Sequence[str],
    ) -> None:
        self.index, self.frame, self.summary, self.labels = index, frame, summary, labels
        self.cell_numbers = {cell: number for number, cell in enumerate(cells)}
        self.title, self.heading = title(frame.row(0, named=True)), heading(frame)
        self.benchmark: str = frame["benchmark"][0]
        self.chosen = labelled(one_cell_per_seed(frame))
        measured = self.chosen.filter(pl.col("value").is_not_null())
        self.metrics: list[str] = measured["metric"].unique(maintain_order=True).to_list()
        names = self.chosen["category"].unique().sort().to_list()
        self.categories: list[str] = [name for name in names if name != POOLED]
        self.present = [name for name in labels if name in set(self.chosen["label"])]
        self._pairs = pairs

    @property
    def single(self) -> bool:
        """Whether the data set has one category, of which there is no spread and no worst."""
        return self.summary["expected"].max() == 1 and len(self.categories) == 1

    @cached_property
    def backbones(self) -> dict[str, str]:
        """The backbone of each method that has one; none where all have the same, as the heading
        says it."""
        rows = self.chosen.unique("label", maintain_order=True).select("label", "config_json")
        known = {name: backbone_of(config) for name, config in rows.iter_rows()}
        return {n: b for n, b in known.items() if b} if len({*known.values()} - {None}) > 1 else {}

    def told(self, metric: str) -> str | None:
        """The method that is better than each of the other complete ones, and not by noise."""
        complete = [row["label"] for row in self.rows_of(metric) if row["complete"]]
        pairs = [pair for pair in self.pairs(metric) if {pair["a"], pair["b"]} <= {*complete}]
        won = [pair["verdict"].removesuffix(" is better") for pair in pairs]
        return next((name for name in complete if 0 < won.count(name) == len(complete) - 1), None)

    @property
    def seeds(self) -> str:
        """How many seeds its methods have: `2 seeds`, `1 to 3 seeds`."""
        counts = self.chosen.group_by("label").agg(pl.col("seed").n_unique())["seed"].to_list()
        most = counted(max(counts, default=0), "seed")
        return most if len({*counts}) < 2 else f"{min(counts)} to {most}"

    @property
    def done(self) -> bool:
        """Whether a cell is finished."""
        return not self.chosen.is_empty()

    def ranked(self, metric: str) -> list[str]:
        """The names of the methods that have a mean, the best first, the incomplete ones last."""
        rows = [row for row in self.rows_of(metric) if row["mean"] is not None]
        rows.sort(key=lambda row: (not row["complete"], -row["mean"]))
        return [row["label"] for row in rows]

    def rows_of(self, metric: str) -> list[dict[str, Any]]:
        """The summaries of all methods in one metric."""
        return [row for (name, _), row in self._summaries.items() if name == metric]

    def pairs(self, metric: str) -> list[dict[str, Any]]:
        """Rows of `results.analysis.statistics.pairwise` in one metric."""
        return [pair for pair in self._pairs if pair["metric"] == metric]

    def by_category(self, metric: str) -> pl.DataFrame:
        """Rows of `results.analysis.summary.per_category`, with labels."""
        return labelled(per_category(self.frame, metric))

    def row(self, metric: str, name: str) -> dict[str, Any] | None:
        """The summary of one method, if it has any."""
        return self._summaries.get((metric, name))

    @cached_property
    def _summaries(self) -> dict[tuple[str, str], dict[str, Any]]:
        return {(row["metric"], row["label"]): row for row in self.summary.to_dicts()}

    def key(self, metric: str, category: str, name: str) -> str:
        """The page's name of a number, by which it finds where the number comes from."""
        indices = self.metrics.index(metric), self.rows.index(category), self.labels.index(name)
        return ".".join(map(str, (self.index, *indices)))

    @property
    def rows(self) -> list[str]:
        """Names of what a number is of: the mean, a category, all images under one threshold."""
        return [MEAN, *self.categories, POOLED]

    def traced(self) -> dict[str, list[list[Any]]]:
        """The seeds behind each number: key -> [[seed, value, numbers of its cells]]."""
        single = self.chosen.filter(pl.col("value").is_not_null())
        means = with_every_seed(self.chosen).with_columns(category=pl.lit(MEAN))
        by = ("metric", "category", "label", "seed")
        seeds: dict[str, list[list[Any]]] = {}
        for rows in (means, single):
            each = rows.group_by(by).agg(pl.col("value").mean(), pl.col("cell_id").unique())
            for metric, category, name, seed, value, cells in each.sort(by).iter_rows():
                numbers = sorted(self.cell_numbers[cell] for cell in cells)
                key = self.key(metric, category, name)
                seeds.setdefault(key, []).append([seed, round(value, 6), numbers])
        return seeds

    def first_cells(self) -> pl.DataFrame:
        """name (a label), category, cell_id: the cell of the first seed."""
        rows = self.chosen.filter(pl.col("category") != POOLED).sort("seed", maintain_order=True)
        return rows.group_by(name="label", category="category").agg(pl.col("cell_id").first())


def sections(
    frame: pl.DataFrame, scores: pl.DataFrame | None = None, metrics: Sequence[str] = PRIMARY
) -> list[Section]:
    """The sections of `table.read`'s frame; summaries are `with_images`, pairs are tested in
    `metrics`."""
    labels = sorted(
        {label(row) for row in frame.select("method", "variant", "shared").unique().to_dicts()}
    )
    cells = frame["cell_id"].unique().sort().to_list()
    pairs = pairwise(frame, metrics).to_dicts()
    rows = labelled(with_images(frame, scores)).partition_by(SECTION, as_dict=True)
    frames = frame.sort(SECTION, maintain_order=True).partition_by(
        SECTION, as_dict=True, maintain_order=True
    )
    return [
        Section(
            number,
            own,
            rows[key],
            [pair for pair in pairs if tuple(pair[name] for name in SECTION) == key],
            labels,
            cells,
        )
        for number, (key, own) in enumerate(frames.items())
    ]
