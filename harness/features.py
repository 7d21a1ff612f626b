"""What methods read, made once and shared on disk by methods, seeds and sweeps.

Frozen features, or the decoded and resized images of a method that reads pixels. An entry is a
NumPy file, (N, C, g, g) or, of a pyramid, (N, L) float16, or (N, 3, S, S) uint8, memory-mapped when
read, and a small JSON beside it. Its name is a hash of everything that decides its values: the
samples' content, the view and, for features, the backbone, its weights' bytes, the grid and the
precision.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.images import load_views
from harness.cell import Cell, Data, Split
from harness.registry import load
from methods.base import OnProgress, Progress
from methods.parts.backbone import Extractor, Features, Pixels
from results.files import whole_file, write_whole

VERSION = 1
"""Raised when the same inputs give other features."""
BATCH = {"cpu": 8, "cuda": 32}
"""Images that a backbone sees at once; the layers of a few stay in the caches of a CPU."""
HEADROOM = 1.1


@dataclass(frozen=True, kw_only=True)
class FeatureSet:
    """What methods read of one split of a data set: frozen features, or the pixels."""

    view: Features | Pixels
    weights: Path | None = None
    weights_sha256: str = ""
    data: Data
    split: Split

    @property
    def fingerprint(self) -> str:
        """Identity of the split's images."""
        train = self.split == "train"
        return self.data.train_fingerprint if train else self.data.test_fingerprint

    @property
    def label(self) -> str:
        """The set in one line."""
        if isinstance(self.view, Features):
            return f"{self.data.label} features of {self.split} ({self.view.backbone})"
        return f"{self.data.label} pixels of {self.split} ({self.view.side} x {self.view.side})"

    def open(self) -> tuple[Benchmark, list[Sample]]:
        """The split's images, and what reads them; SealedError for a test split that is sealed."""
        return open_split(self.data, self.split)


def open_split(data: Data, split: Split) -> tuple[Benchmark, list[Sample]]:
    """A split's samples, and the data set that reads them; SealedError for a sealed test split."""
    if split == "train":
        learned_from = data.open_kept()
        return learned_from, learned_from.train(data.categories)
    if split == "validation":
        pseudo = data.open_held()
        return pseudo, pseudo.validation(data.categories)
    benchmark = data.open()
    return benchmark, benchmark.test(data.categories)


def feature_set(cell: Cell, split: Split) -> FeatureSet | None:
    """What a cell reads of a split; None where its backbone's weights are missing."""
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


def missing_features(cells: Sequence[Cell], cache: FeatureCache) -> list[FeatureSet]:
    """What the cells need and the cache lacks, each once."""
    wanted = [feature_set(cell, split) for cell in cells for split in cell.splits]
    by_path = {cache.path(features): features for features in wanted if features is not None}
    return [features for features in by_path.values() if not cache.has(features)]


@dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """A folder of features that stays below `budget_gb`, the least recently used leaving first."""

    root: Path
    budget_gb: float = 40.0

    @classmethod
    @contextmanager
    def lasting(cls, keep: bool, out: Path) -> Iterator[FeatureCache]:
        """The shared cache to `keep`, else one below `out` that vanishes at the end."""
        cache = cls.default()
        if keep:
            yield cache
            return
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.resolve(), prefix="features-") as folder:
            yield dataclasses.replace(cache, root=Path(folder))

    @classmethod
    def default(cls) -> FeatureCache:
        """LAFITE_BENCH_CACHE and LAFITE_BENCH_CACHE_GB, else the user's cache folder and 40 GB."""
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "lafite-bench"
        return cls(
            root=Path(os.environ.get("LAFITE_BENCH_CACHE", home)).expanduser().resolve(),
            budget_gb=float(os.environ.get("LAFITE_BENCH_CACHE_GB", 40)),
        )

    def path(self, features: FeatureSet) -> Path:
        """Where the set is, or will be."""
        identity = dataclasses.asdict(features.view) | {
            "weights": None,  # their bytes count, not where they lie
            "bytes": features.weights_sha256,
            "samples": features.fingerprint,
            "version": VERSION,
        }
        text = json.dumps(identity, sort_keys=True)
        return self.root / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.npy"

    def has(self, features: FeatureSet) -> bool:
        """Whether the set is there."""
        return self.path(features).exists()

    def open(self, features: FeatureSet) -> tuple[NDArray[np.float16 | np.uint8], dict[str, Any]]:
        """The features or pixels and what was noted when they were made."""
        path = self.path(features)
        os.utime(path)
        facts: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
        return np.load(path, mmap_mode="r"), facts

    def make(self, features: FeatureSet, device: torch.device, tell: OnProgress) -> None:
        """Make the features or pixels of all samples, unless they are there; atomic.

        DataError where the disk is too small.
        """
        path = self.path(features)
        if path.exists():
            return
        started = time.perf_counter()
        # Of two that compute the same, both put equal bytes into place.
        with whole_file(path, replace=True) as scratch:
            count = self._fill(scratch, features, device, tell)
            facts = {"images": count, "seconds": time.perf_counter() - started}
            write_whole(path.with_suffix(".json"), json.dumps(facts).encode(), replace=True)
        self._shrink(keep=path)

    def _fill(
        self, scratch: Path, features: FeatureSet, device: torch.device, tell: OnProgress
    ) -> int:
        benchmark, samples = features.open()
        encode = _encoder(features, device)
        rows: np.memmap[Any, np.dtype[Any]] | None = None
        done = 0
        for views in read_ahead(benchmark, samples, features.view, BATCH[device.type]):
            batch = encode(views)
            if rows is None:
                shape = (len(samples), *batch.shape[1:])
                _check_room(self.root, batch.itemsize * math.prod(shape))
                rows = np.lib.format.open_memmap(scratch, mode="w+", dtype=batch.dtype, shape=shape)
            rows[done : done + len(batch)] = batch
            done += len(batch)
            tell(Progress(stage="features", step=done, steps=len(samples)))
        if rows is not None:
            rows.flush()
        return done

    def _shrink(self, keep: Path) -> None:
        entries = sorted(self.root.glob("*.npy"), key=lambda entry: entry.stat().st_mtime)
        used = sum(entry.stat().st_size for entry in entries)
        for entry in entries:
            if used <= self.budget_gb * 1e9:
                return
            if entry != keep:
                # A process that has it mapped keeps its pages; later ones compute it again.
                used -= entry.stat().st_size
                entry.unlink(missing_ok=True)
                entry.with_suffix(".json").unlink(missing_ok=True)


def read_ahead(
    benchmark: Benchmark, samples: Sequence[Sample], view: Pixels, batch: int
) -> Iterator[NDArray[np.uint8]]:
    """Decoded views in batches; the next is read while this one is worked on."""
    pieces = [samples[start : start + batch] for start in range(0, len(samples), batch)]

    def read(piece: Sequence[Sample]) -> NDArray[np.uint8]:
        return load_views(benchmark, piece, view.resize, view.crop)

    with ThreadPoolExecutor(1) as reader:
        ahead = reader.submit(read, pieces[0])
        for following in pieces[1:]:
            views = ahead.result()
            ahead = reader.submit(read, following)
            yield views
        yield ahead.result()


def _encoder(
    features: FeatureSet, device: torch.device
) -> Callable[[NDArray[np.uint8]], NDArray[np.float16 | np.uint8]]:
    """From decoded views to what is kept of them."""
    if not isinstance(features.view, Features) or features.weights is None:
        return lambda views: views
    return partial(extract, Extractor(features.view, features.weights).to(device))


def as_input(rows: NDArray[np.float16 | np.uint8]) -> torch.Tensor:
    """Rows of the cache as a method reads them: float32, pixels in [0, 1]."""
    values = torch.from_numpy(rows.astype(np.float32))
    return values / 255 if rows.dtype == np.uint8 else values


def extract(extractor: Extractor, views_B3SS: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Views to features in half precision; ValueError if one does not fit."""
    device = extractor.mean.device
    images = torch.from_numpy(views_B3SS).to(device).float() / 255
    values = extractor(images).half().cpu().numpy()
    if not np.isfinite(values).all():
        raise ValueError(
            f"features of {extractor.features.backbone} exceed half precision; are these the "
            "weights that the backbone was trained with?"
        )
    result: NDArray[np.float16] = values
    return result


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed * HEADROOM:
        raise DataError(
            f"{folder}: the cache needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "make room or set LAFITE_BENCH_CACHE to another disk"
        )
