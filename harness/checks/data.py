"""The checks of a data set: `run` makes those of `examine` before it trains, `doctor` all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import check, duplicates, losses, map_threads
from benchmarks.parts.images import load_masks, load_views, vanished
from harness.plan.cell import Cell, digest
from harness.plan.datasets import MOST_PROBLEMS
from harness.plan.options import first_few
from harness.screen.progress import counter, noting
from harness.work.cache import FeatureCache
from methods.parts.backbone import LITE0, Extractor, Features, WeightsMissing, find_weights
from results.files import write_whole
from results.profiles import PROFILES

MOST_NOTES = 2
"""Images of a kind that a run names; `doctor` names more."""
RULES = 4
"""Raised when the check of a run finds more than it did."""
SMALL, ALIKE = 32, 0.75
"""Near-copies, scaled down to so many pixels, differ by less than so many of 255 on average."""
ODD = 6.0
"""Robust standard deviations of brightness beyond which an image is worth a look."""
POOLED = Features(backbone=LITE0, layers=(3, 4), resize=160, grid=1)
BATCH = 32
NEIGHBOURS, MOST_OF_THEM = 11, 0.6
"""An image is of another category if so many of its nearest are. Of the normal images of shapes,
ELPV, and screw with metal_plate and commutator none is named; of three that are moved from each
category to another all are."""
APART = 8.0
"""Robust standard deviations of the distance to the middle of a category, beyond which an image is
like none of them."""
FEWEST = 8
"""Images of which a category has a middle."""
Weight = Literal["fault", "warning", "note"]
View = tuple[int, int | None]
"""How an image is seen: the side of its resize, and of the crop."""


class Finding(NamedTuple):
    """A line of the table: `fault` is what `run` refuses, `warning` what may spoil a result."""

    weight: Weight
    check: str
    line: str


class Images(NamedTuple):
    """The images to examine, and the views in which their pixels are judged."""

    benchmark: Benchmark
    train: Sequence[Sample]
    test: Sequence[Sample]
    views: set[View]


def check_data(
    cells: Sequence[Cell], cache: FeatureCache, console: Console, *, trust_masks: bool
) -> None:
    """Decode every image once per content, before anything is trained; DataError names all faults.

    For a search for knobs the training images alone. What there is to know is said each time.
    """
    views: dict[str, tuple[Cell, set[View]]] = {}
    for cell in cells:
        if cell.purpose == "tuned":
            continue  # the same images as those of the row beside it
        content = cell.data.train_fingerprint + cell.data.test_fingerprint
        profile = PROFILES[cell.profile]
        views.setdefault(content, (cell, set()))[1].add((profile.resize, profile.crop))
    for content, (cell, of_data) in views.items():
        rules = {"content": content, "views": sorted(map(str, of_data)), "rules": RULES}
        mark = cache.root / f"checked-{digest(rules | {'trust_masks': trust_masks})}"
        if (notes := _noted(mark)) is None:
            notes = _notes(cell, of_data, console, trust_masks)
            write_whole(mark, json.dumps(notes).encode(), replace=True)
        for note in notes:
            noting(console)(note)


def _noted(mark: Path) -> list[str] | None:
    """Notes of an earlier check of the same content by the same rules; None without one."""
    try:
        notes = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
    return notes if isinstance(notes, list) else None


def _notes(cell: Cell, views: set[View], console: Console, trust_masks: bool) -> list[str]:
    """Notes on the data; DataError for images that can't be used."""
    data, benchmark = cell.data, cell.data.open()
    train = [*benchmark.train(data.categories), *data.open_reserved()[1]]
    test = [] if cell.role.sealed else benchmark.test(data.categories)
    with counter(f"checking {data.label}", len(train + test), console) as count:
        images = Images(benchmark, train, test, views)
        findings = list(examine(images, count, trust_masks=trust_masks))
    if faults := [finding.line for finding in findings if finding.weight == "fault"]:
        raise DataError("\n".join(first_few(faults, MOST_PROBLEMS)))
    notes: list[str] = []
    for name, of_check in groupby(findings, key=lambda finding: finding.check):
        lines = [finding.line for finding in of_check]
        notes += first_few(lines, MOST_NOTES) if name in ("copies", "resolution") else lines
    return notes


