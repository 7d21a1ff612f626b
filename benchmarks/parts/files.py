"""The data set whose images and masks are files, however they were listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Counts, DataError, Sample
from benchmarks.parts.decode import image_shape, read_marks, read_rgb


@dataclass(kw_only=True)
class FileBenchmark(Benchmark):
    """Samples and `strays`, faults of one line each, that were listed beforehand per category."""

    name: str
    licence: str
    source: str
    location: str
    no_pixel_reason: str = ""
    train_samples: Mapping[str, Sequence[Sample]]
    test_samples: Mapping[str, Sequence[Sample]]
    published: Mapping[str, Counts] = field(default_factory=dict)
    strays: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(self.train_samples))

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        return read_rgb(_file(sample))

    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Union of the sample's masks; DataError where one is missing, of another size or empty."""
        if not self.pixel_truth:
            return None
        shape = image_shape(_file(sample))
        marks = np.zeros(shape, dtype=bool)
        if not sample.anomalous:
            return marks
        if not sample.masks:
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
        if not problems and not marks.any():
            problems.append(f"{sample.masks[0]}: marks no pixel of a defective image; redraw it")
        if problems:
            raise DataError("\n".join(problems))
        return marks

    def content(self, sample: Sample) -> Iterator[bytes]:
        for path in (_file(sample), *sample.masks):
            yield path.read_bytes()

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        return [line for name in self._chosen(categories) for line in self.strays.get(name, ())]

    def _list(self, split: str, category: str) -> list[Sample]:
        listed = self.train_samples if split == "train" else self.test_samples
        return list(listed[category])


def _file(sample: Sample) -> Path:
    if sample.path is None:
        raise TypeError(f"{sample.key} has no file: it belongs to a rendered data set")
    return sample.path


def _marks_of_shape(path: Path, shape: tuple[int, int]) -> NDArray[np.bool_]:
    marks = read_marks(path)
    if marks.shape != shape:
        raise DataError(
            f"{path}: is {marks.shape[1]} x {marks.shape[0]}, its image {shape[1]} x {shape[0]} "
            "(width x height); make the mask as large as the image"
        )
    return marks
