"""A validation set without one real anomaly, made of training images that are held out for it.

Every draw follows from (seed, key of the image) by hashing; other requests, order and threads do
not change it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import image_hashes
from benchmarks.parts.synthesis.paste import Canvas, marked_by
from benchmarks.parts.synthesis.synthesis import (
    VERSION,
    Drawn,
    Synthesis,
    digest,
    generator,
    synthesise,
)

LEAST_HELD_OUT = LEAST_TRAIN = 2


def hold_out(
    benchmark: Benchmark, samples: Sequence[Sample], share: float = 0.1, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Splits normal samples into (train, held out), at least two of either in each category.

    A `share` of every category is held out; a larger share holds out the same images and more.
    Copies of an image stay together, so that no held-out image has a twin in training. DataError
    for a share outside (0, 1), and for categories of fewer than four different images.
    """
    if not 0 < share < 1:
        raise DataError(f"share {share:g} of the images to hold out; choose between 0 and 1")
    content = dict(zip(samples, image_hashes(benchmark, samples), strict=True))
    held_out: set[str] = set()
    problems = []
    for category in sorted({sample.category for sample in samples}):
        distinct = {content[sample] for sample in samples if sample.category == category}
        if len(distinct) < LEAST_HELD_OUT + LEAST_TRAIN:
            problems.append(
                f"{benchmark.location or benchmark.name}: category {category!r} has "
                f"{len(distinct)} different normal images; pseudo-validation needs at least "
                f"{LEAST_HELD_OUT + LEAST_TRAIN}: add some, or leave the category out"
            )
            continue
        count = max(LEAST_HELD_OUT, round(share * len(distinct)))
        count = min(count, len(distinct) - LEAST_TRAIN)
        ranked = sorted(distinct, key=lambda image: digest(seed, "hold out", image))
        held_out |= set(ranked[:count])
    if problems:
        raise DataError("\n".join(problems))
    train = [sample for sample in samples if content[sample] not in held_out]
    return train, [sample for sample in samples if content[sample] in held_out]


def pseudo_validation(
    benchmark: Benchmark,
    categories: Sequence[str] | None = None,
    *,
    share: float = 0.1,
    seed: int = 0,
    anomalies: int = 1,
    synthesis: Synthesis | None = None,
) -> PseudoValidation:
    """Holds out a share of the training images and makes the pseudo-validation set of them.

    DataError as `hold_out`, for a category without training images, and for `anomalies` below 1.
    """
    if anomalies < 1:
        raise DataError(f"anomalies {anomalies}: at least 1 pseudo-anomalous image of each")
    train, held_out = hold_out(benchmark, benchmark.train(categories), share, seed)
    return PseudoValidation(benchmark, train, held_out, seed, synthesis or Synthesis(), anomalies)


class PseudoValidation(Benchmark):
    """A data set of normal images alone: `train` gives some, `validation` the held-out ones.

    To each held-out image there are `anomalies` pseudo-anomalous ones, rendered when they are read:
    the image with fragments of another held-out one. More of them leave the first as they are.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        train: Sequence[Sample],
        held_out: Sequence[Sample],
        seed: int,
        synthesis: Synthesis,
        anomalies: int = 1,
    ) -> None:
        self.name = f"{benchmark.name} (pseudo-validation)"
        self.licence, self.source = benchmark.licence, benchmark.source
        self.location = benchmark.location
        self.synthesis = synthesis
        self._benchmark, self._seed = benchmark, seed
        self._train, self._held_out = list(train), list(held_out)
        self._numbers = range(anomalies)
        self._targets = {
            self._anomalous(sample, number).key: (sample, number)
            for sample in held_out
            for number in self._numbers
        }
        # Every thread draws the same: two that draw for the same sample lose time, nothing else.
        self._drawn: dict[str, Drawn] = {}

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in self._held_out}))

    def validation(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """Held-out normal and pseudo-anomalous samples, sorted by key.

        Never sealed, as nothing in them comes from the test split.
        """
        return self._sorted("test", self._chosen(categories))

    def target(self, sample: Sample) -> Sample:
        """The normal sample that a pseudo-anomalous one shows."""
        return self._targets[sample.key][0]

    def fragments_of(self, sample: Sample) -> Sample:
        """The normal sample that the fragments of a pseudo-anomalous one are cut from.

        It is another of the category, by rank of a hash: a longer list changes it for few targets.
        """
        target, number = self._targets[sample.key]
        others = [other for other in self._held_out if other.category == target.category]
        others.remove(target)
        ranked = sorted(others, key=lambda other: digest(self._seed, target.key, other.key))
        return ranked[number % len(ranked)]

    def drawn(self, sample: Sample) -> Drawn:
        """The draws for a pseudo-anomalous sample; DataError where no anomaly could be seen."""
        if sample.key not in self._drawn:
            self._make(sample, *self._pair(sample))
        return self._drawn[sample.key]

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        if not sample.anomalous:
            return self._benchmark.read_image(sample)
        target, source = self._pair(sample)
        if sample.key not in self._drawn:
            return self._make(sample, target, source).image
        canvas = Canvas(target)
        for fragment in self._drawn[sample.key].fragments:
            canvas.put(canvas.patch(source, fragment))
        return canvas.image

    def read_mask(self, sample: Sample) -> NDArray[np.bool_]:
        if not sample.anomalous:
            return np.zeros(self.read_image(sample).shape[:2], dtype=bool)
        drawn = self.drawn(sample)
        return marked_by(drawn.fragments, drawn.image_shape)

    def content(self, sample: Sample) -> Iterator[bytes]:
        if not sample.anomalous:
            yield from self._benchmark.content(sample)
            return
        for part in (self.target(sample), self.fragments_of(sample)):
            yield from self._benchmark.content(part)
        yield f"{VERSION}/{self._seed}/{self.synthesis}".encode()
        yield _numbered("", self._targets[sample.key][1]).encode()

    def _list(self, split: str, category: str) -> list[Sample]:
        if split == "train":
            return [sample for sample in self._train if sample.category == category]
        normal = [sample for sample in self._held_out if sample.category == category]
        return normal + [self._anomalous(sample, n) for sample in normal for n in self._numbers]

    def _anomalous(self, target: Sample, number: int) -> Sample:
        shapes, draw_key = self.synthesis.shapes, _numbered(target.key, number)
        shape = shapes[generator(self._seed, "shape", draw_key).integers(len(shapes))]
        key = f"{target.category}/pseudo/{shape}/{PurePath(draw_key).name}"
        return Sample(key, target.category, shape, None)

    def _pair(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Target and source of one size."""
        target = self._benchmark.read_image(self.target(sample))
        source = self._benchmark.read_image(self.fragments_of(sample))
        if source.shape != target.shape:
            size = target.shape[1], target.shape[0]
            resized = Image.fromarray(source).resize(size, Image.Resampling.BILINEAR)
            source = np.asarray(resized)
        return target, source

    def _make(self, sample: Sample, target: NDArray[np.uint8], source: NDArray[np.uint8]) -> Canvas:
        normal, number = self._targets[sample.key]
        key = _numbered(normal.key, number)
        drawn, canvas = synthesise(target, source, sample.defect, self.synthesis, self._seed, key)
        self._drawn[sample.key] = drawn
        return canvas


def _numbered(key: str, number: int) -> str:
    """The key that the draws of an image's anomaly 0, 1, ... follow from: KEY, KEY.2, KEY.3, ...

    No image file of the data set can end so.
    """
    return f"{key}.{number + 1}" if number else key