def examine(
    images: Images, count: Callable[[], None] | None = None, *, trust_masks: bool
) -> Iterator[Finding]:
    """Notes on the images of a run; they are read once, and `count` is told of each."""
    benchmark, train, test = images.benchmark, images.train, images.test
    yield from _each("warning", "counts", benchmark.count_problems())
    if problems := check(benchmark, [*train, *test], count, trust_masks=trust_masks):
        yield from _each("fault", "images", problems)
        return
    yield from _each("note", "depth", losses(benchmark, [*train, *test]))
    for line in duplicates(benchmark, train, test):
        yield Finding("warning" if "leak" in line else "note", "copies", line)
    yield from _each("warning", "resolution", lost_defects(images))


def examine_all(benchmark: Benchmark, side: int, *, trust_masks: bool) -> Iterator[Finding]:
    """The notes of `examine`, and more that are worth a look; reads the images once more."""
    yield from _each("fault", "layout", benchmark.problems())
    lacks = benchmark.lacking(benchmark.categories(), tested=True)
    for name, lack in lacks.items():
        yield Finding("warning", "layout", f"category {name!r} has {lack}; it is left out")
    yield from _each("note", "layout", (f"{line}: not read" for line in benchmark.unread()))
    absent = (f"published category {name} is not here" for name in benchmark.absent)
    yield from _each("note", "counts", absent)
    if not (categories := [name for name in benchmark.categories() if name not in lacks]):
        return
    train, test = benchmark.train(categories), benchmark.test(categories)
    images, faulty = Images(benchmark, train, test, {(side, None)}), False
    for finding in examine(images, trust_masks=trust_masks):
        faulty |= finding.weight == "fault"
        yield finding
    if faulty:
        return
    yield from _looks(images)
    normal = [*train, *(sample for sample in test if not sample.anomalous)]
    try:
        yield from _each("warning", "strangers", strangers(benchmark, normal))
    except WeightsMissing as error:
        yield Finding("note", "strangers", f"not looked for: {error}")


def _each(weight: Weight, name: str, lines: Iterator[str] | Sequence[str]) -> Iterator[Finding]:
    return (Finding(weight, name, line) for line in lines)


def lost_defects(images: Images) -> Iterator[str]:
    """Defects that a view of the image no longer shows: their image stays defective."""
    defective = [sample for sample in images.test if sample.anomalous]
    for resize, crop in sorted(images.views, key=str):
        masks = load_masks(images.benchmark, defective, resize, crop)
        shape = f"{resize} pixels" + (f", cropped to {crop}" if crop else "")
        for key in vanished(defective, masks) if masks is not None else ():
            yield f"{key}: its defect vanishes at {shape}; pixel metrics miss it"


class _Seen(NamedTuple):
    """An image's height and width, and its grey values, SMALL x SMALL in a row."""

    shape: tuple[int, int]
    small: NDArray[np.float32]


