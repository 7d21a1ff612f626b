"""Metric profiles: how others make pixel truth and pixel metrics, to compare alike.

What a profile changes is the truth and the thresholds; maps, image scores and the rule that the
test split normalises nothing stay. An AUROC below 0.5 is not flipped, though UniAD's code does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.metrics import (
    AUPRO_LIMIT,
    Floats,
    Measured,
    normals_above,
    pixel_metrics,
    ranked,
    region_sizes,
)

DEFAULT_PROFILE = "default"
"""This program's own metric conventions."""


@dataclass(frozen=True)
class Profile:
    """One convention.

    side: at which masks and maps are compared, None for the method's own; smooth, above: a mask of
    0 and 255 is resized bilinearly (else by nearest neighbour) and marks what is above this;
    label_from_mask: an image is anomalous where its resized mask is, whatever its folder says;
    steps: pixel AUPRO and F1-max by ADer's equidistant thresholds, not by every score.
    """

    side: int | None = None
    smooth: bool = False
    above: float = 0
    label_from_mask: bool = False
    steps: bool = False


PROFILES: dict[str, Profile] = {
    DEFAULT_PROFILE: Profile(),
    # UniAD, datasets/base_dataset.py and utils/eval_helper.py.
    "uniad": Profile(side=224, label_from_mask=True),
    # patchcore-inspection: a resized mask is cut to integers, so only full white counts.
    "patchcore": Profile(side=224, smooth=True, above=254),
    # ADer, util/metric.py and the benchmark's configs.
    "ader": Profile(side=256, smooth=True, above=127.5, label_from_mask=True, steps=True),
}
AUPRO_STEPS, F1_STEPS = 100, 20  # of ADer, between the smallest and the largest score


def judge(profile: Profile, masks_NHW: NDArray[np.bool_], maps_NHW: Floats) -> dict[str, Measured]:
    """`metrics.pixel_metrics` as the profile takes them; the same arguments and errors."""
    found = pixel_metrics(masks_NHW, maps_NHW)
    if not profile.steps or found["pixel_aupro"].value is None:
        return found
    return found | _stepped(masks_NHW, maps_NHW)


def _stepped(masks: NDArray[np.bool_], maps: Floats) -> dict[str, Measured]:
    """ADer's AUPRO and F1-max: strictly above thresholds in equal steps.

    Its AUPRO drops thresholds with an FPR of 0.3 or more, and stretches what is left to 0 to 1.
    """
    low, high = float(maps.min()), float(maps.max())
    if low == high:
        return dict.fromkeys(
            ("pixel_f1max", "pixel_aupro"), Measured(None, "the profile has no thresholds here")
        )
    anomalous = ranked(maps[masks], region_sizes(masks))
    scores, weights = anomalous.real[::-1], 1 / anomalous.imag[::-1].astype(np.float64)
    normals = masks.size - len(scores)

    def above(steps: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        thresholds = (low + (high - low) / steps * np.arange(count)).astype(maps.dtype)
        first = np.searchsorted(scores, thresholds, side="right")
        left = np.append(np.cumsum(weights[::-1])[::-1], 0.0)[first]
        return len(scores) - first, normals_above(masks, maps, thresholds)[1], left / weights.sum()

    hits, false, _ = above(F1_STEPS, F1_STEPS + 1)
    f1 = np.max(2 * hits / (hits + false + len(scores)))
    _, false, overlap = above(AUPRO_STEPS, AUPRO_STEPS)
    fpr = false / normals
    inside = fpr < AUPRO_LIMIT
    fpr, overlap = fpr[inside], overlap[inside]
    if len(fpr) < 2 or fpr[0] == fpr[-1]:
        aupro = Measured(None, "fewer than two of the profile's thresholds have an FPR below 0.3")
    else:
        area = np.trapezoid(overlap[::-1], fpr[::-1]) / (fpr[0] - fpr[-1])
        aupro = Measured(float(area))
    return {"pixel_f1max": Measured(float(f1)), "pixel_aupro": aupro}
