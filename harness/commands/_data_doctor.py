"""What is wrong with a data set, and what is worth knowing: the checks of `run`, and more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.content import check, duplicates, losses, map_threads
from harness.commands._data_check import lost_defects
from harness.commands._strangers import strangers
from harness.options import Say
from methods.parts.backbone import WeightsMissing

SMALL, ALIKE = 32, 0.75
"""Near-copies, scaled down to so many pixels, differ by less than so many of 255 on average."""
ODD = 6.0
"""Robust standard deviations of brightness beyond which an image is worth a look."""
Weight = Literal["fault", "warning", "note"]


class Finding(NamedTuple):
    """A line of the table: `fault` is what `run` refuses, `warning` what may spoil a result."""

    weight: Weight
    check: str
    line: str


class Seen(NamedTuple):
    """What one image looks like."""

    shape: tuple[int, int]
    brightness: float
    small: NDArray[np.float32]
    """Grey, SMALL x SMALL in a row."""


def examine(benchmark: Benchmark, side: int, *, trust_masks: bool, say: Say) -> Iterator[Finding]:
    """All findings; images are read once for faults, and once more for what they look like."""
    for line in benchmark.problems():
        yield Finding("fault", "layout", line)
    lacks = benchmark.lacking(benchmark.categories(), tested=True)
    for name, lack in lacks.items():
        yield Finding("warning", "layout", f"category {name!r} has {lack}; it is left out")
    for line in benchmark.count_problems():
        yield Finding("warning", "counts", line)
    for name in benchmark.absent:
        yield Finding("note", "counts", f"published category {name} is not here")
    for line in benchmark.unread():
        yield Finding("note", "layout", f"{line}: not read")
    categories = [name for name in benchmark.categories() if name not in lacks]
    if not categories:
        return
    train, test = benchmark.train(categories), benchmark.test(categories)
    say(f"reading {len(train) + len(test)} images and their masks")
    if problems := check(benchmark, [*train, *test], trust_masks=trust_masks):
        yield from (Finding("fault", "images", line) for line in problems)
        return
    for line in duplicates(benchmark, train, test):
        kind: Weight = "warning" if "leak" in line else "note"
        yield Finding(kind, "copies", line)
    for line in losses(benchmark, [*train, *test]):
        yield Finding("note", "depth", line)
    for line in lost_defects(benchmark, test, {(side, None)}):
        yield Finding("warning", "resolution", line)
    yield from _looks(benchmark, train, test)
    normal = [*train, *(sample for sample in test if not sample.anomalous)]
    say(f"comparing features of {len(normal)} normal images")
    try:
        for line in strangers(benchmark, normal):
            yield Finding("warning", "strangers", line)
    except WeightsMissing as error:
        yield Finding("note", "strangers", f"not looked for: {error}")


def _looks(
    benchmark: Benchmark, train: Sequence[Sample], test: Sequence[Sample]
) -> Iterator[Finding]:
    seen = dict(zip([*train, *test], _all_seen(benchmark, [*train, *test]), strict=True))
    for category in benchmark.categories():
        mine = [sample for sample in seen if sample.category == category]
        if not mine:
            continue
        shapes = Counter(seen[sample].shape for sample in mine)
        words = ", ".join(f"{w} x {h} ({n})" for (h, w), n in shapes.most_common(3))
        kind: Weight = "warning" if len(shapes) > 1 else "note"
        yield Finding(kind, "sizes", f"{category}: {len(shapes)} of width x height: {words}")
        light = np.array([seen[sample].brightness for sample in mine])
        middle = float(np.median(light))
        spread = max(1.4826 * float(np.median(np.abs(light - middle))), 1.0)
        for sample, value in zip(mine, light, strict=True):
            if abs(value - middle) > ODD * spread:
                words = f"mean brightness {value:.0f}, usual in {category} is {middle:.0f}"
                yield Finding("warning", "exposure", f"{sample.key}: {words}")
    yield from _near(train, test, seen)


def _near(
    train: Sequence[Sample], test: Sequence[Sample], seen: dict[Sample, Seen]
) -> Iterator[Finding]:
    """Test images of which a training image is all but a copy."""
    small_NP = np.stack([seen[sample].small for sample in train])
    for sample in test:
        apart_N = np.abs(small_NP - seen[sample].small).mean(axis=1)
        nearest = int(np.argmin(apart_N))
        if apart_N[nearest] < ALIKE and train[nearest].category == sample.category:
            line = f"{sample.key}: looks like {train[nearest].key} of the training images"
            yield Finding("warning", "near-copies", line)


def _all_seen(benchmark: Benchmark, samples: Sequence[Sample]) -> Iterator[Seen]:
    def one(sample: Sample) -> Seen:
        pixels: NDArray[np.uint8] = benchmark.read_image(sample)
        grey = Image.fromarray(pixels).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)
        small = np.asarray(grey, dtype=np.float32).ravel()
        return Seen((pixels.shape[0], pixels.shape[1]), float(small.mean()), small)

    return map_threads(one, samples)
