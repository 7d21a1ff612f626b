"""The pictures of the page: which ones fit, and which pair says most at a glance.

Methods that see images alike keep the same bytes, so the page holds each of them once.
"""

from __future__ import annotations

import io
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from results.evidence import ALARM
from results.reports.sections import Section

BYTES_IN_TEXT = 4 / 3
"""Characters of base64 for a byte."""
REACH, LOSS = 1 / 32, 2
"""Maps are coarser than masks; a kept map is off by so many grey levels."""


class Picture(NamedTuple):
    """One image with its map, as WebP; without a mask, null."""

    section: int
    category: int
    label: int
    rank: int  # 0 for the first of its kind
    key: str
    defect: str
    defective: bool
    score: float
    image: bytes
    mask: bytes | None
    map: bytes
    low: float
    high: float
    level: float
    on_defect: bool | None = None  # whether its map is highest at the defect; null without a mask

    @property
    def panel(self) -> str:
        """The page's name of its section, category and method."""
        return f"{self.section}.{self.category}.{self.label}"

    @property
    def files(self) -> list[bytes]:
        """Its image, its mask if it has one, and its map."""
        return [file for file in (self.image, self.mask, self.map) if file]


def pictures(section: Section, categories: Sequence[str], shown: pl.DataFrame) -> Iterator[Picture]:
    """The pictures of `shown`, rows of PICTURES_SCHEMA with a name and a label, by their kinds."""
    by = ("category", "name", "kind")
    for (category, name, kind), rows in shown.group_by(by, maintain_order=True):
        place = {
            "section": section.index,
            "category": categories.index(str(category)),
            "label": section.labels.index(str(name)),
        }
        for rank, row in enumerate(rows.to_dicts()):
            # Where the scores were not kept, the kind alone tells.
            defective = kind != ALARM if row["label"] is None else row["label"]
            facts = row | place | {"score": shortened(row["score"])}
            same = {field: facts[field] for field in Picture._fields if field in facts}
            there = peak_on_defect(row["map"], row["mask"]) if row["mask"] else None
            yield Picture(rank=rank, defective=defective, on_defect=there, **same)


def within(pictures: Sequence[Picture], most_bytes: float) -> tuple[list[Picture], int]:
    """The pictures that fit into so many bytes of a page, and how many of each kind these are.

    The first of each kind come first, and each category and method has equally many.
    """
    chosen: list[Picture] = []
    files: set[bytes] = set()
    ranks = max((picture.rank for picture in pictures), default=-1) + 1
    for rank in range(ranks):
        more = [picture for picture in pictures if picture.rank == rank]
        files.update(file for picture in more for file in picture.files)
        if sum(map(len, files)) * BYTES_IN_TEXT > most_bytes:
            return chosen, rank
        chosen += more
    return chosen, ranks


def embedded(pictures: Sequence[Picture]) -> dict[str, list[Any]]:
    """The pictures as JSON, their files by number; the files in base64."""
    numbers: dict[bytes, int] = {}
    for picture in pictures:
        for file in picture.files:
            numbers.setdefault(file, len(numbers))
    rows = [
        {
            name: numbers.get(value) if name in ("image", "mask", "map") else value
            for name, value in picture._asdict().items()
            if value is not None
        }
        for picture in pictures
    ]
    return {"pictures": rows, "files": [b64encode(file).decode() for file in numbers]}


def telling_pair(
    pictures: Sequence[Picture],
    section: int,
    labels: Sequence[int],
    starts: Mapping[str, float | None],
) -> list[int]:
    """Indices of a clear find and of a clear miss, as far as there are any.

    Of the methods `labels`, the first one first; called defective or not by the thresholds `starts`
    of their panels. The find is that whose map fits its mask best, or without masks the highest
    score; the miss is the defect whose map shows least of it.
    """
    chosen = []
    for is_found in (True, False):
        for label in labels:
            candidates = [
                number
                for number, picture in enumerate(pictures)
                if (picture.section, picture.label) == (section, label)
                and picture.defective
                and picture.panel in starts
                and _called(picture.score, starts[picture.panel]) == is_found
                and not (
                    is_found and picture.mask and not (picture.on_defect and _clarity(picture))
                )
            ]
            if candidates:
                best = max if is_found else min
                chosen.append(
                    best(candidates, key=lambda n: (_clarity(pictures[n]), pictures[n].score))
                )
                break
    return chosen


def peak_on_defect(map_file: bytes, mask_file: bytes) -> bool:
    """Whether a map is highest at the defect, or nearer to it than REACH of the image's side."""
    mask = Image.open(io.BytesIO(mask_file)).convert("L")
    near_HW = np.asarray(mask.filter(ImageFilter.MaxFilter(2 * round(REACH * mask.width) + 1)))
    map_HW = np.asarray(Image.open(io.BytesIO(map_file)).convert("L").resize(mask.size))
    peak_HW = map_HW >= int(map_HW.max()) - LOSS
    return bool((peak_HW & (near_HW > 127)).any())


def shortened(score: float) -> float:
    """The score to nine digits. They tell any two float32 apart, so that counts stay exact."""
    return float(f"{score:.9g}")


def _called(score: float, start: float | None) -> bool:
    return start is not None and score >= start


def _clarity(picture: Picture) -> float:
    """Intersection over union of a map above its level and the mask; 0 without a mask."""
    if not picture.mask:
        return 0.0
    share = (picture.level - picture.low) / max(picture.high - picture.low, 1e-12)
    mask_HW = _grey(picture.mask)
    map_HW = np.asarray(Image.fromarray(_grey(picture.map)).resize(mask_HW.shape[::-1]))
    hot_HW, defect_HW = map_HW >= 255 * share, mask_HW > 127
    return float((hot_HW & defect_HW).sum() / max((hot_HW | defect_HW).sum(), 1))


def _grey(file: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("L"))
