"""One category at a time: its curves, the scores behind a threshold, and its worst images."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from results.calibration import ALPHAS, calibration_path, threshold
from results.evidence import MISS, read_curves, read_pictures
from results.identity import POOLED
from results.reports.page.charts import Line, curves
from results.reports.page.sections import Section

RIGHT = 0.3
"""PRO curves are drawn up to this false positive rate, that of AUPRO."""
FPR, TPR = "false positive rate", "true positive rate"
IMAGE_AXES, PIXEL_AXES = (FPR, f"images: {TPR}"), (FPR, f"pixels: {TPR}")
REGION_AXES = f"{FPR} of pixels", "regions: mean overlap (PRO)"
NOT_KEPT = "not kept by the version that ran these cells; run them again with --overwrite"


class Panel(NamedTuple):
    """The charts that the page shows for a data set and a category."""

    section: int
    category: int
    charts: Sequence[Markup]
    missing: str  # which charts are missing, and why


class Picture(NamedTuple):
    """One image of the gallery. Pictures are data URIs; an empty mask stands for none."""

    section: int
    category: int
    label: int
    rank: int  # 0 for the worst of its kind: misses or false alarms
    is_miss: bool
    key: str
    defect: str
    score: float
    image: str
    mask: str
    overlay: str

    @property
    def panel(self) -> tuple[int, int, int]:
        """The section, category and method with which it is shown."""
        return self.section, self.category, self.label

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.image) + len(self.mask) + len(self.overlay)


class Closer:
    """Scores, curves and pictures of a section's first seed; `scores` are the whole folder's."""

    def __init__(self, section: Section, out: Path, scores: pl.DataFrame) -> None:
        self.section, self.out = section, out
        firsts = section.first_cells()
        cells = firsts["cell_id"].unique().sort()
        by = ("cell_id", "category")
        self.scores = scores.join(firsts, on=by)
        self.points = pl.concat([read_curves(out, cell) for cell in cells]).join(firsts, on=by)
        self.shown = pl.concat([read_pictures(out, cell) for cell in cells]).join(firsts, on=by)
        self.without_pictures = set(cells) - set(self.shown["cell_id"])
        separate = section.frame["mode"][0] == "separate"
        # Several models have no common threshold.
        self.categories = section.categories if separate else [*section.categories, POOLED]

    def licences(self) -> list[dict[str, Any]]:
        """benchmark, licence and source of the pictures."""
        rows = self.shown.select("licence", "source").unique().sort("licence", "source")
        return [{"benchmark": self.section.benchmark} | row for row in rows.to_dicts()]

    def panels(self) -> Iterator[Panel]:
        """The charts of each category, and of all their images under one threshold."""
        for number, category in enumerate(self.categories):
            subject = f"{category}, {self.section.title}"
            roc = list(self._image_curves(category))
            charts = [curves(roc, f"Image ROC of {subject}", IMAGE_AXES)] if roc else []
            points = self.points.filter(category=category)
            if not points.is_empty():
                tpr, pro = ([*self._pixel_curves(points, rate)] for rate in ("tpr", "pro"))
                charts.append(curves(tpr, f"Pixel ROC of {subject}", PIXEL_AXES))
                charts.append(curves(pro, f"PRO of {subject}", REGION_AXES, RIGHT))
            missing = "" if len(charts) == 3 else self._missing(category, bool(roc))
            yield Panel(self.section.index, number, charts, missing)

    def thresholds(self) -> dict[str, list[list[float]]]:
        """For each "section.category.method" the scores of normal and defective images, rising."""
        by_panel = {}
        for number, category in enumerate(self.categories):
            scores = self._scores(category).sort("score")
            for (name,), rows in scores.group_by("name", maintain_order=True):
                key = f"{self.section.index}.{number}.{self._index(name)}"
                kinds = (rows.filter(label=is_defect)["score"] for is_defect in (False, True))
                by_panel[key] = [[*map(_shortened, kind)] for kind in kinds]
        return by_panel

    def alarms(self) -> dict[str, float]:
        """For each "section.category.method" the score above which an image is an alarm at 5 %.

        Of held-out images; nothing where there are too few.
        """
        found = {}
        for number, category in enumerate(self.categories):
            for cell, name in self._scores(category).select("cell_id", "name").unique().iter_rows():
                path = calibration_path(self.out, cell)
                if not path.exists():
                    continue
                held = pl.read_parquet(path, glob=False)
                mine = held if category == POOLED else held.filter(category=category)
                with suppress(ValueError):
                    key = f"{self.section.index}.{number}.{self._index(name)}"
                    found[key] = threshold(mine["score"].to_numpy(), ALPHAS[-1])
        return found

    def pictures(self) -> Iterator[Picture]:
        """The worst images of each category and method, the worst first."""
        by = ("category", "name", "kind")
        for (category, name, kind), rows in self.shown.group_by(by, maintain_order=True):
            number, method = self.categories.index(str(category)), self._index(name)
            for rank, row in enumerate(rows.to_dicts()):
                facts = kind == MISS, row["key"], row["defect"], _shortened(row["score"])
                uris = (_data_uri(row[picture]) for picture in ("image", "mask", "overlay"))
                yield Picture(self.section.index, number, method, rank, *facts, *uris)

    def _scores(self, category: str) -> pl.DataFrame:
        return self.scores if category == POOLED else self.scores.filter(category=category)

    def _index(self, name: Any) -> int:
        return self.section.labels.index(str(name))

    def _image_curves(self, category: str) -> Iterator[Line]:
        from sklearn.metrics import roc_curve  # here, so that listing formats stays quick

        scores = self._scores(category)
        for name in self.section.present:
            rows = scores.filter(name=name)
            if rows["label"].n_unique() == 2:
                fpr_P, tpr_P, _ = roc_curve(rows["label"].to_numpy(), rows["score"].to_numpy())
                yield Line(self._index(name), fpr_P, tpr_P)

    def _pixel_curves(self, points: pl.DataFrame, rate: str) -> Iterator[Line]:
        for name in self.section.present:
            rows = points.filter(name=name)
            if not rows.is_empty():
                yield Line(self._index(name), rows["fpr"].to_numpy(), rows[rate].to_numpy())

    def _missing(self, category: str, has_scores: bool) -> str:
        if not has_scores:
            return f"image scores: {NOT_KEPT}"
        if category == POOLED:
            return "pixel curves: pixels of different categories are not pooled"
        rows = self.section.chosen.filter(category=category)
        pixels = rows.filter(pl.col("metric").str.starts_with("pixel_"))
        reasons = pixels.filter(pl.col("value").is_null())["reason"].unique().sort().to_list()
        return f"pixel curves: {'; '.join(map(str, reasons)) or NOT_KEPT}"


def within(pictures: Sequence[Picture], most_bytes: int) -> tuple[list[Picture], int]:
    """The pictures that fit into so many bytes, and how many of each kind these are.

    The worst come first, and each category and method has equally many.
    """
    chosen: list[Picture] = []
    ranks = max((picture.rank for picture in pictures), default=-1) + 1
    for rank in range(ranks):
        more = [picture for picture in pictures if picture.rank == rank]
        if sum(picture.size for picture in [*chosen, *more]) > most_bytes:
            return chosen, rank
        chosen += more
    return chosen, ranks


def _shortened(score: float) -> float:
    """The score to nine digits. They tell any two float32 apart, so that counts stay exact."""
    return float(f"{score:.9g}")


def _data_uri(content: bytes | None) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode() if content else ""
