"""Exact detection and localisation metrics: AUROC, AP, F1-max and AUPRO from one sort.

All of them are functions of one curve. Every threshold that matters is the score of an anomalous
item: lowering it further, to reach normal items alone, only adds false positives on a straight
piece of each curve. So anomalous scores are sorted once, normal scores are sorted once, and the
counts of normal ones above each distinct anomalous score give everything else. Normal scores are
sorted and counted chunk by chunk, in threads. Counts are integers: neither chunks nor threads nor
the order of images change a bit of any metric.

Shapes: N images of H x W pixels; I items, images (N,) or pixels (N, H, W); A anomalous items;
T thresholds, their distinct scores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

AUPRO_LIMIT = 0.3
CHUNK = 1 << 23  # normal scores that a thread sorts at once
SMALL = 1 << 16  # not worth another thread
MOST_THREADS = 8

Booleans = NDArray[np.bool_]
Integers = NDArray[np.signedinteger[Any]]
Floats = NDArray[Any]  # float32 or float64, as the caller gave them
Complex = NDArray[Any]  # score + 1j * size of its region


class Measured(NamedTuple):
    """A metric's value, or None and the reason why it is undefined."""

    value: float | None
    reason: str = ""


class Curve(NamedTuple):
    """Counts at each distinct anomalous score, (T,) each, from the highest to the lowest."""

    hits: Integers  # anomalous items at or above the score
    false: Integers  # normal items at or above it
    false_before: Integers  # normal items strictly above it
    overlap: NDArray[np.float64]  # share of a region at or above it, mean over regions; ends in 1
    normals: int  # all normal items


def auroc(curve: Curve) -> float:
    """Share of (anomalous, normal) pairs in the right order; a tie counts one half."""
    # Twice the pairs won, as integers: exact up to about 2e9 items of either kind.
    wins_T = 2 * curve.normals - curve.false - curve.false_before
    gained_T = np.diff(curve.hits, prepend=0)
    return int(gained_T @ wins_T) / (2 * int(curve.hits[-1]) * curve.normals)


def average_precision(curve: Curve) -> float:
    """Precision at each distinct score weighted by the recall gained there (AU-PR)."""
    gained_T = np.diff(curve.hits, prepend=0) / curve.hits[-1]
    return float(gained_T @ (curve.hits / (curve.hits + curve.false)))


def f1_max(curve: Curve) -> float:
    """Largest F1 over all exact thresholds."""
    return float(np.max(2 * curve.hits / (curve.hits + curve.false + curve.hits[-1])))


def aupro(curve: Curve, limit: float = AUPRO_LIMIT) -> float:
    """Area under mean region overlap against FPR up to `limit`, divided by it.

    The piece that crosses the limit is cut by linear interpolation. Definition: Bergmann et al.,
    "The MVTec Anomaly Detection Dataset" (IJCV 2021), with 8-connected regions.
    """
    inside = np.searchsorted(curve.false_before, limit * curve.normals, side="right")
    upto = slice(inside + 1)
    # A tie between both kinds moves along a diagonal, so each score gives two of P points.
    false_P = np.stack((curve.false_before[upto], curve.false[upto]), axis=1).ravel()
    overlap_P = np.concatenate(([0.0], np.repeat(curve.overlap[upto], 2)[:-1]))
    fpr_P = np.concatenate(([0.0], false_P / curve.normals, [1.0]))
    pro_P = np.concatenate(([0.0], overlap_P, [1.0]))
    end = np.searchsorted(fpr_P, limit, side="right")
    at_limit = np.interp(limit, fpr_P[end - 1 : end + 1], pro_P[end - 1 : end + 1])
    area = np.trapezoid(np.append(pro_P[:end], at_limit), np.append(fpr_P[:end], limit))
    return float(area / limit)


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
    "pixel_aupro_5": (partial(aupro, limit=0.05), "the same up to an FPR of 0.05, divided by it"),
}
METRICS: dict[str, str] = {name: definition for name, (_, definition) in _METRICS.items()}
IMAGE_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("image_"))
PIXEL_METRICS: tuple[str, ...] = tuple(name for name in METRICS if name.startswith("pixel_"))


def image_metrics(labels_N: ArrayLike, scores_N: ArrayLike) -> dict[str, Measured]:
    """Judge image scores (N,), larger = more anomalous, against labels (N,), true = anomalous.

    Raises ValueError where shapes differ or scores are NaN or infinite.
    """
    truth_N, judged_N = _checked(labels_N, scores_N, "image scores", ndim=1)
    sizes_A = np.ones(np.count_nonzero(truth_N), dtype=np.int32)
    anomalous_A = ranked(judged_N[truth_N], sizes_A)
    return _measure(IMAGE_METRICS, truth_N, judged_N, anomalous_A, "test images")