def _looks(images: Images) -> Iterator[Finding]:
    """Sizes and brightness that differ within a category, and near-copies between the splits."""

    def look(sample: Sample) -> _Seen:
        pixels: NDArray[np.uint8] = images.benchmark.read_image(sample)
        grey = Image.fromarray(pixels).convert("L").resize((SMALL, SMALL), Image.Resampling.BOX)
        return _Seen(pixels.shape[:2], np.asarray(grey, dtype=np.float32).ravel())

    samples = [*images.train, *images.test]
    seen = dict(zip(samples, map_threads(look, samples), strict=True))
    for category in dict.fromkeys(sample.category for sample in samples):
        mine = {sample: of for sample, of in seen.items() if sample.category == category}
        shapes = Counter(of.shape for of in mine.values())
        words = ", ".join(f"{w} x {h} ({n})" for (h, w), n in shapes.most_common(3))
        line = f"{category}: {len(shapes)} of width x height: {words}"
        yield Finding("warning" if len(shapes) > 1 else "note", "sizes", line)
        light_N = np.array([of.small.mean() for of in mine.values()])
        middle, spread = np.median(light_N), _spread(light_N, 1.0)
        for sample, value in zip(mine, light_N, strict=True):
            if abs(value - middle) > ODD * spread:
                words = f"mean brightness {value:.0f}, usual in {category} is {middle:.0f}"
                yield Finding("warning", "exposure", f"{sample.key}: {words}")
        yield from _near(mine, {sample for sample in images.test if sample in mine})


def _spread(values_N: NDArray[np.floating[Any]], least: float) -> float:
    """A robust standard deviation, of `least` at least."""
    from scipy.stats import median_abs_deviation  # half a second, which `run` need not wait for

    return max(float(median_abs_deviation(values_N, scale="normal")), least)


def _near(seen: dict[Sample, _Seen], tested: set[Sample]) -> Iterator[Finding]:
    """Test images of a category of which a training image is all but a copy."""
    train = [sample for sample in seen if sample not in tested]
    small_NP = np.stack([seen[sample].small for sample in train])
    for sample in (sample for sample in seen if sample in tested):
        apart_N = np.abs(small_NP - seen[sample].small).mean(axis=1)
        nearest = int(np.argmin(apart_N))
        if apart_N[nearest] < ALIKE:
            line = f"{sample.key}: looks like {train[nearest].key} of the training images"
            yield Finding("warning", "near-copies", line)


def strangers(benchmark: Benchmark, samples: Sequence[Sample]) -> Iterator[str]:
    """A line for each normal image whose nearest are of another category, or that is far from all.

    WeightsMissing where the backbone is not here.
    """
    from sklearn.neighbors import NearestNeighbors  # seconds, which `run` need not wait for

    if len(samples) < 2:
        return
    pooled_ND = _pooled(benchmark, samples)
    names_N = np.array([sample.category for sample in samples])
    count, far = min(NEIGHBOURS, len(samples) - 1), _far(pooled_ND, names_N)
    found = NearestNeighbors(n_neighbors=count).fit(pooled_ND)
    for number, nearest in enumerate(found.kneighbors(return_distance=False)):
        key, own = samples[number].key, samples[number].category
        [(name, votes)] = Counter(names_N[nearest]).most_common(1)
        if name != own and votes >= MOST_OF_THEM * count:
            yield f"{key}: looks like {name}, by features of {LITE0}"
        elif number in far:
            yield f"{key}: is unlike the rest of {own}, by features of {LITE0}"


def _pooled(benchmark: Benchmark, samples: Sequence[Sample]) -> NDArray[np.float32]:
    """One vector of length 1 an image: the mean of its features over all places."""
    extractor = Extractor(POOLED, find_weights(POOLED))
    found = []
    for start in range(0, len(samples), BATCH):
        views = load_views(benchmark, samples[start : start + BATCH], POOLED.resize, POOLED.crop)
        found.append(extractor(torch.from_numpy(views).float() / 255).flatten(1))
    return torch.nn.functional.normalize(torch.cat(found)).numpy()


def _far(pooled_ND: NDArray[np.float32], names_N: NDArray[np.str_]) -> set[int]:
    """The images that are far from the middle, the median, of their category."""
    found: set[int] = set()
    for name in np.unique(names_N):
        mine = np.flatnonzero(names_N == name)
        if len(mine) < FEWEST:
            continue
        values = pooled_ND[mine]
        apart_M = np.linalg.norm(values - np.median(values, axis=0), axis=1)
        limit = np.median(apart_M) + APART * _spread(apart_M, 1e-6)
        found |= set(mine[apart_M > limit].tolist())
    return found
