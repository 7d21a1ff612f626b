"""A validation set without one real anomaly, out of training images that are held out for it.

All that is drawn follows from (seed, key of the image) by hashing, whatever else is asked for, in
whatever order or thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import image_hash, map_threads
from benchmarks.parts.synthesis.paste import Canvas, marked_by
from benchmarks.parts.synthesis.synthesis import (
    VERSION,
    Drawn,
    Synthesis,
    digest,
    generator,
    synthesise,
)

LEAST_HELD = LEAST_KEPT = 2


def hold_out(
    benchmark: Benchmark, samples: Sequence[Sample], share: float = 0.1, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Splits normal samples into (kept, held): per category a `share`, at least two of either.

    Copies of an image stay together, so that no held one has a twin among the kept ones. A larger
    share holds out the same images and more. DataError for a share that is none, and, a line per
    category, where fewer than four different images exist.
    """
    if not 0 < share < 1:
        raise DataError(f"share {share:g} of the images to hold out; choose between 0 and 1")
    contents = map_threads(lambda sample: image_hash(benchmark, sample), samples)
    content = dict(zip(samples, contents, strict=True))
    held: set[str] = set()
    problems = []
    for category in sorted({sample.category for sample in samples}):
        distinct = {content[sample] for sample in samples if sample.category == category}
        if len(distinct) < LEAST_HELD + LEAST_KEPT:
            problems.append(
                f"{benchmark.location or benchmark.name}: category {category!r} has "
                f"{len(distinct)} different normal images; pseudo-validation needs at least "
                f"{LEAST_HELD + LEAST_KEPT}: add some, or leave the category out"
            )
            continue
        count = min(max(LEAST_HELD, round(share * len(distinct))), len(distinct) - LEAST_KEPT)
        held |= set(sorted(distinct, key=lambda one: digest(seed, "hold out", one))[:count])
    if problems:
        raise DataError("\n".join(problems))
    kept = [sample for sample in samples if content[sample] not in held]
    return kept, [sample for sample in samples if content[sample] in held]


def pseudo_validation(
    benchmark: Benchmark,
    categories: Sequence[str] | None = None,
    *,
    share: float = 0.1,
    seed: int = 0,
    anomalies: int = 1,
    synthesis: Synthesis | None = None,
) -> PseudoValidation:
    """Holds out a share of the training images and makes the pseudo-validation set of them."""
    if anomalies < 1:
        raise DataError(f"anomalies {anomalies}: at least 1 pseudo-anomalous image of each")
    kept, held = hold_out(benchmark, benchmark.train(categories), share, seed)
    return PseudoValidation(benchmark, kept, held, seed, synthesis or Synthesis(), anomalies)


class PseudoValidation(Benchmark):
    """A data set of normal images alone: `train` gives the kept ones, `validation` the others.

    The held-out images are its normal samples; to each there are `anomalies` pseudo-anomalous ones,
    which show it with fragments of another held-out image and are rendered when they are read.
    More of them leave the first ones as they are.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        kept: Sequence[Sample],
        held: Sequence[Sample],
        seed: int,
        synthesis: Synthesis,
        anomalies: int = 1,
    ) -> None:
        self.name = f"{benchmark.name} (pseudo-validation)"
        self.licence, self.source = benchmark.licence, benchmark.source
        self.location = benchmark.location
        self.synthesis = synthesis
        self._benchmark, self._seed = benchmark, seed
        self._kept, self._held = list(kept), list(held)
        self._copies = range(anomalies)
        self._targets = {
            self._anomalous(sample, copy).key: (sample, copy)
            for sample in held
            for copy in self._copies
        }
        # The same whoever makes them: threads that make one twice lose time, nothing else.
        self._drawn: dict[str, Drawn] = {}

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in self._held}))

    def validation(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """Held-out normal and pseudo-anomalous samples, sorted by key.

        Never sealed: nothing in them comes from the test split.
        """
        return self._sorted("test", self._chosen(categories))

    def target(self, sample: Sample) -> Sample:
        """The normal sample that a pseudo-anomalous one shows."""
        return self._targets[sample.key][0]

    def fragments_of(self, sample: Sample) -> Sample:
        """The normal sample that the fragments of a pseudo-anomalous one are cut from.

        Another one of the category, by rank of a hash: a longer list changes it for few targets.
        """
        target, copy = self._targets[sample.key]
        others = [other for other in self._held if other.category == target.category]
        others.remove(target)
        ranked = sorted(others, key=lambda other: digest(self._seed, target.key, other.key))
        return ranked[copy % len(ranked)]

    def drawn(self, sample: Sample) -> Drawn:
        """What was drawn for a pseudo-anomalous sample."""
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
            return [sample for sample in self._kept if sample.category == category]
        held = [sample for sample in self._held if sample.category == category]
        return held + [self._anomalous(one, copy) for one in held for copy in self._copies]

    def _anomalous(self, target: Sample, copy: int) -> Sample:
        shapes, drawn_by = self.synthesis.shapes, _numbered(target.key, copy)
        shape = shapes[generator(self._seed, "shape", drawn_by).integers(len(shapes))]
        key = f"{target.category}/pseudo/{shape}/{PurePath(drawn_by).name}"
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
        of, copy = self._targets[sample.key]
        key = _numbered(of.key, copy)
        drawn, canvas = synthesise(target, source, sample.defect, self.synthesis, self._seed, key)
        self._drawn[sample.key] = drawn
        return canvas


def _numbered(key: str, copy: int) -> str:
    """What the draws of an image's first, second, ... anomaly follow from; the first has no number.

    The number is a suffix of its own: no file of the data set can end so and be an image.
    """
    return f"{key}.{copy + 1}" if copy else key
