"""Pseudo-validation: anomalies made of held-out normal images alone (LafitE, section 3.4).

Fragments are cut from one normal image by masks of different shapes and sizes, rotated and
combined, and pasted on another normal image of the same category, at another place. The paper says
no more; sizes, contrast, blending and position are options here, and what was drawn is recorded.

All that is drawn follows from (seed, key of the image) by hashing, whatever else is asked for, in
whatever order or thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample, map_threads
from benchmarks.parts.foreground import foreground
from benchmarks.parts.masks import LARGEST, SHAPES, Outline, place_outline, thickness
from benchmarks.parts.paste import Canvas, Fragment, marked_by

SYNTHESIS_VERSION = 1  # raise it whenever a pixel changes: it is what the fingerprint sees
BLENDINGS = ("hard", "feathered", "matched")
DESIGNS, PLACES = 16, 16  # tries: designs of an image, places of each of its fragments
LEAST_PIXELS = 4
LEAST_SHIFT = 0.05  # of the shorter side, between where a fragment comes from and where it goes
LONGEST = 0.9  # of the shorter side
JOINED = 0.5  # share of the further masks that are combined with the one before


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """How pseudo-anomalies are drawn; of several entries each is as likely, so repeat to favour.

    `smallest` and `largest` bound the marked share of the image, drawn log-uniformly before
    feathering; scratches end at 2 %. `contrasts` scale the fragment's difference to what it
    covers. Blending is `hard`, `feathered` (soft edge) or `matched` (soft edge, and the fragment's
    mean colour brought to that of what it covers, so that only structure differs). In a share
    `foreground` of the images fragments land on the object, if one stands out; in the others
    anywhere. A fragment that changes less than `least_change` grey levels (of 255, averaged over
    1/64 of the image's side) is drawn again. ValueError for a value out of range.
    """

    shapes: tuple[str, ...] = tuple(SHAPES)
    masks: int = 3  # one to so many in an image
    smallest: float = 1e-4
    largest: float = 1 / 3
    contrasts: tuple[float, ...] = (0.25, 0.5, 1.0)
    blendings: tuple[str, ...] = BLENDINGS
    foreground: float = 0.5
    least_change: float = 6.0

    def __post_init__(self) -> None:
        for name, known in (("shapes", tuple(SHAPES)), ("blendings", BLENDINGS)):
            given = getattr(self, name)
            if not given or set(given) - set(known):
                raise ValueError(f"synthesis: {name} {given}; choose some of {', '.join(known)}")
        valid = {
            f"masks {self.masks}; at least 1": self.masks >= 1,
            f"sizes {self.smallest} to {self.largest}; 0 < smallest <= largest <= 0.5": (
                0 < self.smallest <= self.largest <= 0.5
            ),
            f"contrasts {self.contrasts}; some above 0, at most 1": (
                bool(self.contrasts) and all(0 < contrast <= 1 for contrast in self.contrasts)
            ),
            f"foreground {self.foreground}; a share from 0 to 1": 0 <= self.foreground <= 1,
            f"least_change {self.least_change}; from 0 to 255": 0 <= self.least_change <= 255,
        }
        for complaint, holds in valid.items():
            if not holds:
                raise ValueError(f"synthesis: {complaint}")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What was drawn for one pseudo-anomalous image."""

    key: str
    target: str  # keys of the two normal images
    source: str
    shapes: tuple[str, ...]  # of each mask, the largest first
    size: float  # marked share of the image
    contrast: float
    blending: str
    position: str  # "foreground" or "anywhere", where no object stands out too
    change: float  # grey levels of the fragment that changed least
    redrawn: int  # designs thrown away because they could not be seen


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """All that is needed to render an image or its mask again."""

    drawn: Drawn
    shape: tuple[int, int]
    fragments: tuple[Fragment, ...]


def hold_out(
    benchmark: Benchmark, samples: Sequence[Sample], share: float = 0.1, seed: int = 0
) -> tuple[list[Sample], list[Sample]]:
    """Splits normal samples into (kept, held): per category a `share`, at least two of either.

    Copies of one image stay together: a held image has no twin to be found by among the kept ones.
    A larger share holds out the same images and more. DataError, a line per category, where fewer
    than four different images exist.
    """
    if not 0 < share < 1:
        raise ValueError(f"share {share} of the images to hold out; choose between 0 and 1")
    digests = dict(zip(samples, map_threads(lambda s: _digest(benchmark, s), samples), strict=True))
    held: set[bytes] = set()
    problems = []
    for category in sorted({sample.category for sample in samples}):
        found = {digest for sample, digest in digests.items() if sample.category == category}
        if len(found) < 4:
            problems.append(
                f"{benchmark.location or benchmark.name}: category {category!r} has {len(found)} "
                "different normal images; pseudo-validation needs 4 (2 to hold out, 2 to learn "
                "from): add some, or leave the category out"
            )
        count = min(max(2, round(share * len(found))), len(found) - 2)
        held |= set(sorted(found, key=lambda d: _hash(seed, "hold out", d.hex()))[: max(0, count)])
    if problems:
        raise DataError("\n".join(problems))
    kept = [sample for sample in samples if digests[sample] not in held]
    return kept, [sample for sample in samples if digests[sample] in held]


def pseudo_validation(
    benchmark: Benchmark,
    categories: Sequence[str] | None = None,
    *,
    share: float = 0.1,
    seed: int = 0,
    synthesis: Synthesis | None = None,
) -> PseudoValidation:
    """Holds out a share of the training images and makes the pseudo-validation set of them."""
    kept, held = hold_out(benchmark, benchmark.train(categories), share, seed)
    return PseudoValidation(benchmark, kept, held, seed, synthesis or Synthesis())


class PseudoValidation(Benchmark):
    """A data set of normal images: `train` gives the kept ones, `validation` the rest.

    The held-out images themselves are its normal samples; for each there is one pseudo-anomalous
    sample that shows it with fragments of another held-out one, rendered when read.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        kept: Sequence[Sample],
        held: Sequence[Sample],
        seed: int = 0,
        synthesis: Synthesis | None = None,
    ) -> None:
        self.name = f"{benchmark.name} (pseudo-validation)"
        self.licence, self.source = benchmark.licence, benchmark.source
        self.location = benchmark.location
        self.synthesis = synthesis or Synthesis()
        self._benchmark, self._seed = benchmark, seed
        self._kept, self._held = list(kept), list(held)
        self._targets = {self._anomalous(sample).key: sample for sample in held}
        # Plans are small, and the same whoever makes them: a race between threads costs time only.
        self._plans: dict[str, _Plan] = {}

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in self._held}))

    def validation(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """Held-out normal and pseudo-anomalous samples, sorted by key.

        Never sealed: nothing in them comes from the test split.
        """
        return self._sorted("test", self._chosen(categories))

    def drawn(self, sample: Sample) -> Drawn:
        """What was drawn for a pseudo-anomalous sample."""
        return self._plan(sample).drawn

    def target(self, sample: Sample) -> Sample:
        """The normal sample that a pseudo-anomalous one was made of."""
        return self._targets[sample.key]

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        if not sample.anomalous:
            return self._benchmark.read_image(sample)
        target, source = self._read_pair(sample)
        canvas = Canvas(target)
        for fragment in self._plan(sample, (target, source)).fragments:
            canvas.paste(source, fragment)
        return canvas.image

    def read_mask(self, sample: Sample) -> NDArray[np.bool_]:
        if not sample.anomalous:
            return np.zeros(self.read_image(sample).shape[:2], dtype=bool)
        plan = self._plan(sample)
        return marked_by(plan.fragments, plan.shape)

    def content(self, sample: Sample) -> Iterator[bytes]:
        if not sample.anomalous:
            yield from self._benchmark.content(sample)
            return
        for part in (self.target(sample), self._source(sample)):
            yield from self._benchmark.content(part)
        yield f"{SYNTHESIS_VERSION}/{self._seed}/{self.synthesis}".encode()

    def _list(self, split: str, category: str) -> list[Sample]:
        if split == "train":
            return [sample for sample in self._kept if sample.category == category]
        held = [sample for sample in self._held if sample.category == category]
        return held + [self._anomalous(sample) for sample in held]

    def _anomalous(self, target: Sample) -> Sample:
        random = _generator(self._seed, "shape", target.key)
        shape = self.synthesis.shapes[random.integers(len(self.synthesis.shapes))]
        name = PurePath(target.key).name
        return Sample(f"{target.category}/pseudo/{shape}/{name}", target.category, shape, None)

    def _source(self, sample: Sample) -> Sample:
        """The other image of the category; more held-out images change it for few targets."""
        target = self.target(sample)
        others = [
            other for other in self._held if other.category == target.category and other != target
        ]
        return min(others, key=lambda other: _hash(self._seed, target.key, other.key))

    def _read_pair(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        target = self._benchmark.read_image(self.target(sample))
        source = self._benchmark.read_image(self._source(sample))
        if source.shape != target.shape:
            height, width = target.shape[:2]
            resized = Image.fromarray(source).resize((width, height), Image.Resampling.BILINEAR)
            source = np.asarray(resized)
        return target, source

    def _plan(
        self, sample: Sample, pair: tuple[NDArray[np.uint8], NDArray[np.uint8]] | None = None
    ) -> _Plan:
        if sample.key not in self._plans:
            target, source = pair or self._read_pair(sample)
            ...
        return self._plans[sample.key]
