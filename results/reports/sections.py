"""The sections of a report: a data set run in one way, its methods, and a key for each number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from results.analysis.bootstrap import bootstrap
from results.analysis.cells import (
    GROUP,
    SECTION,
    expected_categories,
    label,
    labelled,
    one_cell_per_seed,
    title,
    with_every_seed,
)
from results.analysis.statistics import pairwise
from results.analysis.summary import per_category, summary
from results.identity import POOLED

MEAN = "mean over categories"


class Section:
    """One data set, mode, preset and metric profile: everything that may be compared.

    `frame` are its rows and `summary` those of `summary.summary`, with labels. `expected` is the
    number of categories that a complete row has. `labels` are the methods of the whole report,
    where each has one colour, and `cells` the ids of all its cells, whose numbers tell where a
    value comes from.
    """

    def __init__(
        self,
        index: int,
        frame: pl.DataFrame,
        summary: pl.DataFrame,
        expected: int,
        labels: Sequence[str],
        cells: Sequence[str],
    ) -> None:
        self.index, self.frame, self.summary, self.labels = index, frame, summary, labels
        self.cell_numbers = {cell: number for number, cell in enumerate(cells)}
        self.title = title(frame.row(0, named=True))
        self.benchmark: str = frame["benchmark"][0]
        self.expected = expected
        self.chosen = labelled(one_cell_per_seed(frame))
        measured = self.chosen.filter(pl.col("value").is_not_null())
        self.metrics: list[str] = measured["metric"].unique(maintain_order=True).to_list()
        names = self.chosen["category"].unique().sort().to_list()
        self.categories: list[str] = [name for name in names if name != POOLED]
        self.present = [name for name in labels if name in set(self.chosen["label"])]
        self._pairs: dict[str, list[dict[str, Any]]] = {}

    @property
    def single(self) -> bool:
        """Whether the data set has one category, of which there is no spread and no worst."""
        return self.expected == 1

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
        if metric not in self._pairs:
            of_metric = self.frame.filter(metric=metric)
            self._pairs[metric] = pairwise(of_metric, {self.benchmark: self.expected}).to_dicts()
        return self._pairs[metric]

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


def sections(frame: pl.DataFrame, scores: pl.DataFrame | None = None) -> list[Section]:
    """The sections of `table.read`'s frame; with scores, summaries are `with_images`."""
    labels = sorted(
        {label(row) for row in frame.select("method", "variant", "shared").unique().to_dicts()}
    )
    cells = frame["cell_id"].unique().sort().to_list()
    expected = dict(expected_categories(frame).iter_rows())
    rows = labelled(with_images(frame, scores)).partition_by(SECTION, as_dict=True)
    frames = frame.sort(SECTION, maintain_order=True).partition_by(
        SECTION, as_dict=True, maintain_order=True
    )
    return [
        Section(number, own, rows[key], expected[own["benchmark"][0]], labels, cells)
        for number, (key, own) in enumerate(frames.items())
    ]


def with_images(frame: pl.DataFrame, scores: pl.DataFrame | None) -> pl.DataFrame:
    """`summary.summary`'s rows; with scores also images_low and images_high, see `bootstrap`."""
    rows = summary(frame)
    if scores is None:
        return rows
    drawn = bootstrap(frame, scores).select(*GROUP, "metric", images_low="low", images_high="high")
    return rows.join(drawn, on=(*GROUP, "metric"), how="left", maintain_order="left")
