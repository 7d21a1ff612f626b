"""The data set whose images and masks are files, however they were listed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Counts, DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.decode import (
    deepest,
    image_shape,
    is_deep,
    losses,
    orientation,
    read_marks,
    read_rgb,
    soft_levels,
    white_of,
)
from benchmarks.parts.inventory import LAYOUT, Inventory, printable

HALF, MOST_EDGE, MOST_AREA = 0.5, 0.9, 0.9
"""Shares of an image's edge and area. Of 242 real masks (screw, metal_plate, commutator) the
largest take 3 % of the edge and 26 % of the area."""
_COUNTING = Lock()


class Published(NamedTuple):
    """Published facts of a data set."""

    name: str
    licence: str = "not stated: see the data set"
    source: str = "a folder of the user's"
    layout: str = LAYOUT
    usual_folders: Sequence[str] = ()
    """Usual places below the folder of all data."""
    counts: Mapping[str, Counts | None] = MappingProxyType({})
    """Category -> its counts; None where they are not known for sure."""


class FileBenchmark(Benchmark):
    """Samples that were listed beforehand per category, with what is wrong or not read beside them.

    `faults` are of no category alone; `beside` is what lies there and is not read.
    """

    mask_advice = "its data set is not whole; copy it again"
    """The remedy for a missing mask; DEFECT/NAME in it stands for that of the image."""

    def __init__(
        self,
        known: Published,
        location: Path,
        inventories: Iterable[Inventory],
        faults: Sequence[str] = (),
        beside: Sequence[Path] = (),
    ) -> None:
        self.name, self.licence, self.source = known.name, known.licence, known.source
        self.published, self.location = known.counts, str(location)
        self._inventories = {inventory.name: inventory for inventory in inventories}
        self._faults, self._beside = faults, beside
        self._whites: dict[str, float | None] = {}

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(self._inventories))

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        return read_rgb(_file(sample), lambda: self.white(sample.category))

    def white(self, category: str) -> float | None:
        """The value that becomes 255, in images of more than 8 bits a channel; training decides.

        None where all training images have 8.
        """
        with _COUNTING:
            if category not in self._whites:
                files = [_file(sample) for sample in self._inventories[category].train_samples]
                self._whites[category] = white_of(map_threads(deepest, files))
            return self._whites[category]

    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Union of the sample's masks.

        DataError where one is missing, of another size or empty, or marks a normal image.
        """
        if not self.pixel_truth:
            return None
        shape = image_shape(_file(sample))
        marks = np.zeros(shape, dtype=bool)
        if sample.anomalous and not sample.masks:
            name = f"{sample.defect}/{_file(sample).stem}"
            advice = self.mask_advice.replace("DEFECT/NAME", name)
            raise DataError(f"{sample.path}: is defective and has no mask; {advice}")
        problems = []
        for path in sample.masks:
            try:
                marks |= _marks_of_shape(path, shape, turned=orientation(_file(sample)) > 1)
            except DataError as error:
                problems.append(str(error))
        if not sample.anomalous and marks.any():
            problems.append(
                f"{sample.masks[0]}: marks {marks.sum():,} pixels of a normal image; is it "
                "defective? move both to its defect, or remove the mask"
            )
        if sample.anomalous and not problems and not marks.any():
            problems.append(f"{sample.masks[0]}: marks no pixel of a defective image; redraw it")
        if problems:
            raise DataError("\n".join(problems))
        return marks

    def content(self, sample: Sample) -> Iterator[bytes]:
        path = _file(sample)
        for part in (path, *sample.masks):
            yield part.read_bytes()
        with suppress(DataError):  # of a damaged image: the check of the data names them all
            if is_deep(path):  # how it is read makes it what it is
                yield f"white {self.white(sample.category)!r}".encode()

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        chosen = [self._inventories[name] for name in self._chosen(categories)]
        return [*self._faults, *(line for each in chosen for line in each.problems.values())]

    def doubts(self, sample: Sample) -> list[str]:
        """Masks with soft edges, of turned images, and those that mark what is around a defect."""
        if not self.pixel_truth or not sample.anomalous:
            return []
        doubts = [
            f"{path}: has {levels} grey levels, so where the defect ends is unclear; save it as "
            "PNG with 0 and 255, or take all above 0 with --trust-masks"
            for path in sample.masks
            if (levels := soft_levels(path))
        ]
        marks, turned = self.read_mask(sample), orientation(_file(sample))
        for path in sample.masks if 2 <= turned <= 4 or (turned > 4 and _is_square(marks)) else ():
            if orientation(path) != turned:
                doubts.append(
                    f"{path}: its image is turned by EXIF; turn the mask too if it was drawn on "
                    "the unturned one, or take it as it is with --trust-masks"
                )
        if not doubts and marks is not None and _surrounds(marks):
            doubts.append(
                f"{sample.masks[0]}: covers {marks.mean():.0%} of {sample.key}: inverted? mark the "
                "defect and not what is around it, or take it as it is with --trust-masks"
            )
        return doubts

    def losses(self, sample: Sample) -> list[str]:
        path = _file(sample)
        found = losses(path)
        if (most := deepest(path)) is not None:
            white = self.white(sample.category)
            said = "the largest value of its kind" if white is None else f"{white:g}"
            found.append(f"more than 8 bits a channel become 8; {said} becomes white")
            if white is not None and most > white:
                found.append(f"some values are above {white:g}, which training images decide")
        return found

    def unread(self) -> list[str]:
        paths = [*self._beside, *(p for each in self._inventories.values() for p in each.unread)]
        folders = Path(self.location), Path(self.location).resolve()
        return [
            printable(next((p.relative_to(f) for f in folders if p.is_relative_to(f)), p))
            for p in paths
        ]

    def _list(self, split: str, category: str) -> list[Sample]:
        inventory = self._inventories[category]
        return list(inventory.train_samples if split == "train" else inventory.test_samples)


def _file(sample: Sample) -> Path:
    assert sample.path is not None, f"{sample.key} belongs to a rendered data set"
    return sample.path


def _is_square(marks: NDArray[np.bool_] | None) -> bool:
    return marks is not None and marks.shape[0] == marks.shape[1]


def _surrounds(marks: NDArray[np.bool_]) -> bool:
    """Whether a mask looks like what is around a defect: it takes the edges of the image."""
    edge = np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]]).mean()
    whole = marks.mean()
    return bool(edge > MOST_EDGE or whole > MOST_AREA or (edge > HALF and whole > HALF))


def _marks_of_shape(path: Path, shape: tuple[int, int], *, turned: bool) -> NDArray[np.bool_]:
    marks = read_marks(path)
    if marks.shape != shape:
        advice = "make the mask as large as the image"
        if turned and marks.shape == shape[::-1]:
            advice = "EXIF turns the image: turn the mask too"
        raise DataError(
            f"{path}: is {marks.shape[1]} x {marks.shape[0]}, its image {shape[1]} x {shape[0]} "
            f"(width x height); {advice}"
        )
    return marks
