"""One category at a time: its scores, its curves over pixels, its pictures and its thresholds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from results.calibration import ALPHAS, calibration_path, threshold
from results.evidence import f1max_threshold, read_curves, read_pictures
from results.identity import POOLED
from results.reports.page.gallery import Picture, pictures, shortened
from results.reports.sections import Section

DIGITS = 4
"""Decimals of a curve's points: finer than a chart shows."""


class Closer:
    """Scores, curves and pictures of a section's first seed; `scores` are the whole folder's.

    A panel is the page's name of a category and method of a section, "section.category.method".
    """

    def __init__(self, section: Section, out: Path, scores: pl.DataFrame) -> None:
        self.section, self.out = section, out
        firsts = section.first_cells()
        cells = firsts["cell_id"].unique().sort()
        by = ("cell_id", "category")
        self.scores = scores.join(firsts, on=by).with_columns(
            pl.col("score").map_elements(shortened, return_dtype=pl.Float64)
        )
        self.points = pl.concat([read_curves(out, cell) for cell in cells]).join(firsts, on=by)
        shown = pl.concat([read_pictures(out, cell) for cell in cells]).join(firsts, on=by)
        labels = self.scores.select(*by, "key", "label")
        self.shown = shown.join(labels, on=(*by, "key"), how="left", maintain_order="left")
        # Where normal images alone were trained on, there is none to show.
        tested = section.chosen.filter(pl.col("test_images").eq_missing(0).not_())["cell_id"]
        self.without_pictures = {*cells} & {*tested} - {*self.shown["cell_id"]}
        separate = section.frame["mode"][0] == "separate"
        # Several models have no common threshold.
        self.categories = section.categories if separate else [*section.categories, POOLED]

    def licences(self) -> list[dict[str, Any]]:
        """benchmark, licence and source of the pictures."""
        rows = self.shown.select("licence", "source").unique().sort("licence", "source")
        return [{"benchmark": self.section.benchmark} | row for row in rows.to_dicts()]

    def choice(self) -> dict[str, Any]:
        """The choices of a section; the page opens on the best method's worst category."""
        metric = self.section.metrics[0] if self.section.metrics else ""
        ranked = self.section.ranked(metric) or self.section.present
        best = ranked[0]
        row = self.section.row(metric, best) or {"worst_category": None}
        return {
            "title": self.section.title,
            "metrics": self.section.metrics,
            "rows": self.section.rows,
            "categories": self.categories,
            "pooled": POOLED in self.categories,
            "methods": {self._index(name): name for name in self.section.present},
            "ranked": [*map(self._index, ranked)],
            "opens": [row["worst_category"] or self.categories[0], self._index(best)],
            "missing": [self._missing(category) for category in self.categories],
        }

    def images(self) -> dict[str, dict[str, Any]]:
        """Images of a category: "section.category" -> keys, defects, labels, and scores by method.

        A method that lacks an image has null there. The page puts the categories together itself.
        """
        of_image = ("key", "defect", "label")
        images = {}
        for number, category in enumerate(self.section.categories):
            rows = (
                self.scores.filter(category=category)
                .sort("key")
                .with_columns(pl.col("name").map_elements(self._index, return_dtype=pl.Int64))
            )
            if rows.is_empty():
                continue
            columns = rows.pivot(
                "name", index=of_image, values="score", aggregate_function="first"
            ).to_dict(as_series=False)
            keys, defects, labels = (columns.pop(name) for name in of_image)
            images[f"{self.section.index}.{number}"] = {
                "keys": keys,
                "defects": defects,
                "defective": [*map(int, labels)],
                "scores": columns,
            }
        return images

    def curves(self) -> dict[str, dict[int, dict[str, list[float]]]]:
        """Curves over pixels: "section.category" -> method -> fpr, tpr and pro."""
        rounded = self.points.with_columns(
            pl.col(name).cast(pl.Float64).round(DIGITS) for name in ("fpr", "tpr", "pro")
        )
        found: dict[str, dict[int, dict[str, list[float]]]] = {}
        for (category, name), rows in rounded.group_by("category", "name", maintain_order=True):
            place = f"{self.section.index}.{self.categories.index(str(category))}"
            lists = rows.select("fpr", "tpr", "pro").to_dict(as_series=False)
            found.setdefault(place, {})[self._index(name)] = lists
        return found

    @cached_property
    def starts(self) -> dict[str, float | None]:
        """First thresholds: panel -> score from which images are called defective; null: none is.

        They are those of held-out images where there are any, see `held`, else those at which F1
        is highest on the test images.
        """
        found: dict[str, float | None] = {}
        for number, category in enumerate(self.categories):
            for (name,), rows in self._scores(category).group_by("name", maintain_order=True):
                panel = f"{self.section.index}.{number}.{self._index(name)}"
                if panel in self.held:
                    above = self.held[panel][0]
                    found[panel] = rows.filter(pl.col("score") > above)["score"].min()  # type: ignore[assignment]
                elif rows["label"].any():
                    found[panel] = f1max_threshold(
                        rows["label"].to_numpy(), rows["score"].to_numpy()
                    )
        return found

    @property
    def blind(self) -> list[str]:
        """The panels whose first threshold calls all images defective, normal ones too."""
        lowest = {
            f"{self.section.index}.{number}.{self._index(name)}": low
            for number, category in enumerate(self.categories)
            for name, low, kinds in self._scores(category)
            .group_by("name")
            .agg(low=pl.col("score").min(), kinds=pl.col("label").n_unique())
            .iter_rows()
            if kinds > 1
        }
        return [panel for panel, low in lowest.items() if self.starts.get(panel) == low]

    @cached_property
    def held(self) -> dict[str, list[float]]:
        """Thresholds of alarms at 5 %: panel -> score and value of a map above which one is raised.

        They come of held-out images; a panel with too few has none.
        """
        found = {}
        for number, category in enumerate(self.categories):
            for cell, name in self._scores(category).select("cell_id", "name").unique().iter_rows():
                path = calibration_path(self.out, cell)
                if not path.exists():
                    continue
                rows = pl.read_parquet(path, glob=False)
                mine = rows if category == POOLED else rows.filter(category=category)
                with suppress(ValueError):
                    panel = f"{self.section.index}.{number}.{self._index(name)}"
                    ends = (threshold(mine[of].to_numpy(), ALPHAS[-1]) for of in ("score", "peak"))
                    found[panel] = [*ends]
        return found

    def pictures(self) -> Iterator[Picture]:
        """The pictures of each category and method, by their kinds."""
        for picture in pictures(self.section, self.categories, self.shown):
            _, level = self.held.get(picture.panel, (None, picture.level))
            yield picture._replace(level=level)

    def _scores(self, category: str) -> pl.DataFrame:
        return self.scores if category == POOLED else self.scores.filter(category=category)

    def _index(self, name: Any) -> int:
        return self.section.labels.index(str(name))

    def _missing(self, category: str) -> str:
        """Which charts of a category are missing, and why."""
        if self._scores(category).is_empty():
            return f"image scores: {self._why(category, 'image_')}"
        if category == POOLED:
            return "pixel curves: pixels of different categories are not pooled"
        if not self.points.filter(category=category).is_empty():
            return ""
        return f"pixel curves: {self._why(category, 'pixel_')}"

    def _why(self, category: str, kind: str) -> str:
        """Why a category has no values of a kind of metrics."""
        rows = self.section.chosen.filter(pl.col("metric").str.starts_with(kind), category=category)
        reasons = rows.filter(pl.col("value").is_null())["reason"].unique().sort().to_list()
        return "; ".join(map(str, reasons)) or "this folder holds none"
