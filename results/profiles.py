"""Metric profiles: which pixels of an image are judged, against which truth, at which thresholds.

All rows of a table share one, so that a number does not depend on what a method looks at. The
default is the whole image. Others take metrics as published code does, to compare alike; none
normalises by the test split. UniAD's code flips an AUROC below 0.5; here none is.

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


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One convention. It is part of the identity of what is measured by it."""

    resize: int = 256  # pixels a side that a mask is brought to
    crop: int | None = None  # of them the centre is judged, None: all
    side: int = 256  # pixels a side at which masks and maps are compared
    smooth: bool = False  # masks of 0 and 255 are resized bilinearly, else by nearest neighbour
    above: float = 0  # a pixel is anomalous where its resized mask is above this
    label_from_mask: bool = False  # an image is anomalous where its mask is, not by its folder
    top: float = 0  # an image's score is the mean of this share of its map, 0: the method's own
    aupro_steps: int = 0  # AUPRO at so many equidistant thresholds, 0: at every score
    stretched: bool = False  # the FPR of those thresholds is stretched to begin at 0
    f1_steps: int = 0  # the same of pixel F1-max

    @property
    def share(self) -> float:
        """The share of the image's side that is judged."""
        return 1.0 if self.crop is None else self.crop / self.resize

    @property
    def view(self) -> str:
        """The part of an image that is judged, in words."""
        part = (
            "the whole image" if self.crop is None else f"its centre, {self.crop} of {self.resize}"
        )
        return f"{part} at {self.side}"


PROFILES: dict[str, Profile] = {
    DEFAULT_PROFILE: Profile(),
    # UniAD, datasets/base_dataset.py and utils/eval_helper.py.
    "uniad": Profile(resize=224, side=224, label_from_mask=True),
    # patchcore-inspection: a resized mask is cut to integers, so only full white counts.
    "patchcore": Profile(crop=224, side=224, smooth=True, above=254),
    # ADer, util/metric.py and the benchmark's configs.
    "ader": Profile(
        smooth=True,
        above=127.5,
        label_from_mask=True,
        aupro_steps=100,
        stretched=True,
        f1_steps=20,
    ),
    # Dinomaly, dataset.py and evaluation_batch in utils.py; INP-Former's published numbers too.
    "dinomaly": Profile(resize=448, crop=392, smooth=True, top=0.01, aupro_steps=200),
}


def judge(profile: Profile, masks_NHW: Booleans, maps_NHW: Floats) -> dict[str, Measured]:
    """`metrics.pixel_metrics` by the profile's rules; the same arguments and errors."""
    exact = pixel_metrics(masks_NHW, maps_NHW)
    if not profile.aupro_steps or exact["pixel_aupro"].value is None:
        return exact
    return exact | _stepped(profile, masks_NHW, maps_NHW)


def _stepped(profile: Profile, masks_NHW: Booleans, maps_NHW: Floats) -> dict[str, Measured]:
    """The profile's AUPRO and F1-max: strictly above thresholds in equal steps.

    Such an AUPRO drops thresholds with an FPR of 0.3 or more, and divides the others' by theirs.
    """
    low, high = float(maps_NHW.min()), float(maps_NHW.max())
    names = ("pixel_aupro", "pixel_f1max") if profile.f1_steps else ("pixel_aupro",)
    if low == high:
        return dict.fromkeys(names, Measured(None, "the profile has no thresholds here"))
    rising_A = ranked(maps_NHW[masks_NHW], region_sizes(masks_NHW))[::-1]
    scores_A, weights_A = rising_A.real, 1 / rising_A.imag.astype(np.float64)

    def above(steps: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
        thresholds_T = (low + (high - low) / steps * np.arange(count)).astype(maps_NHW.dtype)
        first_T = np.searchsorted(scores_A, thresholds_T, side="right")
        left_T = np.append(np.cumsum(weights_A[::-1])[::-1], 0.0)[first_T]
        false_T = normals_above(masks_NHW, maps_NHW, thresholds_T)[1]
        return len(scores_A) - first_T, false_T, left_T / weights_A.sum()

    _, false_T, overlap_T = above(profile.aupro_steps, profile.aupro_steps)
    fpr_T = false_T / (masks_NHW.size - len(scores_A))
    inside_T = fpr_T < AUPRO_LIMIT
    fpr_T, overlap_T = fpr_T[inside_T], overlap_T[inside_T]
    if len(fpr_T) < 2 or fpr_T[0] == fpr_T[-1]:
        aupro = Measured(None, "fewer than two of the profile's thresholds have an FPR below 0.3")
    else:
        reach = fpr_T[0] - fpr_T[-1] if profile.stretched else fpr_T[0]
        aupro = Measured(float(np.trapezoid(overlap_T[::-1], fpr_T[::-1]) / reach))
    if not profile.f1_steps:
        return {"pixel_aupro": aupro}
    hits_T, false_T, _ = above(profile.f1_steps, profile.f1_steps + 1)
    f1 = np.max(2 * hits_T / (hits_T + false_T + len(scores_A)))
    return {"pixel_f1max": Measured(float(f1)), "pixel_aupro": aupro}
