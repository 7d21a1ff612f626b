"""Frozen features and decoded images on disk, shared by methods, seeds, sweeps and commands.

An entry is a NumPy file, memory-mapped when it is read, and a small JSON beside it. Its name is a
hash of everything that decides its values: the samples' content, the view and, for features, the
backbone, its weights' bytes, the grid and the number format of the machine that made them. The JSON
has the hash of the file, which is looked at before the first use in a process: what a crash or a
full disk left is made again. A backbone's program for ONNX Runtime is kept in the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import fingerprint
from harness.plan.cell import Cell
from harness.plan.folders import spare_cache, usual_cache
from harness.plan.options import Say
from harness.plan.registry import UsageError, first_line
from harness.store.folder import Folder
from harness.work.features import (
    BATCH,
    FeatureSet,
    encoded,
    feature_sets,
    open_split,
    read_ahead,
)
from methods.parts import onnx
from methods.parts.backbone import Extractor, Features, Tokens, file_sha256, joined, load_backbone
from methods.parts.progress import OnProgress, Progress, quiet
from methods.parts.shapes import layer_count
from results.files import STALE_SECONDS, locked, record_in, whole_file, write_whole

VERSION = 1
"""Raised when the same inputs give other features."""
DEFAULT_GB = 40.0
HEADROOM = 1.1
RATE = 1e8
"""Bytes/s that a network is taken for, about one gigabit: what takes longer than computing it took
is computed again."""
ENTRY = re.compile(r"\.?[0-9a-f]{24}\.(npy|onnx|json)(\.[0-9a-f]+\.tmp)?")
"""Files of ours: entries, and those that are being written."""


def missing_features(cells: Sequence[Cell], cache: FeatureCache) -> list[FeatureSet]:
    """The sets that the cells need and the cache lacks, each once."""
    by_path = {cache.path(features): features for features in feature_sets(cells)}
    return [features for features in by_path.values() if not cache.has(features)]


@dataclass(frozen=True, kw_only=True)
class FeatureCache:
    """A folder of features that stays below `budget_gb`, the least recently used leaving first.

    Whatever lies in the folder counts; only what was written by this class is ever removed.
    """

    root: Path
    budget_gb: float = DEFAULT_GB
    shared: Folder | None = None
    """The cache of the driver's machine, which another node fetches from and adds to."""

    @classmethod
    @contextmanager
    def lasting(cls, keep: bool, out: Path, say: Say = quiet) -> Iterator[FeatureCache]:
        """The shared cache to `keep`, else one below `out` that vanishes at the end.

        Where the user's cache folder can't be written, one in the folder for temporary files, which
        is said; UsageError where LAFITE_BENCH_CACHE can't.
        """
        if keep:
            yield cls.default(say)
            return
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.resolve(), prefix="features-") as folder:
            yield cls(root=Path(folder), budget_gb=_budget())

    @classmethod
    def default(cls, say: Say = quiet) -> FeatureCache:
        """LAFITE_BENCH_CACHE and LAFITE_BENCH_CACHE_GB, else the user's cache folder and 40 GB."""
        root, named = usual_cache(), os.environ.get("LAFITE_BENCH_CACHE")
        why = "there is no home folder" if not root.is_absolute() else _unwritable(root)
        if why and named:
            raise UsageError(f"LAFITE_BENCH_CACHE={named}: {why}; name another folder")
        if why:
            usual, root = root, spare_cache()
            if _unwritable(root) or root.stat().st_uid != os.getuid():
                raise UsageError(f"{root}: can't be used; name a folder with LAFITE_BENCH_CACHE")
            say(f"{usual}: {why}; features are kept in {root}")
        return cls(root=root, budget_gb=_budget())

    def path(self, features: FeatureSet) -> Path:
        """The path of the set, also before it is made."""
        identity: dict[str, Any] = dataclasses.asdict(features.here) | {
            "weights": None,  # their bytes count, not where they lie
            "bytes": features.weights_sha256,
            "samples": features.fingerprint,
            "version": VERSION,
        }
        return self._named(identity, "npy")

    def _named(self, identity: dict[str, Any], ending: str) -> Path:
        text = json.dumps(identity, sort_keys=True)
        return self.root / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.{ending}"

    def has(self, features: FeatureSet) -> bool:
        """Whether the set is there and whole; DataError where another user keeps it from us."""
        return not _fault(self.path(features))

    def read(
        self, features: FeatureSet, device: torch.device, tell: OnProgress
    ) -> tuple[NDArray[np.float16 | np.uint8], dict[str, Any]]:
        """The features or pixels, made unless they are there, and what was noted of the making."""
        while True:
            self.make([features], device, tell)
            path = self.path(features)
            with suppress(FileNotFoundError):  # another process made room in between
                facts = record_in(path.with_suffix(".json").read_bytes())
                rows = np.load(path, mmap_mode="r")
                with suppress(PermissionError):  # of another user, whose file it stays
                    os.utime(path.with_suffix(".json"))
                return rows, facts

    def make(self, sets: Sequence[FeatureSet], device: torch.device, tell: OnProgress) -> None:
        """Make the sets that are not there, in one pass over their images, each atomically.

        Of two processes that want the same one waits. DataError where the disk is too small.
        """
        missing = {self.path(features): features for features in sets if not self.has(features)}
        waiting = Progress(stage="waiting for another command that makes them", step=0, steps=1)
        with ExitStack() as locks:
            # In one order everywhere, or two would wait for each other.
            for path in sorted(missing):
                locks.enter_context(locked(path.with_suffix(".lock"), partial(tell, waiting)))
            missing = {path: f for path, f in missing.items() if not self.has(f)}
            for path in missing:
                _remove_damaged(path, tell)
            lacking = {path: f for path, f in missing.items() if not self._fetched(path, tell)}
            if lacking:
                self._write(lacking, device, tell)
            for path in lacking:
                self._share(path)
        if missing:
            self._shrink(keep=missing)

    def _fetched(self, path: Path, tell: OnProgress) -> bool:
        """Whether an entry came from the driver: sooner than it would be made, and whole."""
        if self.shared is None or not (there := self.shared.list(path.name)):
            return False
        tell(Progress(stage="fetch features", step=0, steps=1))
        with suppress(OSError, ValueError):  # without its record it is no entry
            facts = record_in(self.shared.get(path.with_suffix(".json").name))
            if there[path.name].size / RATE < facts.get("seconds", 0):
                return not _fault(self.shared.local(path.name))
        return False

    def _share(self, path: Path) -> None:
        """Give the driver an entry that it lacks."""
        if self.shared is not None and not self.shared.exists(path.name):
            for file in (path.with_suffix(".json"), path):
                self.shared.put(file.name, file, replace=True)

    def extractor(
        self,
        views: Sequence[Features],
        weights: Path | None,
        sha256: str,
        device: torch.device,
        tell: OnProgress,
    ) -> Extractor | None:
        """The frozen backbone of some views that share a pass, with the layers of all of them.

        None without views, and for a method that has no weights, as it reads pixels.
        """
        if not views or weights is None:
            return None
        view = joined(views)
        program = self.program(view, weights, sha256, device, tell)
        return Extractor(view, weights, program).to(device).eval()

    def program(
        self, view: Features, weights: Path, sha256: str, device: torch.device, tell: OnProgress
    ) -> onnx.Program | None:
        """A convolutional backbone in ONNX Runtime for a CPU; its file is made unless it is there.

        None where there is none: on a GPU, for a transformer, or where `methods.parts.onnx` can't
        serve, which is told.
        """
        if device.type != "cpu" or isinstance(view, Tokens):
            return None
        identity = {"backbone": view.backbone, "bytes": sha256, "side": view.side}
        path = self._named(identity | {"version": VERSION}, "onnx")
        making = Progress(stage="preparing the backbone", step=0, steps=1)
        tell(making)
        try:
            with locked(path.with_suffix(".lock"), partial(tell, making)):
                if _fault(path):
                    _remove_damaged(path, tell)
                    count = layer_count(view.backbone)
                    pyramid = load_backbone(replace(view, layers=tuple(range(count))), weights)
                    with _entry(path, {}) as scratch:
                        onnx.export(pyramid, view.side, count, scratch)
            return onnx.Program(path, view.layers)
        except onnx.Unusable as error:
            note = f"{view.backbone} runs in PyTorch, which is slower than ONNX Runtime: {error}"
            tell(replace(making, note=note))
            return None

    def _write(
        self, sets: Mapping[Path, FeatureSet], device: torch.device, tell: OnProgress
    ) -> None:
        started, first = time.perf_counter(), next(iter(sets.values()))
        benchmark, samples = open_split(first.data, first.split)
        _check_planned(first, benchmark, samples)
        wanted = [
            features.view for features in sets.values() if isinstance(features.view, Features)
        ]
        weights = first.weights, first.weights_sha256
        extractor = self.extractor(wanted, *weights, device, tell)
        files: list[np.memmap[Any, np.dtype[Any]]] = []
        facts: dict[str, Any] = {}
        done = 0
        with ExitStack() as entries:
            scratches = [entries.enter_context(_entry(path, facts)) for path in sets]
            for pixels in read_ahead(benchmark, samples, first.view, BATCH[device.type]):
                batches = encoded(pixels, extractor, wanted)
                files = files or [
                    _reserved(scratch, (len(samples), *batch.shape[1:]), batch.dtype)
                    for scratch, batch in zip(scratches, batches, strict=True)
                ]
                for file, batch in zip(files, batches, strict=True):
                    file[done : done + len(batch)] = batch
                done += len(pixels)
                tell(Progress(stage="features", step=done, steps=len(samples)))
            for file in files:
                file.flush()
            facts["seconds"] = time.perf_counter() - started

    def _shrink(self, keep: Container[Path]) -> None:
        """Remove what a crash left, then the least recently read entries, until all fits."""
        sizes: dict[Path, int] = {}
        read: dict[str, float] = {}
        for file in self.root.iterdir():
            with suppress(OSError):  # another process removes files too
                status, ours = file.stat(), bool(ENTRY.fullmatch(file.name))
                if ours and file.suffix == ".tmp" and time.time() - status.st_mtime > STALE_SECONDS:
                    file.unlink()
                    continue
                sizes[file] = status.st_size
                if ours and file.suffix == ".json":
                    read[file.stem] = status.st_mtime
        used = sum(sizes.values())
        entries = [f for f in sizes if ENTRY.fullmatch(f.name) and f.suffix in (".npy", ".onnx")]
        for entry in sorted(entries, key=lambda entry: read.get(entry.stem, 0.0)):
            if used <= self.budget_gb * 1e9:
                return
            if entry not in keep:
                with suppress(OSError):
                    # A process that has it mapped keeps its pages; later ones compute it again.
                    entry.unlink()
                    entry.with_suffix(".json").unlink(missing_ok=True)
                    used -= sizes[entry]


