"""A validation set without one real anomaly, made of training images that are held out for it.

Every draw follows from (seed, key of the image) by hashing; other requests, order and threads do
not change it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import image_hashes, map_threads
from benchmarks.parts.synthesis.families import FAMILIES, LEFT_OUT, MADE
from benchmarks.parts.synthesis.paste import Canvas
from benchmarks.parts.synthesis.synthesis import (
    VERSION,
    Drawn,
    Synthesis,
    UnseenError,
    digest,
    synthesise,
)

LEAST_HELD_OUT = LEAST_TRAIN = 2
SPREAD = 3  # families from one anomaly of an image to its next, so that few images have all alike


def hold_out(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    share: float = 0.1,
    seed: int = 0,
    fold: int = 0,
    purpose: str = "hold out",
) -> tuple[list[Sample], list[Sample]]:
    """Splits normal samples into (train, held out), at least two of either in each category.

    A `share` of every category is held out; a larger share holds out the same images and more, and
    another `fold` others, as long as there are any; another `purpose` draws anew. Copies of an
    image stay together, so that no held-out image has a twin in training. DataError for a share
    outside (0, 1), and for categories of fewer than four different images.
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
        count = held_of(share, len(distinct))
        ranked = sorted(distinct, key=lambda image: digest(seed, purpose, image))
        first = fold * count % len(ranked)
        held_out |= set((ranked[first:] + ranked[:first])[:count])
    if problems:
        raise DataError("\n".join(problems))
    train = [sample for sample in samples if content[sample] not in held_out]
    return train, [sample for sample in samples if content[sample] in held_out]


def held_of(share: float, images: int) -> int:
    """How many of a category's different images are held out."""
    return min(max(LEAST_HELD_OUT, round(share * images)), images - LEAST_TRAIN)


class Plan(NamedTuple):
    """The recipe of an anomalous sample: its family, its image, and its number among theirs.

    Of the family `LEFT_OUT` the image itself, of another category, is the anomaly.
    """

    family: str
    image: Sample
    number: int = 0

    @property
    def draw_key(self) -> str:
        """The key that the draws follow from: KEY, KEY.2, KEY.3, as no file can end."""
        return f"{self.image.key}.{self.number + 1}" if self.number else self.image.key