def pixel_metrics(masks_NHW: ArrayLike, maps_NHW: ArrayLike) -> dict[str, Measured]:
    """Judge anomaly maps (N, H, W) against masks (N, H, W), true = anomalous, all pixels pooled.

    Maps may be a memory-mapped file. Beside the arguments, memory holds about 60 bytes for each
    anomalous pixel and, in each of at most 8 threads, 32 MiB of normal pixels and 16 bytes for each
    anomalous one. Raises ValueError where shapes differ or maps hold NaN or infinite values.
    """
    truth_NHW, judged_NHW = _checked(masks_NHW, maps_NHW, "anomaly maps", ndim=3)
    anomalous_A = ranked(judged_NHW[truth_NHW], region_sizes(truth_NHW))
    return _measure(PIXEL_METRICS, truth_NHW, judged_NHW, anomalous_A, "test pixels")


def _checked(truth: ArrayLike, scores: ArrayLike, name: str, ndim: int) -> tuple[Booleans, Floats]:
    scores_I = np.asarray(scores)
    if scores_I.dtype not in (np.float32, np.float64):
        scores_I = scores_I.astype(np.float64)
    truth_I = np.asarray(truth, dtype=bool)
    if scores_I.ndim != ndim or scores_I.shape != truth_I.shape:
        raise ValueError(
            f"{name} of shape {scores_I.shape} do not fit a truth of shape {truth_I.shape}: "
            f"both need {ndim} equal dimensions"
        )
    size = scores_I.size
    pieces = np.array_split(scores_I.reshape(-1), -(-size // CHUNK) or 1)
    if broken := size - sum(np.count_nonzero(np.isfinite(piece)) for piece in pieces):
        raise ValueError(f"{broken:,} of {size:,} values in the {name} are NaN or infinite")
    return truth_I, scores_I


def region_sizes(masks_NHW: Booleans) -> Integers:
    """Pixels of the 8-connected region of each anomalous pixel, (A,), in array order."""
    from scipy import ndimage  # here, so that listing the metrics' names stays quick

    sizes = [np.empty(0, dtype=np.int32)]
    for mask_HW in masks_NHW:
        if mask_HW.any():
            regions_HW, _ = ndimage.label(mask_HW, structure=np.ones((3, 3)))
            members = regions_HW[mask_HW]
            sizes.append(np.bincount(members).astype(np.int32)[members])
    return np.concatenate(sizes)


def ranked(scores_A: Floats, sizes_A: Integers) -> Complex:
    """Anomalous scores (A,) in falling order, each with the size of its region.

    Complex numbers sort by real, then imaginary part. So scores carry their region's size along
    without an index, and within a tie float sums do not depend on the order of images.
    """
    ranked_A = np.empty(len(scores_A), dtype=np.result_type(scores_A, np.complex64))
    ranked_A.real, ranked_A.imag = scores_A, sizes_A
    ranked_A.sort()
    return ranked_A[::-1]


def _threads() -> int:
    """The number that OMP_NUM_THREADS says, which Ray sets for a task; a list has nested levels."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    wanted = int(first) if first.isdecimal() else 0
    return min(MOST_THREADS, wanted or os.cpu_count() or 1)


def normals_above(
    truth_I: Booleans, scores_I: Floats, thresholds_T: Floats
) -> tuple[Integers, Integers]:
    """Counts, (T,) each, of normal items at or above, and strictly above, rising thresholds."""
    threads = _threads()
    scores, truth = scores_I.reshape(-1), truth_I.reshape(-1)
    size = min(CHUNK, max(SMALL, -(-len(scores) // threads)))
    at_or_above_T, above_T = np.zeros((2, len(thresholds_T)), dtype=np.int64)
    turn = Lock()

    def count(start: int) -> None:
        piece = slice(start, start + size)
        normal = scores[piece][~truth[piece]]
        normal.sort()
        below_T = np.searchsorted(normal, thresholds_T, side="left")
        upto_T = np.searchsorted(normal, thresholds_T, side="right")
        with turn:
            for total_T, passed_T in ((at_or_above_T, below_T), (above_T, upto_T)):
                total_T += len(normal)
                total_T -= passed_T

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(count, range(0, len(scores), size)))
    return at_or_above_T, above_T


def _measure(
    names: tuple[str, ...], truth_I: Booleans, scores_I: Floats, anomalous_A: Complex, items: str
) -> dict[str, Measured]:
    if len(anomalous_A) in (0, truth_I.size):
        kind = "normal" if len(anomalous_A) else "anomalous"
        return dict.fromkeys(names, Measured(None, f"no {kind} {items}"))
    curve = _curve(truth_I, scores_I, anomalous_A)
    return {name: Measured(_METRICS[name][0](curve)) for name in names}


def _curve(truth_I: Booleans, scores_I: Floats, anomalous_A: Complex) -> Curve:
    """Count at each distinct anomalous score."""
    falling_A = anomalous_A.real
    last_T = np.append(np.flatnonzero(falling_A[1:] != falling_A[:-1]), len(falling_A) - 1)
    overlap_A = np.divide(1.0, anomalous_A.imag, dtype=np.float64)
    overlap_T = np.cumsum(overlap_A, out=overlap_A)[last_T]
    # Rising thresholds keep the binary search within the cache.
    false_T, false_before_T = normals_above(truth_I, scores_I, falling_A[last_T][::-1])
    return Curve(
        hits=last_T + 1,
        false=false_T[::-1],
        false_before=false_before_T[::-1],
        overlap=overlap_T / overlap_T[-1],
        normals=truth_I.size - len(anomalous_A),
    )
