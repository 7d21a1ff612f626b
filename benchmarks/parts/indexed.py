"""Own data without files: anything with a length and items by number, such as a torch Dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.inventory import plain

KEPT = 16
"""Items that are read once for image, mask and content."""


class Indexed(Protocol):
    """What a torch Dataset with items by number promises."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


class IndexedBenchmark(Benchmark):
    """Two datasets, one to learn from and one to test on.

    An item is (image, label) or (image, label, mask). An image is a PIL image, an (H, W[, 3]) array
    of uint8 or a (1 or 3, H, W) tensor of floats in 0..1; a mask (H, W), defective above zero. The
    label is 0, False or "good" for a normal image, else 1, True or the name of the defect. Where
    `categories` are given they name, item by item, the category of both; else there is one.

    Labels are read once from all items when the data set is opened, in every process: give a
    Dataset that reads cheaply, and no random transforms, as images are hashed.
    """

    licence = "not stated: see the data set"
    source = "a dataset in Python"

    def __init__(
        self,
        name: str,
        train: Indexed,
        test: Indexed,
        *,
        masks: bool = False,
        categories: tuple[Sequence[str], Sequence[str]] | None = None,
    ) -> None:
        """DataError for a dataset without items, of other lengths than its categories, or with a
        defective image to learn from."""
        self.name, self._data = name, {"train": train, "test": test}
        self.no_pixel_reason = "" if masks else f"{name} is said to have no masks"
        self._samples: dict[str, list[Sample]] = {}
        for split, named in zip(self._data, categories or (None, None), strict=True):
            self._samples[split] = list(self._listed(split, named))
        self._item = lru_cache(KEPT)(self._read)

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted({s.category for found in self._samples.values() for s in found}))

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        return _rgb(self._item(sample.key)[0], sample.key)

    def read_mask(self, sample: Sample) -> NDArray[np.bool_] | None:
        if not self.pixel_truth:
            return None
        image, item = self.read_image(sample), self._item(sample.key)
        if not sample.anomalous:
            return np.zeros(image.shape[:2], dtype=bool)
        if len(item) < 3 or item[2] is None:
            raise DataError(f"{sample.key}: is defective and has no mask; give one, or masks=False")
        mask = np.squeeze(np.asarray(item[2])) > 0
        if mask.shape != image.shape[:2]:
            raise DataError(f"{sample.key}: mask {mask.shape}, image {image.shape[:2]}")
        if not mask.any():
            raise DataError(f"{sample.key}: is defective and its mask marks no pixel")
        return mask

    def content(self, sample: Sample) -> Iterator[bytes]:
        image = self.read_image(sample)
        yield f"{image.shape}".encode() + image.tobytes()
        if (mask := self.read_mask(sample)) is not None and sample.anomalous:
            yield np.packbits(mask).tobytes()

    def _list(self, split: str, category: str) -> list[Sample]:
        return [sample for sample in self._samples[split] if sample.category == category]

    def _listed(self, split: str, named: Sequence[str] | None) -> Iterator[Sample]:
        data = self._data[split]
        if not len(data):
            raise DataError(f"{self.name}: the dataset to {split} has no items")
        if named is not None and len(named) != len(data):
            raise DataError(f"{self.name}: {split} has {len(data)} items, {len(named)} categories")
        labels = map_threads(lambda number: data[number][1], range(len(data)))
        for number, label in enumerate(labels):
            defect = _defect(label)
            if split == "train" and defect != "good":
                raise DataError(f"{self.name}: item {number} to train is defective ({label!r})")
            category = plain(named[number] if named is not None else self.name)
            yield Sample(f"{category}/{split}/{defect}/{number:06d}", category, defect, None)

    def _read(self, key: str) -> Any:
        _, split, _, number = key.rsplit("/", 3)
        return self._data[split][int(number)]


def _defect(label: Any) -> str:
    if isinstance(label, str):
        return "good" if label.lower() in ("good", "normal", "ok") else plain(label)
    return "defect" if int(label) else "good"


def _rgb(image: Any, key: str) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of what an item holds; DataError for what is no image."""
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 1):
            raise DataError(
                f"{key}: values {pixels.min():.3g} to {pixels.max():.3g}; give 0 to 1, before any "
                "normalisation"
            )
        pixels = (pixels * 255).round().astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[0] in (1, 3) and pixels.shape[2] not in (1, 3):
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise DataError(f"{key}: {pixels.dtype} {pixels.shape} is no image; give uint8 (H, W, 3)")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
