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
from PIL import Image

from results.evidence import ALARM
from results.reports.sections import Section

BYTES_IN_TEXT = 4 / 3
"""Characters of base64 for a byte."""


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
            yield Picture(rank=rank, defective=defective, **same)


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
    """Indices of one defect that is found and of one that is missed, as far as there are any.

    Of the methods `labels`, the first one first; found or missed by the thresholds `starts` of
    their panels. Of the found ones that whose map fits its mask best, of the missed ones that which
    lies lowest among its method's and category's.
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
            ]
            if candidates:
                sign = -1 if is_found else 1
                chosen.append(
                    min(candidates, key=lambda n: (sign * _clarity(pictures[n]), pictures[n].rank))
                )
                break
    return chosen


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
