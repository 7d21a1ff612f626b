"""Inputs of methods: frozen features, or decoded and resized images.

(N, C, g, g) or, of a pyramid, (N, L) float16, or (N, 3, S, S) uint8; see `harness.work.cache`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.content import fingerprint, map_ahead
from benchmarks.parts.images import load_views
from harness.plan.cell import Cell, Data, Split
from harness.plan.registry import load
from kernels._formats import number_format
from methods.parts.backbone import Extractor, Features, Pixels

BATCH = {"cpu": 8, "cuda": 32}
"""Images that a backbone sees at once; the layers of a few stay in the caches of a CPU."""


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """The inputs of methods of one split of a data set: frozen features, or the pixels."""

    view: Features | Pixels
    weights: Path | None = None
    weights_sha256: str = ""
    data: Data
    split: Split

    @property
    def fingerprint(self) -> str:
        """Identity of the split's images."""
        if self.split == "calibration":
            return _calibration_fingerprint(self.data)
        train = self.split == "train"
        return self.data.train_fingerprint if train else self.data.test_fingerprint

    @property
    def here(self) -> Features | Pixels:
        """The view, in the number format that this process makes it in: all that decides values."""
        if not isinstance(self.view, Features):
            return self.view
        return replace(self.view, precision=self.view.format_on(this_device()))

    @property
    def label(self) -> str:
        """The set in one line."""
        if isinstance(self.view, Features):
            return f"{self.data.label} features of {self.split} ({self.view.backbone})"
        return f"{self.data.label} pixels of {self.split} ({self.view.side} x {self.view.side})"


def this_device() -> torch.device:
    """The GPU that this process was given, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def formats(cell: Cell, device: torch.device) -> str:
    """The number formats that a device computes a cell in: its method's, and its features'."""
    own = number_format(getattr(cell.config, "precision", "float32"), device)
    view = load("methods", cell.method).method.inputs(cell.config)
    given = view.format_on(device) if isinstance(view, Features) else own
    return own if own == given else f"{own} on {given} features"


def in_one_pass(sets: Iterable[FeatureSet]) -> list[list[FeatureSet]]:
    """The sets in groups that one pass of a backbone over the same images makes."""
    groups: dict[object, list[FeatureSet]] = {}
    for features in sets:
        view = features.here
        shared = view.of_the_pass if isinstance(view, Features) else view
        key = (features.fingerprint, features.weights_sha256, shared)
        groups.setdefault(key, []).append(features)
    return list(groups.values())


@cache
def _calibration_fingerprint(data: Data) -> str:
    return fingerprint(*open_split(data, "calibration"))


def open_split(data: Data, split: Split) -> tuple[Benchmark, list[Sample]]:
    """A split's samples, and the data set that reads them; SealedError for a sealed test split."""
    if split == "train":
        learned_from = data.open_kept()
        return learned_from, learned_from.train(data.categories)
    if split == "calibration":
        return data.open_reserved()
    if split == "validation":
        pseudo = data.open_held()
        return pseudo, pseudo.validation(data.categories)
    benchmark = data.open()
    return benchmark, benchmark.test(data.categories)


def feature_set(cell: Cell, split: Split) -> FeatureSet | None:
    """The inputs of a cell of a split; None where its backbone's weights are missing."""
    view = load("methods", cell.method).method.inputs(cell.config)
    if not isinstance(view, Features):
        return FeatureSet(view=view, data=cell.data, split=split)
    if cell.weights is None:
        return None
    return FeatureSet(
        view=view,
        weights=cell.weights,
        weights_sha256=cell.weights_sha256,
        data=cell.data,
        split=split,
    )


def feature_sets(cells: Iterable[Cell]) -> Iterator[FeatureSet]:
    """All that cells read, each as often as it is read."""
    for cell in cells:
        for split in cell.splits:
            if (features := feature_set(cell, split)) is not None:
                yield features


def read_ahead(
    benchmark: Benchmark, samples: Sequence[Sample], view: Pixels, batch: int
) -> Iterator[NDArray[np.uint8]]:
    """Decoded views in batches; the next is read while this one is worked on."""
    batches = [samples[start : start + batch] for start in range(0, len(samples), batch)]
    return map_ahead(lambda some: load_views(benchmark, some, view.resize, view.crop), batches)


def encoded(
    views_B3SS: NDArray[np.uint8], extractor: Extractor | None, wanted: Sequence[Features]
) -> list[NDArray[np.float16 | np.uint8]]:
    """Decoded views as they are kept: the wanted features of one pass; without extractor, as is.

    ValueError for a feature that does not fit half precision.
    """
    if extractor is None:
        return [views_B3SS]
    layers = extractor.layers(as_input(views_B3SS).to(extractor.mean.device))
    features = [extractor.features(view, layers).half().cpu().numpy() for view in wanted]
    if not all(np.isfinite(values).all() for values in features):
        raise ValueError(
            f"features of {extractor.view.backbone} exceed half precision; are these the weights "
            "that the backbone was trained with?"
        )
    return features


def as_input(rows: NDArray[np.float16 | np.uint8]) -> torch.Tensor:
    """Rows of the cache as a method reads them: float32, pixels in [0, 1]."""
    values = torch.from_numpy(rows.astype(np.float32))
    return values / 255 if rows.dtype == np.uint8 else values


def inputs_of(views_B3SS: NDArray[np.uint8], extractor: Extractor | None) -> torch.Tensor:
    """Decoded views as a method reads them: the extractor's features, or pixels without one."""
    return as_input(encoded(views_B3SS, extractor, [extractor.view] if extractor else [])[0])
