"""The contract of a data set: samples, images and masks, a sealed test split."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray


class DataError(ValueError):
    """Data that cannot be used. The user reads a line per problem: file, fault and remedy."""

    @classmethod
    def unreadable(cls, error: OSError, path: Path | str) -> DataError:
        """The error for a file that the system does not give us."""
        advice = "allow reading it" if isinstance(error, PermissionError) else "replace it"
        return cls(f"{path}: cannot be read ({error.strerror}); {advice}")


class SealedError(RuntimeError):
    """The test split was asked for while something is still chosen: a bug, not bad input."""


class Counts(NamedTuple):
    """Images of one category: normal training, normal test, defective test."""

    train: int
    good: int
    defective: int


@dataclass(frozen=True)
class Sample:
    """An image of a data set. `key` is its stable identity, such as "screw/test/good/000.png"."""

    key: str
    category: str
    defect: str  # "good" for a normal image
    path: Path | None  # None where the image is rendered
    masks: tuple[Path, ...] = ()

    @property
    def anomalous(self) -> bool:
        """Whether the image is defective; its folder decides, never a mask."""
        return self.defect != "good"


class Benchmark(ABC):
    """A data set; a subclass says how samples are listed, read and identified."""

    name: str
    licence: str
    source: str  # where it is published
    location: str = ""  # where it lies here
    no_pixel_reason: str = ""  # why there are no masks; empty where there are
    remark: str = ""  # how it was read, where that is worth a word
    published: Mapping[str, Counts | None] = MappingProxyType({})
    """Counts by category; None where they are not known for sure."""
    hidden: frozenset[str] = frozenset()
    """Keys of samples that are as if they were not there."""

    def without(self, samples: Sequence[Sample]) -> Self:
        """The same without these samples."""
        rest = copy(self)
        rest.hidden = self.hidden | {sample.key for sample in samples}
        return rest

    limit: int | None = None
    """The most training, good and defective images of each category; None: all."""

    def limited(self, limit: int) -> Self:
        """The same with a few images of each kind, for a first look: no longer what is published.

        They lie evenly in the order of their keys, so all kinds of defects are among them.
        """
        few = copy(self)
        few.limit, few.published = limit, {}
        few.name = f"{self.name}, {limit} images of each kind"
        return few

    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The categories present, sorted."""

    @abstractmethod
    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        """The image, (H, W, 3) uint8 RGB; DataError where it cannot be read."""

    @abstractmethod
    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        """The defective pixels, (H, W) bool; None without pixel truth; DataError for a bad mask."""

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
        if lacks := self.lacking(chosen, tested=False):
            where = self.location or self.name
            lines = [f"{where}: category {name!r} has {lack}" for name, lack in lacks.items()]
            raise DataError("\n".join(f"{line}, or leave the category out" for line in lines))
        return self._sorted("train", chosen)

    def lacking(self, categories: Sequence[str], *, tested: bool) -> dict[str, str]:
        """Category -> what it lacks and where that belongs, for categories that can't be used.

        Each needs training images and, if it is to be tested, test images.
        """
        train = "no training images; put normal ones into {}/train/good"
        test = "no test images; put normal ones into {}/test/good, others into {}/test/DEFECT"
        lacks = {name: test for name in categories if tested and not self._list("test", name)}
        lacks |= {name: train for name in categories if not self._list("train", name)}
        return {name: lacks[name].replace("{}", name) for name in categories if name in lacks}

    def test(self, categories: Sequence[str] | None = None) -> list[Sample]:
        """The test images, sorted by key; SealedError inside `sealed()`."""
        if _SEAL.depth:
            raise SealedError(f"the test split of {self.name} is sealed while knobs are chosen")
        return self._sorted("test", self._chosen(categories))

    def problems(self, categories: Sequence[str] | None = None) -> list[str]:
        """Faults that no sample shows, such as a mask without an image; one line each."""
        return []

    def doubts(self, sample: Sample) -> list[str]:
        """Doubts about the sample's masks, which --trust-masks answers; one line each."""
        return []

    def losses(self, sample: Sample) -> list[str]:
        """Losses when the sample's image is read, in words that fit many images."""
        return []

    def unread(self) -> list[str]:
        """Files beside the images that are not read."""
        return []

    def count_problems(self) -> list[str]:
        """Differences of the categories present from the published counts; one line each."""
        present = {category: self._counts(category) for category in self.categories()}
        return [
            f"{self.location or self.name}: {category} has {tuple(counts)} images (train, good, "
            f"defective), published are {tuple(known)}; look for lost files"
            for category, counts in present.items()
            if (known := self.published.get(category)) is not None and counts != known
        ]

    def _counts(self, category: str) -> Counts:
        test = self._list("test", category)
        defective = sum(sample.anomalous for sample in test)
        return Counts(len(self._list("train", category)), len(test) - defective, defective)

    def _sorted(self, split: str, categories: Sequence[str]) -> list[Sample]:
        samples = [s for category in categories for s in self._few(self._list(split, category))]
        shown = (sample for sample in samples if sample.key not in self.hidden)
        return sorted(shown, key=lambda sample: sample.key)

    def _few(self, samples: list[Sample]) -> list[Sample]:
        if self.limit is None:
            return samples
        few: list[Sample] = []
        for anomalous in (False, True):
            kind = sorted((s for s in samples if s.anomalous is anomalous), key=lambda s: s.key)
            count = min(self.limit, len(kind))
            few += [kind[i * len(kind) // count] for i in range(count)]
        return few

    def _chosen(self, categories: Sequence[str] | None) -> tuple[str, ...]:
        present = self.categories()
        for category in categories or ():
            if category not in present:
                raise DataError(
                    f"{self.location or self.name}: no category {category!r}; "
                    f"there are: {', '.join(present)}"
                )
        return present if categories is None else tuple(dict.fromkeys(categories))


class _Seal:
    """Counts the open `sealed()` blocks of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.depth = 0

    def shift(self, by: int) -> None:
        with self._lock:
            self.depth += by


# State of the module on purpose: the seal holds in every thread and for every data set of the
# process, also for one that is opened inside. A ContextVar would not reach threads started inside.
_SEAL = _Seal()


@contextmanager
def sealed() -> Iterator[None]:
    """While this is open `Benchmark.test` raises SealedError, in all threads of the process."""
    _SEAL.shift(+1)
    try:
        yield
    finally:
        _SEAL.shift(-1)
