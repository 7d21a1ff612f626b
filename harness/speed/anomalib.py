"""PatchCore and PaDiM beside anomalib's: the same images, weights, layers and threads.

Each side has a fresh process, reads the images and runs the backbone itself (no feature cache), and
goes the whole way from files to scores; both are measured by our metrics.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import timm
import torch

from benchmarks.base import sealed
from harness.cache import FeatureCache
from harness.cell import Cell
from harness.execute import Scorer, learn, score_ranges
from harness.features import open_split
from harness.measure import measure
from harness.memory import peak_memory, settled_memory
from harness.options import RaceOptions, Say, Selection
from harness.place import Place
from harness.plan import plan
from harness.registry import UsageError, load
from harness.speed import _anomalib
from harness.store.store import Store
from methods.base import quiet
from methods.parts.backbone import load_backbone

SETTINGS = {
    "patchcore": (
        "grid=28", "channels=none", "precision=float32", "bank_rate=0.01", "coreset=0.01",
        "reweight=9",
    ),
    "padim": ("precision=float32",),
}  # fmt: skip
"""The `quick` presets, but exact float32 and what anomalib has: a bank on the grid of layer 2, of
both layers' channels side by side, and its re-weighting."""


class Side(NamedTuple):
    """What one side needed: seconds, and bytes at the peak and after its imports."""

    fit: float
    scoring: float
    peak: float
    imported: float

    @property
    def seconds(self) -> float:
        """Both."""
        return self.fit + self.scoring


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """Lines of a table of both sides; UsageError without an anomalib, or where it fails."""
    benchmark = options.benchmark
    if not _anomalib.python():
        raise UsageError(
            f"speed --op anomalib: name the python of its environment in {_anomalib.VARIABLE}"
        )
    threads = torch.get_num_threads()
    yield f"{benchmark}: from files to scores, {threads} threads, float32"
    yield (
        f"{'method':10} {'who':9} {'fit s':>8} {'score s':>8} {'ours is':>8} {'peak GiB':>9} "
        f"{'beyond imports':>15} {'image AUROC':>12} {'pixel AUROC':>12}"
    )
    for method, settings in SETTINGS.items():
        cell = plan(selection(benchmark, method, settings))[0]
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{who}.npz" for who in ("ours", "anomalib")]
            say(f"{method}: ours")
            ours = _apart(cell, threads, files[0])
            yield _line(cell, "ours", ours, 1.0, files[0])
            say(f"{method}: anomalib")
            theirs = _theirs(cell, threads, files[1])
            yield _line(cell, "anomalib", theirs, theirs.seconds / ours.seconds, files[1])


def selection(benchmark: str, method: str, settings: Sequence[str]) -> Selection:
    """Our side's cell."""
    overrides = [f"{method}.{setting}" for setting in settings]
    return Selection(
        benchmarks=[benchmark], methods=[method], seeds=1, preset="quick", overrides=overrides
    )


def _line(cell: Cell, who: str, side: Side, ratio: float, file: Path) -> str:
    benchmark, samples = open_split(cell.data, "test")
    with np.load(file) as scores:
        metrics = measure(cell, benchmark, samples, scores["images"], scores["maps"]).metrics
    shown = []
    for name in ("image_auroc", "pixel_auroc"):
        values = [metrics[category][name].value for category in cell.data.categories]
        known = [value for value in values if value is not None]
        shown.append(f"{100 * float(np.mean(known)):.2f}" if known else "-")
    gib = 1 << 30
    return (
        f"{cell.method:10} {who:9} {side.fit:8.1f} {side.scoring:8.1f} {ratio:7.2f}x "
        f"{side.peak / gib:9.2f} {(side.peak - side.imported) / gib:15.2f} "
        f"{shown[0]:>12} {shown[1]:>12}"
    )


def _apart(cell: Cell, threads: int, file: Path) -> Side:
    """Our side, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_ours, cell, threads, file).result()


def _ours(cell: Cell, threads: int, file: Path) -> Side:
    torch.set_num_threads(threads)
    place = Place(store=Store(file.parent), cache=FeatureCache(root=file.parent / "features"))
    place.store.prepare()
    imported = settled_memory()
    started = time.perf_counter()
    with sealed():
        method, _ = learn(cell, cell.data.open_kept(), place, quiet)
    fitted = time.perf_counter()
    scorer = Scorer(cell, method, place, quiet)
    pieces = list(scorer.spread(score_ranges(len(scorer.samples)), cell.knobs))
    done = time.perf_counter()
    maps, images = (np.concatenate([piece[i] for piece in pieces]) for i in (0, 1))
    np.savez(file, maps=maps, images=images)
    return Side(fitted - started, done - fitted, peak_memory(), imported)


def _theirs(cell: Cell, threads: int, file: Path) -> Side:
    """The other side: `harness.speed._anomalib_side` in its own environment."""
    view = load("methods", cell.method).method.inputs(cell.config)
    assert cell.weights is not None
    torch.save(load_backbone(view, cell.weights).state_dict(), file.with_suffix(".pt"))
    published = timm.get_pretrained_cfg(view.backbone)
    spec = {
        "method": cell.method,
        "data": dataclasses.asdict(cell.data),
        "resize": view.resize,
        "crop": view.crop,
        "backbone": view.backbone,
        "layers": view.layers,
        "mean": published.mean,
        "std": published.std,
        "channels": cell.config.channels,
        "coreset": getattr(cell.knobs, "coreset", None),
        "neighbours": getattr(cell.knobs, "reweight", None),
        "state": str(file.with_suffix(".pt")),
        "threads": threads,
        "out": str(file),
    }
    spec_file = file.with_suffix(".json")
    spec_file.write_text(json.dumps(spec, default=str))
    numbers = _anomalib.printed("-m", "harness.speed._anomalib_side", str(spec_file))
    return Side(*map(float, numbers))
