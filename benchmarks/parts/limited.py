"""A data set with a few images of each category, for a first look."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample


class Limited(Benchmark):
    """A data set with at most `limit` training, good and defective images of each category.

    They lie evenly in the order of their keys, so all kinds of defects are among them.
    """

    def __init__(self, benchmark: Benchmark, limit: int) -> None:
        self.name = f"{benchmark.name}, {limit} images of each kind"
        self.licence, self.source = benchmark.licence, benchmark.source
        self.location = benchmark.location
        self.no_pixel_reason, self.remark = benchmark.no_pixel_reason, benchmark.remark
        self._benchmark, self._limit = benchmark, limit

    def categories(self) -> tuple[str, ...]:
        return self._benchmark.categories()

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        return self._benchmark.read_image(sample)

    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        return self._benchmark.read_mask(sample)

    def content(self, sample: Sample) -> Iterator[bytes]:
        return self._benchmark.content(sample)

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        return self._benchmark.problems(categories)

    def doubts(self, sample: Sample) -> list[str]:
        return self._benchmark.doubts(sample)

    def losses(self, sample: Sample) -> list[str]:
        return self._benchmark.losses(sample)

    def unread(self) -> list[str]:
        return self._benchmark.unread()

    def _list(self, split: str, category: str) -> list[Sample]:
        samples = sorted(self._benchmark._list(split, category), key=lambda sample: sample.key)
        normal = [sample for sample in samples if not sample.anomalous]
        return [*self._some(normal), *self._some([s for s in samples if s.anomalous])]

    def _some(self, samples: Sequence[Sample]) -> list[Sample]:
        count = min(self._limit, len(samples))
        return [samples[i * len(samples) // count] for i in range(count)]