@contextmanager
def _entry(path: Path, facts: Mapping[str, Any]) -> Iterator[Path]:
    """Yields a scratch file that becomes the entry; its hash is kept with the facts beside it."""
    with whole_file(path, replace=True) as scratch:
        yield scratch
        noted = {**facts, "sha256": file_sha256(scratch)}
        write_whole(path.with_suffix(".json"), json.dumps(noted).encode(), replace=True)


def _remove_damaged(path: Path, tell: OnProgress) -> None:
    """Make room for an entry that is made again, and say why."""
    if path.exists():
        note = f"{path} is not whole ({_fault(path)}); made again"
        tell(Progress(stage="features", step=0, steps=1, note=note))
        path.unlink(missing_ok=True)


def _check_planned(features: FeatureSet, benchmark: Benchmark, samples: Sequence[Sample]) -> None:
    """DataError unless images and weights are those that were planned.

    They may have changed since, or another machine may have others under the same path: a row would
    say of them what is true of those.
    """
    advice = f"on {platform.node()} others than were planned; make them the same, then run again"
    if fingerprint(benchmark, samples) != features.fingerprint:
        raise DataError(f"{features.label}: the images or masks are {advice}")
    if features.weights and file_sha256(features.weights) != features.weights_sha256:
        raise DataError(f"{features.weights}: these weights are {advice}")


