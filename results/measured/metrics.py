"""Pixel metrics beside scikit-learn, on made maps.

`python -m results.measured.metrics [--quick]`
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score
from torch.utils.benchmark import Timer

from harness.work.memory import peak_memory, settled_memory
from results.metrics import pixel_metrics

SECONDS = 5.0
"""Time that a call is repeated for."""
SHAPE, MVTEC = (160, 224), (1725, 256)
"""Maps and pixels a side: of the contest, and all test images of MVTec AD at once."""
QUICK = (8, 48)


def main(quick: bool) -> None:
    """Print seconds of each way and its difference, then ours of as many maps as MVTec AD has."""
    with tempfile.TemporaryDirectory() as folder:
        masks, maps = made_maps(Path(folder), *(QUICK if quick else SHAPE))
        print(f"{' x '.join(map(str, maps.shape))} pixels, {100 * np.mean(masks):.1f} % anomalous")
        ours, given = seconds(pixel_metrics, masks, maps), (masks.ravel(), maps.ravel())
        measured = pixel_metrics(masks, maps)
        print(f"{'ours: AUROC, AP, F1-max and AUPRO':38s} {ours:7.2f} s")
        for function, metric in (
            (roc_auc_score, "pixel_auroc"),
            (average_precision_score, "pixel_ap"),
        ):
            theirs, gap = seconds(function, *given), abs(function(*given) - measured[metric].value)
            name = f"scikit-learn {function.__name__}"
            print(f"{name:38s} {theirs:7.2f} s {theirs / ours:6.2f} x  |Δ| {gap:.0e}")
    with tempfile.TemporaryDirectory() as folder:
        masks, maps = made_maps(Path(folder), *(QUICK if quick else MVTEC))
        before, started = settled_memory(), time.perf_counter()
        pixel_metrics(masks, maps)
        taken, peak = time.perf_counter() - started, peak_memory()
    print(
        f"ours, {masks.size / 1e6:.0f} million pixels from files: {taken:.1f} s, "
        f"{peak / 2**30:.2f} GiB in all, {(peak - before) / 2**30:.2f} of it for this"
    )


def seconds(function: Callable[..., Any], *given: NDArray[Any]) -> float:
    """Median seconds of a call."""
    call = Timer("function(*given)", globals={"function": function, "given": given})
    return float(call.blocked_autorange(min_run_time=SECONDS).median)


def made_maps(folder: Path, count: int, side: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Masks and maps (count, side, side) in memory-mapped files: smooth noise, raised where one to
    three rectangles of a mask are, in three of four."""
    draw, shape = np.random.default_rng(0), (count, side, side)
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


if __name__ == "__main__":
    main("--quick" in sys.argv)
