"""Exact detection and localisation metrics: AUROC, AP, F1-max and AUPRO from one sort.

All of them are functions of one curve. Every threshold that matters is the score of an anomalous
item (lowering it further to reach normal items alone only adds false positives on a straight
piece of each curve), so the anomalous scores are sorted once, the normal scores are sorted once,
and counting the normal ones above each distinct anomalous score gives everything else. Normal
scores are sorted and counted chunk by chunk, in threads: counts are integers, so neither chunks
nor threads nor the order of images change a bit of any metric.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

AUPRO_LIMIT = 0.3
CHUNK = 1 << 23  # normal scores that a thread sorts at once
SMALL = 1 << 16  # not worth another thread
MOST_THREADS = 8

Integers = NDArray[np.signedinteger[Any]]
Floats = NDArray[Any]  # float32 or float64, as the caller gave them
Complex = NDArray[Any]  # score + region size * 1j


class Measured(NamedTuple):
    """A metric's value, or None and the reason why it is undefined."""

    value: float | None
    reason: str = ""


class Curve(NamedTuple):
    """Counts at each distinct anomalous score, from the highest to the lowest.

    hits: anomalous items at or above the score; false: normal items at or above it;
    false_before: normal items strictly above it; overlap: mean over regions of the share at or
    above it (ends in 1); normals: all normal items.
    """

    hits: Integers
    false: Integers
    false_before: Integers
    overlap: NDArray[np.float64]
    normals: int


def auroc(curve: Curve) -> float:
    """Share of (anomalous, normal) pairs in the right order; a tie counts one half."""
    # Twice the pairs won, as integers: exact up to about 2e9 items of either kind.
    wins = 2 * curve.normals - curve.false - curve.false_before
    gained = np.diff(curve.hits, prepend=0)
    return int(gained @ wins) / (2 * int(curve.hits[-1]) * curve.normals)


def average_precision(curve: Curve) -> float:
    """Precision at each distinct score weighted by the recall gained there (AU-PR)."""
    gained = np.diff(curve.hits, prepend=0) / curve.hits[-1]
    return float(gained @ (curve.hits / (curve.hits + curve.false)))


def f1_max(curve: Curve) -> float:
    """Largest F1 over all exact thresholds."""
    return float(np.max(2 * curve.hits / (curve.hits + curve.false + curve.hits[-1])))


def aupro(curve: Curve) -> float:
    """Area under mean region overlap against FPR up to AUPRO_LIMIT, divided by that limit.

    The piece that crosses the limit is cut by linear interpolation. Definition: Bergmann et al.,
    "The MVTec Anomaly Detection Dataset" (IJCV 2021), with 8-connected regions.
    """
    inside = np.searchsorted(curve.false_before, AUPRO_LIMIT * curve.normals, side="right")
    upto = slice(inside + 1)
    # A tie between both kinds moves along a diagonal, so each score gives two points.
    false = np.stack((curve.false_before[upto], curve.false[upto]), axis=1).ravel()
    overlap = np.concatenate(([0.0], np.repeat(curve.overlap[upto], 2)[:-1]))
    fpr = np.concatenate(([0.0], false / curve.normals, [1.0]))
    pro = np.concatenate(([0.0], overlap, [1.0]))
    end = np.searchsorted(fpr, AUPRO_LIMIT, side="right")
    at_limit = np.interp(AUPRO_LIMIT, fpr[end - 1 : end + 1], pro[end - 1 : end + 1])
    area = np.trapezoid(np.append(pro[:end], at_limit), np.append(fpr[:end], AUPRO_LIMIT))
    return float(area / AUPRO_LIMIT)


# A new metric is one function of the curve and one entry here.
_METRICS: dict[str, tuple[Callable[[Curve], float], str]] = {
    "image_auroc": (auroc, "area under the ROC curve over test images; ties count one half"),
    "image_ap": (average_precision, "average precision (AU-PR) over test images"),
    "image_f1max": (f1_max, "largest F1 over all exact image thresholds"),
    "pixel_auroc": (auroc, "area under the ROC curve over all test pixels"),
    "pixel_ap": (average_precision, "average precision (AU-PR) over all test pixels"),
    "pixel_f1max": (f1_max, "largest F1 over all exact pixel thresholds"),
    "pixel_aupro": (
        aupro,
        f"mean overlap of 8-connected regions against FPR up to {AUPRO_LIMIT}, "
        f"area divided by {AUPRO_LIMIT}",
    ),
}
METRICS: dict[str, str] = {name: definition for name, (_, definition) in _METRICS.items()}
IMAGE_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("image_"))
PIXEL_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("pixel_"))


def image_metrics(labels_N: ArrayLike, scores_N: ArrayLike) -> dict[str, Measured]:
    """Judge image scores (N,), larger = more anomalous, against labels (N,), true = anomalous.

    Raises ValueError where shapes differ or scores are NaN or infinite.
    """
    labels, scores = _checked(labels_N, scores_N, "image scores", ndim=1)
    sizes = np.ones(np.count_nonzero(labels), dtype=np.int32)
    return _measure(IMAGE_METRICS, labels, scores, ranked(scores[labels], sizes), "test images")


