"""Exact detection and localisation metrics: AUROC, AP, F1-max and AUPRO from one sort.

All of them are functions of one curve. Every threshold that matters is the score of an anomalous
item (lowering it further to reach normal items alone only adds false positives on a straight
piece of each curve), so the anomalous scores are sorted once, the normal scores are sorted once,
and counting the normal ones above each distinct anomalous score gives everything else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

AUPRO_LIMIT = 0.3

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
    return _measure(IMAGE_METRICS, _ranked(scores[labels], sizes), scores[~labels], "test images")


def pixel_metrics(masks_NHW: ArrayLike, maps_NHW: ArrayLike) -> dict[str, Measured]:
    """Judge anomaly maps (N, H, W) against masks (N, H, W), true = anomalous, all pixels pooled.

    Beside its arguments it holds one copy of the maps' normal pixels and about 60 bytes for each
    anomalous pixel. Raises ValueError where shapes differ or maps hold NaN or infinite values.
    """
    masks, maps = _checked(masks_NHW, maps_NHW, "anomaly maps", ndim=3)
    sizes = _region_sizes(masks)
    return _measure(PIXEL_METRICS, _ranked(maps[masks], sizes), maps[~masks], "test pixels")


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
    broken = judged.size - np.count_nonzero(np.isfinite(judged))
    if broken:
        raise ValueError(f"{broken:,} of {judged.size:,} values in the {what} are NaN or infinite")
    return marked, judged


def _region_sizes(masks_NHW: NDArray[np.bool_]) -> Integers:
    """The pixel count of its 8-connected region for each anomalous pixel, in array order."""
    from scipy import ndimage  # here, so that listing the metrics' names stays quick

    sizes = [np.empty(0, dtype=np.int32)]
    for mask in masks_NHW:
        if mask.any():
            regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
            members = regions[mask]
            sizes.append(np.bincount(members).astype(np.int32)[members])
    return np.concatenate(sizes)


def _ranked(anomalous: Floats, sizes: Integers) -> Complex:
    """Anomalous scores in falling order, each with the size of its region.

    Complex numbers sort by real, then imaginary part: scores carry their region's size along
    without an index, and within a tie float sums do not depend on the order of images.
    """
    ranked = np.empty(len(anomalous), dtype=np.result_type(anomalous, np.complex64))
    ranked.real, ranked.imag = anomalous, sizes
    ranked.sort()
    return ranked[::-1]


def _measure(
    names: tuple[str, ...], ranked: Complex, normal: Floats, items: str
) -> dict[str, Measured]:
    if not len(ranked) or not len(normal):
        kind = "normal" if len(ranked) else "anomalous"
        return dict.fromkeys(names, Measured(None, f"no {kind} {items}"))
    normal.sort()
    curve = _curve(ranked, normal)
    del ranked, normal  # the largest arrays: the metrics need the counts alone
    return {name: Measured(_METRICS[name][0](curve)) for name in names}


def _curve(ranked: Complex, normal: Floats) -> Curve:
    """Count at each distinct anomalous score; `normal` is sorted, rising."""
    scores = ranked.real
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    overlap = np.divide(1.0, ranked.imag, dtype=np.float64)
    overlap = np.cumsum(overlap, out=overlap)[last]
    # Rising queries keep the binary search within the cache.
    distinct = scores[last][::-1]
    return Curve(
        hits=last + 1,
        false=len(normal) - np.searchsorted(normal, distinct, side="left")[::-1],
        false_before=len(normal) - np.searchsorted(normal, distinct, side="right")[::-1],
        overlap=overlap / overlap[-1],
        normals=len(normal),
    )