def _fault(path: Path) -> str:
    """The fault of an entry, or nothing; DataError for another user's that is closed to us."""
    try:
        status = path.stat()
        facts = record_in(path.with_suffix(".json").read_bytes(), "sha256")
        if _sha256_of(path, status.st_size, status.st_mtime_ns) != facts["sha256"]:
            return "it has other bytes than were written"
    except PermissionError as error:
        raise DataError(
            f"{error.filename}: this cached file of another user can't be read; let its owner "
            f"run chmod a+r {path.parent}/*, or set LAFITE_BENCH_CACHE to a folder of your own"
        ) from None
    except (OSError, ValueError) as error:
        return first_line(error, kind=True)
    return ""


@cache
def _sha256_of(path: Path, size: int, modified: int) -> str:
    """The hash of a file, once a process as long as its size and time stay."""
    return file_sha256(path)


def _reserved(
    path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> np.memmap[Any, np.dtype[Any]]:
    """A file with room for the array. A page that the disk has no room for would kill us later."""
    needed = dtype.itemsize * math.prod(shape)
    free = shutil.disk_usage(path.parent).free
    rows: np.memmap[Any, np.dtype[Any]]
    try:
        if free < needed * HEADROOM:
            raise OSError
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError:
        raise DataError(
            f"{path.parent}: the cache needs {needed:,} bytes, {free:,} are free; make room or set "
            "LAFITE_BENCH_CACHE to another disk"
        ) from None
    return rows


def _budget() -> float:
    text = os.environ.get("LAFITE_BENCH_CACHE_GB") or str(DEFAULT_GB)
    try:
        budget = float(text)
    except ValueError:
        budget = math.nan
    if not budget > 0:
        raise UsageError(f"LAFITE_BENCH_CACHE_GB={text}: give gigabytes as a number, such as 40")
    return budget


def _unwritable(folder: Path) -> str:
    """Why a folder, made if need be, can't be written; empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return f"can't be written ({error.strerror})"
    return ""