def pixel_metrics(masks_NHW: ArrayLike, maps_NHW: ArrayLike) -> dict[str, Measured]:
    """Judge anomaly maps (N, H, W) against masks (N, H, W), true = anomalous, all pixels pooled.

    Maps may be a memory-mapped file: beside its arguments it holds about 60 bytes for each
    anomalous pixel and, in each of at most 8 threads, 32 MiB of normal pixels and 16 bytes for each
    anomalous one. Raises ValueError where shapes differ or maps hold NaN or infinite values.
    """
    masks, maps = _checked(masks_NHW, maps_NHW, "anomaly maps", ndim=3)
    anomalous = ranked(maps[masks], region_sizes(masks))
    return _measure(PIXEL_METRICS, masks, maps, anomalous, "test pixels")


def _checked(
    truth: ArrayLike, scores: ArrayLike, what: str, ndim: int
) -> tuple[NDArray[np.bool_], Floats]:
    judged = np.asarray(scores)
    if judged.dtype not in (np.float32, np.float64):
        judged = judged.astype(np.float64)
    marked = np.asarray(truth, dtype=bool)
    if judged.ndim != ndim or judged.shape != marked.shape:
        raise ValueError(
            f"{what} of shape {judged.shape} do not fit a truth of shape {marked.shape}: "
            f"both need {ndim} equal dimensions"
        )
    pieces = np.array_split(judged.reshape(-1), -(-judged.size // CHUNK) or 1)
    broken = judged.size - sum(np.count_nonzero(np.isfinite(piece)) for piece in pieces)
    if broken:
        raise ValueError(f"{broken:,} of {judged.size:,} values in the {what} are NaN or infinite")
    return marked, judged


def region_sizes(masks_NHW: NDArray[np.bool_]) -> Integers:
    """The pixel count of its 8-connected region for each anomalous pixel, in array order."""
    from scipy import ndimage  # here, so that listing the metrics' names stays quick

    sizes = [np.empty(0, dtype=np.int32)]
    for mask in masks_NHW:
        if mask.any():
            regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
            members = regions[mask]
            sizes.append(np.bincount(members).astype(np.int32)[members])
    return np.concatenate(sizes)


def ranked(anomalous: Floats, sizes: Integers) -> Complex:
    """Anomalous scores in falling order, each with the size of its region.

    Complex numbers sort by real, then imaginary part: scores carry their region's size along
    without an index, and within a tie float sums do not depend on the order of images.
    """
    ranked = np.empty(len(anomalous), dtype=np.result_type(anomalous, np.complex64))
    ranked.real, ranked.imag = anomalous, sizes
    ranked.sort()
    return ranked[::-1]


def normals_above(
    truth: NDArray[np.bool_], scores: Floats, thresholds: Floats
) -> tuple[Integers, Integers]:
    """How many scores of normal items are at or above, and above, each of rising thresholds."""
    threads = min(MOST_THREADS, int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    flat, marked = scores.reshape(-1), truth.reshape(-1)
    size = min(CHUNK, max(SMALL, -(-len(flat) // threads)))
    at_or_above, above = np.zeros((2, len(thresholds)), dtype=np.int64)
    turn = Lock()

    def count(start: int) -> None:
        piece = slice(start, start + size)
        normal = flat[piece][~marked[piece]]
        normal.sort()
        below = np.searchsorted(normal, thresholds, side="left")
        upto = np.searchsorted(normal, thresholds, side="right")
        with turn:
            for total, passed in ((at_or_above, below), (above, upto)):
                total += len(normal)
                total -= passed

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(0, len(flat), size)))
    return at_or_above, above


def _measure(
    names: tuple[str, ...],
    truth: NDArray[np.bool_],
    scores: Floats,
    anomalous: Complex,
    items: str,
) -> dict[str, Measured]:
    if len(anomalous) in (0, truth.size):
        kind = "normal" if len(anomalous) else "anomalous"
        return dict.fromkeys(names, Measured(None, f"no {kind} {items}"))
    curve = _curve(truth, scores, anomalous)
    return {name: Measured(_METRICS[name][0](curve)) for name in names}


def _curve(truth: NDArray[np.bool_], scores: Floats, anomalous: Complex) -> Curve:
    """Count at each distinct anomalous score."""
    falling = anomalous.real
    last = np.append(np.flatnonzero(falling[1:] != falling[:-1]), len(falling) - 1)
    overlap = np.divide(1.0, anomalous.imag, dtype=np.float64)
    overlap = np.cumsum(overlap, out=overlap)[last]
    # Rising thresholds keep the binary search within the cache.
    false, false_before = normals_above(truth, scores, falling[last][::-1])
    return Curve(
        hits=last + 1,
        false=false[::-1],
        false_before=false_before[::-1],
        overlap=overlap / overlap[-1],
        normals=truth.size - len(anomalous),
    )