class PseudoValidation(Benchmark):
    """A data set of normal images alone: `train` gives some, `validation` the held-out ones.

    To each held-out image there are `anomalies` pseudo-anomalous ones, each of another of the
    families, in turn. They are rendered when they are read. More of them leave the first as they
    are. Held-out images of categories that are not learned serve the family that needs another
    category, and as anomalies themselves. `unseen` are keys of anomalies to leave out, see
    `PseudoValidation.unseen`.

    DataError as `hold_out`, for a category without training images, and for `anomalies` below 1.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        categories: Sequence[str] | None = None,
        *,
        share: float = 0.1,
        seed: int = 0,
        anomalies: int = 1,
        fold: int = 0,
        families: Sequence[str] = MADE,
        unseen: Collection[str] = (),
        synthesis: Synthesis | None = None,
    ) -> None:
        if anomalies < 1:
            raise DataError(f"anomalies {anomalies}: at least 1 pseudo-anomalous image of each")
        self.name = f"{benchmark.name} (pseudo-validation)"
        self.licence, self.source = benchmark.licence, benchmark.source
        self.location = benchmark.location
        self.synthesis = synthesis or Synthesis()
        self._benchmark, self._seed = benchmark, seed
        normal = benchmark.train(categories)
        self._train, self._held_out = hold_out(benchmark, normal, share, seed, fold)
        self._others: list[Sample] = []
        for name in sorted(set(benchmark.categories()) - set(self.categories())):
            with suppress(DataError):  # nobody asked for that category
                self._others += hold_out(benchmark, benchmark.train([name]), share, seed, fold)[1]
        several = len({sample.category for sample in (*self._held_out, *self._others)}) > 1
        self._families = [
            name
            for name in families
            if name != LEFT_OUT and (several or FAMILIES[name].needs != "other")
        ]
        left_out, passed_over = bool(self._others) and LEFT_OUT in families, set(unseen)
        self._plans = {
            key: plan
            for category in self.categories()
            for plan in self._planned(category, anomalies, left_out, fold)
            if (key := self._key(category, plan)) not in passed_over
        }
        # Every thread draws the same: two that draw for the same sample lose time, nothing else.
        self._drawn: dict[str, Drawn] = {}
        self._marks: dict[str, tuple[NDArray[np.uint8], int]] = {}
        """Sample's key -> its mask in bits, and the width."""

    def _planned(self, category: str, anomalies: int, left_out: bool, fold: int) -> Iterator[Plan]:
        """The anomalies of a category: of each image the next families, those of others last.

        A fold goes on where the one before it ended, so that small ones have all families together.
        """
        images, families = self._ranked(category, self._held_in(category)), self._families
        turns = sorted(range(len(families)), key=lambda turn: (turn % SPREAD, turn))
        for rank, image in enumerate(images, fold * len(images)):
            for number in range(anomalies if families else 0):
                turn = rank + turns[number % len(turns)]
                yield Plan(families[turn % len(families)], image, number)
        if left_out:
            count = -(-len(images) * anomalies // max(1, len(self._families)))
            for image in self._ranked(category, self._others)[: max(LEAST_HELD_OUT, count)]:
                yield Plan(LEFT_OUT, image)

    def _ranked(self, purpose: str, samples: Sequence[Sample]) -> list[Sample]:
        return sorted(samples, key=lambda sample: digest(self._seed, purpose, sample.key))

    def _held_in(self, category: str) -> list[Sample]:
        return [sample for sample in self._held_out if sample.category == category]

    @staticmethod
    def _key(category: str, plan: Plan) -> str:
        name = PurePath(plan.draw_key).name
        if plan.family == LEFT_OUT:
            name = f"{plan.image.category}-{name}"
        return f"{category}/pseudo/{plan.family}/{name}"

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({sample.category for sample in self._held_out}))

    @property
    def families(self) -> tuple[str, ...]:
        """Families that there are anomalies of, in their order."""
        found = {plan.family for plan in self._plans.values()}
        return tuple(name for name in (*FAMILIES, LEFT_OUT) if name in found)

    def validation(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """Held-out normal and pseudo-anomalous samples, sorted by key.

        Never sealed, as nothing in them comes from the test split.
        """
        return self._sorted("test", self._chosen(categories))

    def plan_of(self, sample: Sample) -> Plan:
        """The recipe of a pseudo-anomalous sample."""
        return self._plans[sample.key]

    def target(self, sample: Sample) -> Sample | None:
        """The normal sample that a pseudo-anomalous one shows, its clean twin; None of a whole
        image of another category."""
        plan = self._plans[sample.key]
        return None if plan.family == LEFT_OUT else plan.image

    def fragments_of(self, sample: Sample) -> Sample | None:
        """The normal sample that the fragments are cut from; None for a family without one.

        It is drawn by rank of a hash: a longer list changes it for few.
        """
        plan = self._plans[sample.key]
        needs = "" if plan.family == LEFT_OUT else FAMILIES[plan.family].needs
        if not needs:
            return None
        if needs == "same":
            others = self._held_in(sample.category)
            others.remove(plan.image)
        else:
            both = [*self._held_out, *self._others]
            others = [other for other in both if other.category != sample.category]
        ranked = sorted(others, key=lambda other: digest(self._seed, plan.image.key, other.key))
        return ranked[plan.number % len(ranked)]

    def unseen(self) -> list[str]:
        """Keys of the anomalies that could not be seen on their image; all are drawn for it."""

        def tried(sample: Sample) -> str:
            try:
                self.drawn(sample)
            except UnseenError:
                return sample.key
            return ""

        made = [sample for sample in self.validation() if sample.anomalous and self.target(sample)]
        return [key for key in map_threads(tried, made) if key]

    def drawn(self, sample: Sample) -> Drawn:
        """The draws for a made anomaly; UnseenError where none could be."""
        if sample.key not in self._drawn:
            self._make(sample)
        return self._drawn[sample.key]

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        if not sample.anomalous:
            return self._benchmark.read_image(sample)
        if self.target(sample) is None:
            return self._benchmark.read_image(self._plans[sample.key].image)
        return self._make(sample).image

    def read_mask(self, sample: Sample) -> NDArray[np.bool_]:
        """The changed pixels; all of them in a whole image of another category."""
        if not sample.anomalous or self.target(sample) is None:
            shape = self.read_image(sample).shape[:2]
            return np.full(shape, sample.anomalous, dtype=bool)
        if sample.key not in self._marks:
            self._make(sample)
        bits, width = self._marks[sample.key]
        return np.unpackbits(bits, axis=1, count=width).astype(bool)

    def content(self, sample: Sample) -> Iterator[bytes]:
        if not sample.anomalous:
            yield from self._benchmark.content(sample)
            return
        plan = self._plans[sample.key]
        for part in (plan.image, self.fragments_of(sample)):
            if part is not None:
                yield from self._benchmark.content(part)
        yield f"{VERSION}/{self._seed}/{plan.family}/{plan.number}/{self.synthesis}".encode()

    def _list(self, split: str, category: str) -> list[Sample]:
        if split == "train":
            return [sample for sample in self._train if sample.category == category]
        made = [
            Sample(key, category, plan.family, None)
            for key, plan in self._plans.items()
            if key.startswith(f"{category}/pseudo/")
        ]
        return self._held_in(category) + made

    def _make(self, sample: Sample) -> Canvas:
        plan = self._plans[sample.key]
        target = source = self._benchmark.read_image(plan.image)
        if (origin := self.fragments_of(sample)) is not None:
            source = self._benchmark.read_image(origin)
            if source.shape != target.shape:
                size = target.shape[1], target.shape[0]
                resized = Image.fromarray(source).resize(size, Image.Resampling.BILINEAR)
                source = np.asarray(resized)
        before = self._drawn.get(sample.key)
        redrawn = before.redrawn if before else 0
        drawn, canvas = synthesise(
            target, source, plan.family, self.synthesis, self._seed, plan.draw_key, redrawn
        )
        self._drawn[sample.key] = drawn
        self._marks[sample.key] = np.packbits(canvas.mask, axis=1), target.shape[1]
        return canvas
