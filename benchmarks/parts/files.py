"""The data set whose images and masks are files, however they were listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Counts, DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.decode import (
    SIXTEEN_BITS,
    deepest,
    image_shape,
    is_deep,
    is_deep_colour,
    losses,
    read_marks,
    read_rgb,
    soft_levels,
    white_of,
)
from benchmarks.parts.inventory import printable

HALF, MOST_EDGE, MOST_AREA = 0.5, 0.9, 0.9
"""Shares of an image's edge and area. Of 242 real masks (screw, metal_plate, commutator) the
largest take 3 % of the edge and 26 % of the area."""
_COUNTING = Lock()


@dataclass(kw_only=True)
class FileBenchmark(Benchmark):
    """Samples and `strays`, faults of one line each, that were listed beforehand per category.

    `faults` are of no category alone; `beside` is what lies there and is not read.
    """

    name: str
    licence: str
    source: str
    location: str
    no_pixel_reason: str = ""
    remark: str = ""
    train_samples: Mapping[str, Sequence[Sample]]
    test_samples: Mapping[str, Sequence[Sample]]
    published: Mapping[str, Counts | None] = field(default_factory=dict)
    faults: Sequence[str] = ()
    strays: Mapping[str, Sequence[str]] = field(default_factory=dict)
    beside: Sequence[Path] = ()
    _whites: dict[str, float] = field(default_factory=dict, init=False)

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(self.train_samples))

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        path = _file(sample)
        return read_rgb(path, self.white(sample.category)) if is_deep(path) else read_rgb(path)

    def white(self, category: str) -> float:
        """The value that becomes 255, in images of more than 8 bits a channel; training decides."""
        with _COUNTING:
            if category not in self._whites:
                files = [_file(sample) for sample in self.train_samples[category]]
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
            raise DataError(
                f"{sample.path}: is defective and has no mask; add "
                f"ground_truth/{sample.defect}/{_file(sample).stem}_mask.png"
            )
        problems = []
        for path in sample.masks:
            try:
                marks |= _marks_of_shape(path, shape)
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
            white = self.white(sample.category) if is_deep(path) else SIXTEEN_BITS
            # How it is read makes it what it is. Grey of whole 16 bits is read as it always was.
            if white != SIXTEEN_BITS or is_deep_colour(path):
                yield f"white {white!r}".encode()

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        chosen = self._chosen(categories)
        return [*self.faults, *(line for name in chosen for line in self.strays.get(name, ()))]

    def doubts(self, sample: Sample) -> list[str]:
        """Masks with soft edges, and those that mark what is around the defect."""
        if not self.pixel_truth or not sample.anomalous:
            return []
        soft = [
            f"{path}: has {levels} grey levels, so where the defect ends is unclear; save it as "
            "PNG with 0 and 255, or take all above 0 with --trust-masks"
            for path in sample.masks
            if (levels := soft_levels(path))
        ]
        marks = self.read_mask(sample)
        if soft or marks is None or not _surrounds(marks):
            return soft
        return [
            f"{sample.masks[0]}: covers {marks.mean():.0%} of {sample.key}: inverted? mark the "
            "defect and not what is around it, or take it as it is with --trust-masks"
        ]

    def losses(self, sample: Sample) -> list[str]:
        path = _file(sample)
        found = losses(path)
        if (most := deepest(path)) is not None:
            white = self.white(sample.category)
            found.append(f"more than 8 bits a channel become 8; {white:g} becomes white")
            if most > white:
                found.append(f"some values are above {white:g}, which training images decide")
        return found

    def unread(self) -> list[str]:
        return [printable(path.relative_to(self.location)) for path in self.beside]

    def _list(self, split: str, category: str) -> list[Sample]:
        listed = self.train_samples if split == "train" else self.test_samples
        return list(listed[category])


def _file(sample: Sample) -> Path:
    assert sample.path is not None, f"{sample.key} belongs to a rendered data set"
    return sample.path


def _surrounds(marks: NDArray[np.bool_]) -> bool:
    """Whether a mask looks like what is around a defect: it takes the edges of the image."""
    edge = np.concatenate([marks[0], marks[-1], marks[:, 0], marks[:, -1]]).mean()
    whole = marks.mean()
    return bool(edge > MOST_EDGE or whole > MOST_AREA or (edge > HALF and whole > HALF))


def _marks_of_shape(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    marks = read_marks(path)
    if marks.shape != shape:
        raise DataError(
            f"{path}: is {marks.shape[1]} x {marks.shape[0]}, its image {shape[1]} x {shape[0]} "
            "(width x height); make the mask as large as the image"
        )
    return marks
