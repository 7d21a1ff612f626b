"""Pixel metrics beside scikit-learn and anomalib: the same maps and machine, in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from harness.memory import peak_memory, settled_memory
from harness.options import RaceOptions, Say
from harness.speed import _anomalib
from results.metrics import pixel_metrics

Maps = tuple[NDArray[np.bool_], NDArray[np.float32]]
Result = TypeVar("Result")

SMALL, SHAPE = (8, 48), (160, 224)
MVTEC = (1725, 256)  # all test images of MVTec AD at once: 113 million pixels
REPEATS = 3


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """A line for each way: seconds (median of 3), theirs over ours, largest difference.

    Maps are made: smooth noise, raised where one to three rectangles of a mask are. At last our
    metrics alone, of as many maps as MVTec AD has, from files.
    """
    count, side = SMALL if options.quick else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        masks, maps = made_maps(Path(folder), count, side)
        share, threads = 100 * float(np.mean(masks)), torch.get_num_threads()
        yield (
            f"metrics: {count} maps of {side} x {side}, {share:.1f} % of the pixels "
            f"anomalous, {threads} threads, median of {REPEATS}"
        )
        ours, measured = timed(lambda: pixel_metrics(masks, maps))
        values = {name: metric.value or 0.0 for name, metric in measured.items()}
        yield _line("ours: AUROC, AP, F1-max and AUPRO", ours)
        for name, function, metric in (
            ("scikit-learn roc_auc_score", roc_auc_score, "pixel_auroc"),
            ("scikit-learn average_precision_score", average_precision_score, "pixel_ap"),
        ):
            theirs, value = timed(partial(function, masks.ravel(), maps.ravel()))
            yield _line(name, theirs, ours, value - values[metric])
        if _anomalib.python():
            theirs, value = anomalib_aupro(Path(folder), threads)
            yield _line("anomalib AUPRO", theirs, ours, value - values["pixel_aupro"])
    yield large(*(SMALL if options.quick else MVTEC))


def large(count: int, side: int) -> str:
    """The line of our metrics of maps in memory-mapped files, with what they need in memory."""
    with tempfile.TemporaryDirectory() as folder:
        masks, maps = made_maps(Path(folder), count, side)
        before = settled_memory()
        started = time.perf_counter()
        pixel_metrics(masks, maps)
        seconds = time.perf_counter() - started
        peak = peak_memory()
    return (
        f"ours, {masks.size / 1e6:.0f} million pixels from files: {seconds:.1f} s, "
        f"{peak / 2**30:.2f} GiB in all, {(peak - before) / 2**30:.2f} of it for this"
    )


def made_maps(folder: Path, count: int, side: int) -> Maps:
    """Masks and maps (count, side, side) in memory-mapped files; three of four are anomalous."""
    draw = np.random.default_rng(0)
    shape = (count, side, side)
    masks = np.lib.format.open_memmap(folder / "masks.npy", "w+", np.bool_, shape)
    maps = np.lib.format.open_memmap(folder / "maps.npy", "w+", np.float32, shape)
    for number in range(count):
        for _ in range(draw.integers(1, 4) if number % 4 else 0):
            top, left = draw.integers(0, side * 3 // 4, 2)
            height, width = draw.integers(side // 40 + 1, side // 4, 2)
            masks[number, top : top + height, left : left + width] = True
        noise = draw.standard_normal((side, side), dtype=np.float32)
        maps[number] = gaussian_filter(noise, 4) + 0.1 * masks[number]
    return masks, maps


def timed(function: Callable[[], Result]) -> tuple[float, Result]:
    """Median seconds of a call, and what it returned."""
    spans = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        result = function()
        spans.append(time.perf_counter() - started)
    return statistics.median(spans), result


ANOMALIB = """
import statistics, sys, time, numpy, torch
from anomalib.metrics.aupro import _AUPRO
torch.set_num_threads(int(sys.argv[2]))
read = lambda name: torch.from_numpy(numpy.load(f"{sys.argv[1]}/{name}.npy"))
masks, maps = read("masks"), read("maps")
spans = []
for _ in range(int(sys.argv[3])):
    begun = time.perf_counter()
    metric = _AUPRO(fpr_limit=0.3)
    metric.update(maps, masks.int())
    value = float(metric.compute())
    spans.append(time.perf_counter() - begun)
print(statistics.median(spans), value)
"""


def anomalib_aupro(folder: Path, threads: int) -> tuple[float, float]:
    """Median seconds of anomalib's AUPRO of the maps in a folder, without its start, and its value.

    UsageError where it can't run.
    """
    words = _anomalib.printed("-c", ANOMALIB, str(folder), str(threads), str(REPEATS))
    return float(words[0]), float(words[1])


def _line(name: str, seconds: float, ours: float = 0.0, difference: float = 0.0) -> str:
    beside = f"{seconds / ours:6.2f} x  |Δ| {abs(difference):.0e}" if ours else ""
    return f"{name:38s} {seconds:7.2f} s {beside}".rstrip()
