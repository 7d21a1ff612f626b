"""The sections of the page: a data set run in one way, its methods, and a key for each number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import polars as pl

from results.analysis.cells import (
    SECTION,
    label,
    labelled,
    one_cell_per_seed,
    title,
    with_every_seed,
)
from results.analysis.statistics import pairwise
from results.analysis.summary import per_category, summary
from results.identity import POOLED
from results.table import DONE

MEAN = "mean over categories"


class Section:
    """One data set, mode, preset and metric profile: everything that may be compared.

    `labels` are the methods of the whole page, where each has one colour. `cells` are the ids of
    all cells of the page, whose numbers tell where a value comes from.
    """

    def __init__(
        self, index: int, frame: pl.DataFrame, labels: Sequence[str], cells: Sequence[str]
    ) -> None:
        self.index, self.frame, self.labels = index, frame, labels
        self.cell_numbers = {cell: number for number, cell in enumerate(cells)}
        self.title = title(frame.row(0, named=True))
        self.benchmark: str = frame["benchmark"][0]
        self.chosen = labelled(one_cell_per_seed(frame))
        measured = self.chosen.filter(pl.col("value").is_not_null())
        self.metrics: list[str] = measured["metric"].unique(maintain_order=True).to_list()
        names = self.chosen["category"].unique().sort().to_list()
        self.categories: list[str] = [name for name in names if name != POOLED]
        self.present = [name for name in labels if name in set(self.chosen["label"])]

    @cached_property
    def summary(self) -> pl.DataFrame:
        """Rows of `results.analysis.summary.summary`, with labels."""
        return labelled(summary(self.frame))

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
        return [row for row in self._pairs if row["metric"] == metric]

    @cached_property
    def _pairs(self) -> list[dict[str, Any]]:
        return pairwise(self.frame).to_dicts()

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
        """What a number may be of: the mean, a category, all images under one threshold."""
        return [MEAN, *self.categories, POOLED]

    def traced(self) -> dict[str, list[list[Any]]]:
        """By a number's key: for each seed the seed, the value and its cells, as numbers."""
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


def sections(frame: pl.DataFrame) -> list[Section]:
    """The sections of `table.read`'s frame that have a finished cell."""
    labels = sorted({label(row) for row in frame.select("method", "variant").unique().to_dicts()})
    cells = frame["cell_id"].unique().sort().to_list()
    parts = frame.sort(SECTION, maintain_order=True).partition_by(SECTION, maintain_order=True)
    done = [part for part in parts if (part["status"] == DONE).any()]
    return [Section(number, part, labels, cells) for number, part in enumerate(done)]
