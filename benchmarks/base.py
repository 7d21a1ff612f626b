"""What a data set promises: samples, images and masks, a sealed test split, checks over content."""

from __future__ import annotations

import difflib
import hashlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
Result = TypeVar("Result")


class DataError(ValueError):
    """Data that cannot be used, told to the user: one line per problem, what, where, what to do."""


class SealedError(RuntimeError):
    """The test split was asked for where choosing is still going on: a bug, not bad input."""


class Counts(NamedTuple):
    """Images of one category: normal training, normal test, defective test."""

    train: int
    good: int
    defective: int


@dataclass(frozen=True)
class Sample:
    """One image of a data set; `key` is its stable identity, such as "screw/test/good/000.png"."""

    key: str
    category: str
    defect: str  # "good" for a normal image
    path: Path | None  # None where the image is rendered
    masks: tuple[Path, ...] = ()

    @property
    def anomalous(self) -> bool:
        """Whether the folder, never a mask, calls this image defective."""
        return self.defect != "good"


class Benchmark(ABC):
    """A data set; a subclass says how samples are listed, read and identified."""

    name: str
    licence: str
    source: str  # where it is published
    location: str = ""  # where it lies here
    no_pixel_reason: str = ""  # why there are no masks; empty where there are
    published: Mapping[str, Counts] = MappingProxyType({})

    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The categories that are present, sorted."""

    @abstractmethod
    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB; DataError where it cannot be read."""

    @abstractmethod
    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """What is defective, (H, W) bool, all False if normal; None without pixel truth."""

    @abstractmethod
    def content(self, sample: Sample) -> Iterator[bytes]:
        """The bytes that make up the sample: the image first, then each mask."""

    @abstractmethod
    def _list(self, split: str, category: str) -> list[Sample]:
        """The samples of one split ("train" or "test") of one category."""

    @property
    def pixel_truth(self) -> bool:
        """Whether masks exist, hence pixel metrics."""
        return not self.no_pixel_reason

    @property
    def absent(self) -> tuple[str, ...]:
        """The published categories that are not on disk."""
        return tuple(sorted(set(self.published) - set(self.categories())))

    def train(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """The normal training images, sorted by key; DataError for a category without any."""
        chosen = self._chosen(categories)
        if empty := [name for name in chosen if not self._list("train", name)]:
            raise DataError(
                "\n".join(
                    f"{self.location or self.name}: category {name!r} has no training images; "
                    f"put normal ones into {name}/train/good, or leave the category out"
                    for name in empty
                )
            )
        return self._sorted("train", chosen)

    def test(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """The test images, sorted by key; SealedError inside `sealed()`."""
        if _SEAL.depth:
            raise SealedError(f"the test split of {self.name} is sealed while knobs are chosen")
        return self._sorted("test", self._chosen(categories))

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        """Faults that no sample shows, such as a mask without an image; one line each."""
        return []

    def count_problems(self) -> list[str]:
        """Where the categories present differ from the published counts; one line each."""
        found = {name: self._counts(name) for name in self.categories()}
        return [
            f"{self.location or self.name}: {name} has {tuple(counts)} images (train, good, "
            f"defective), published are {tuple(self.published[name])}; look for lost files"
            for name, counts in found.items()
            if counts != self.published.get(name, counts)
        ]

    def _counts(self, category: str) -> Counts:
        test = self._list("test", category)
        defective = sum(sample.anomalous for sample in test)
        return Counts(len(self._list("train", category)), len(test) - defective, defective)

    def _sorted(self, split: str, categories: Sequence[str]) -> list[Sample]:
        samples = [sample for name in categories for sample in self._list(split, name)]
        return sorted(samples, key=lambda sample: sample.key)

    def _chosen(self, categories: Sequence[str] | None) -> tuple[str, ...]:
        present = self.categories()
        for name in categories or ():
            if name not in present:
                close = difflib.get_close_matches(name, present, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"present: {', '.join(present)}"
                raise DataError(f"{self.location or self.name}: no category {name!r}; {hint}")
        return present if categories is None else tuple(dict.fromkeys(categories))


class _Seal:
    """Counts the open `sealed()` blocks of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.depth = 0

    def shift(self, by: int) -> None:
        with self._lock:
            self.depth += by


# State of the module on purpose: the seal must hold for every data set of the process, also one
# opened inside it, and in every thread; a ContextVar would not reach threads started inside.
_SEAL = _Seal()


@contextmanager
def sealed() -> Iterator[None]:
    """While this is open `Benchmark.test` raises SealedError, in all threads of the process."""
    _SEAL.shift(+1)
    try:
        yield
    finally:
        _SEAL.shift(-1)


def map_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`map` over threads, results in order; decoding and hashing release the interpreter lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(function, items)


def fingerprint(benchmark: Benchmark, samples: Sequence[Sample]) -> str:
    """Identity of the samples' content, 16 hex characters: keys, image bytes and mask bytes.

    The order of the samples does not matter, nor where they lie; one changed byte does.
    """

    def digest(sample: Sample) -> bytes:
        sha = hashlib.sha256(sample.key.encode())
        for part in _readable(benchmark, sample):
            sha.update(hashlib.sha256(part).digest())
        return sha.digest()

    ordered = sorted(samples, key=lambda sample: sample.key)
    return hashlib.sha256(b"".join(map_threads(digest, ordered))).hexdigest()[:16]


def check(
    benchmark: Benchmark, samples: Sequence[Sample], on_done: Callable[[], None] | None = None
) -> list[str]:
    """Decodes every image and mask and returns all problems, one line each, naming the file.

    `on_done()` is called once per sample in the caller's thread, for a progress bar.
    """

    def faults(sample: Sample) -> list[str]:
        found: list[str] = []
        for read in (benchmark.read_image, benchmark.read_mask):
            try:
                read(sample)
            except DataError as error:
                found += str(error).splitlines()
        return found

    problems: list[str] = []
    for found in map_threads(faults, samples):
        problems += found
        if on_done is not None:
            on_done()
    problems += benchmark.problems(sorted({sample.category for sample in samples}))
    return list(dict.fromkeys(problems))


def duplicates(benchmark: Benchmark, train: Sequence[Sample], test: Sequence[Sample]) -> list[str]:
    """Notes, one line each: test images that equal a training image, and training images twice."""

    def digest(sample: Sample) -> bytes:
        return hashlib.sha256(next(_readable(benchmark, sample))).digest()

    first: dict[bytes, str] = {}
    notes: list[str] = []
    for sample, image in zip(train, map_threads(digest, train), strict=True):
        if (other := first.setdefault(image, sample.key)) != sample.key:
            notes.append(f"{sample.key}: the same image as {other}; twice in training")
    for sample, image in zip(test, map_threads(digest, test), strict=True):
        if image in first:
            notes.append(f"{sample.key}: the same image as {first[image]}; a leak from training")
    return notes


def _readable(benchmark: Benchmark, sample: Sample) -> Iterator[bytes]:
    try:
        yield from benchmark.content(sample)
    except OSError as error:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}); replace it"
        ) from error
