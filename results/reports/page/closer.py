"""One category at a time: its curves, the scores behind a threshold, and its worst images."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
from markupsafe import Markup

from results.evidence import MISS, read_curves, read_pictures
from results.reports.page.charts import Line, curves
from results.reports.page.sections import Section
from results.table import POOLED

RIGHT = 0.3
"""Up to which false positive rate PRO curves are drawn: that of AUPRO."""
FPR, TPR = "false positive rate", "true positive rate"
NOT_KEPT = "not kept by the version that ran these cells; run them again with --overwrite"


class Panel(NamedTuple):
    """What the page shows while a data set and a category are chosen."""

    section: int
    category: int
    charts: Sequence[Markup]
    missing: str  # which charts there are not, and why


class Picture(NamedTuple):
    """One image of the gallery; pictures are data URIs, an empty mask is none."""

    section: int
    category: int
    label: int
    rank: int  # 0 for the worst of its kind
    is_miss: bool
    key: str
    defect: str
    score: float
    image: str
    mask: str
    overlay: str

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it is shown."""
        return self.section, self.category, self.label

    @property
    def size(self) -> int:
        """Bytes in the page."""
        return len(self.image) + len(self.mask) + len(self.overlay)


class Closer:
    """Scores, curves and pictures of a section's first seed; `scores` are of the whole folder."""

    def __init__(self, section: Section, out: Path, scores: pl.DataFrame) -> None:
        self.section = section
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
            of = f"{category}, {self.section.title}"
            roc = list(self._image_curves(category))
            charts = [curves(roc, f"Image ROC of {of}", (FPR, f"images: {TPR}"))] if roc else []
            points = self.points.filter(category=category)
            if not points.is_empty():
                tpr, pro = ([*self._pixel_curves(points, name)] for name in ("tpr", "pro"))
                names = (f"{FPR} of pixels", "regions: mean overlap (PRO)")
                charts += [
                    curves(tpr, f"Pixel ROC of {of}", (FPR, f"pixels: {TPR}")),
                    curves(pro, f"PRO of {of}", names, RIGHT),
                ]
            missing = "" if len(charts) == 3 else self._missing(category, bool(roc))
            yield Panel(self.section.index, number, charts, missing)

    def thresholds(self) -> dict[str, list[list[float]]]:
        """For each "section.category.method" the scores of normal and defective images, rising."""
        found = {}
        for number, category in enumerate(self.categories):
            of = self._of(category).sort("score")
            for (name,), rows in of.group_by("name", maintain_order=True):
                key = f"{self.section.index}.{number}.{self._place(name)}"
                kinds = (rows.filter(label=is_defect)["score"] for is_defect in (False, True))
                found[key] = [[*map(_shortened, kind)] for kind in kinds]
        return found

    def pictures(self) -> Iterator[Picture]:
        """The worst images of each category and method, the worst first."""
        by = ("category", "name", "kind")
        for (category, name, kind), rows in self.shown.group_by(by, maintain_order=True):
            places = self.categories.index(str(category)), self._place(name)
            for rank, row in enumerate(rows.to_dicts()):
                yield Picture(
                    self.section.index,
                    *places,
                    rank,
                    kind == MISS,
                    row["key"],
                    row["defect"],
                    _shortened(row["score"]),
                    *(_data_uri(row[panel]) for panel in ("image", "mask", "overlay")),
                )

    def _of(self, category: str) -> pl.DataFrame:
        return self.scores if category == POOLED else self.scores.filter(category=category)

    def _place(self, name: Any) -> int:
        return self.section.labels.index(str(name))

    def _image_curves(self, category: str) -> Iterator[Line]:
        from sklearn.metrics import roc_curve  # here, so that listing formats stays quick

        rows = self._of(category)
        for name in self.section.present:
            of = rows.filter(name=name)
            if of["label"].n_unique() == 2:
                fpr, tpr, _ = roc_curve(of["label"].to_numpy(), of["score"].to_numpy())
                yield Line(self._place(name), fpr, tpr)

    def _pixel_curves(self, points: pl.DataFrame, name: str) -> Iterator[Line]:
        for method in self.section.present:
            of = points.filter(name=method)
            if not of.is_empty():
                yield Line(self._place(method), of["fpr"].to_numpy(), of[name].to_numpy())

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
    """The pictures that fit into so many bytes, equally many of each category and method, the
    worst first; and how many of each kind those are."""
    kept: list[Picture] = []
    ranks = max((picture.rank for picture in pictures), default=-1) + 1
    for rank in range(ranks):
        more = [picture for picture in pictures if picture.rank == rank]
        if sum(picture.size for picture in [*kept, *more]) > most_bytes:
            return kept, rank
        kept += more
    return kept, ranks


def _shortened(score: float) -> float:
    """Nine digits: they tell any two float32 apart, so that counts and verdicts are exact."""
    return float(f"{score:.9g}")


def _data_uri(content: bytes | None) -> str:
    return "data:image/webp;base64," + base64.b64encode(content).decode() if content else ""
