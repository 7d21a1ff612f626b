"""Metric profiles: how others make pixel truth and pixel metrics, to compare alike.

A profile changes the truth and the thresholds. Maps and image scores stay, and so does the rule
that the test split normalises nothing. UniAD's code flips an AUROC below 0.5; here none is.

Shapes: N images of H x W pixels, A anomalous pixels, T thresholds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.metrics import (
    AUPRO_LIMIT,
    Booleans,
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
    """One convention: at which size, against which truth and at which thresholds."""

    side: int | None = None  # pixels at which masks and maps are compared, None: the method's own
    smooth: bool = False  # masks of 0 and 255 are resized bilinearly, else by nearest neighbour
    above: float = 0  # a pixel is anomalous where its resized mask is above this
    label_from_mask: bool = False  # an image is anomalous where its mask is, not by its folder
    steps: bool = False  # AUPRO and pixel F1-max at ADer's equidistant thresholds, not every score


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


def judge(profile: Profile, masks_NHW: Booleans, maps_NHW: Floats) -> dict[str, Measured]:
    """`metrics.pixel_metrics` by the profile's rules; the same arguments and errors."""
    exact = pixel_metrics(masks_NHW, maps_NHW)
    if not profile.steps or exact["pixel_aupro"].value is None:
        return exact
    return exact | _stepped(masks_NHW, maps_NHW)


def _stepped(masks_NHW: Booleans, maps_NHW: Floats) -> dict[str, Measured]:
    """ADer's AUPRO and F1-max: strictly above thresholds in equal steps.

    Its AUPRO drops thresholds with an FPR of 0.3 or more, and stretches the others' FPR to 0 to 1.
    """
    low, high = float(maps_NHW.min()), float(maps_NHW.max())
    if low == high:
        return dict.fromkeys(
            ("pixel_f1max", "pixel_aupro"), Measured(None, "the profile has no thresholds here")
        )
    rising_A = ranked(maps_NHW[masks_NHW], region_sizes(masks_NHW))[::-1]
    scores_A, weights_A = rising_A.real, 1 / rising_A.imag.astype(np.float64)

    def above(steps: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        thresholds_T = (low + (high - low) / steps * np.arange(count)).astype(maps_NHW.dtype)
        first_T = np.searchsorted(scores_A, thresholds_T, side="right")
        left_T = np.append(np.cumsum(weights_A[::-1])[::-1], 0.0)[first_T]
        false_T = normals_above(masks_NHW, maps_NHW, thresholds_T)[1]
        return len(scores_A) - first_T, false_T, left_T / weights_A.sum()

    hits_T, false_T, _ = above(F1_STEPS, F1_STEPS + 1)
    f1 = np.max(2 * hits_T / (hits_T + false_T + len(scores_A)))
    _, false_T, overlap_T = above(AUPRO_STEPS, AUPRO_STEPS)
    fpr_T = false_T / (masks_NHW.size - len(scores_A))
    inside_T = fpr_T < AUPRO_LIMIT
    fpr_T, overlap_T = fpr_T[inside_T], overlap_T[inside_T]
    if len(fpr_T) < 2 or fpr_T[0] == fpr_T[-1]:
        aupro = Measured(None, "fewer than two of the profile's thresholds have an FPR below 0.3")
    else:
        area = np.trapezoid(overlap_T[::-1], fpr_T[::-1]) / (fpr_T[0] - fpr_T[-1])
        aupro = Measured(float(area))
    return {"pixel_f1max": Measured(float(f1)), "pixel_aupro": aupro}
