"""What a cell's scores are worth: metrics by category, one category's maps in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks
from harness.registry import load
from harness.spec import Cell
from results.metrics import PIXEL_METRICS, Measured, image_metrics
from results.profiles import PROFILES, Profile, judge
from results.table import POOLED


class Measures(NamedTuple):
    """Metrics by category, and which images were taken for anomalous (N,)."""

    metrics: dict[str, dict[str, Measured]]
    labels: NDArray[np.bool_]


def measure(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> Measures:
    """All metrics of each category, and the image metrics of all test images together."""
    profile = PROFILES[cell.profile]
    labels = np.array([sample.anomalous for sample in samples])
    metrics: dict[str, dict[str, Measured]] = {}
    for category in cell.data.categories:
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        masks = _masks(cell, profile, benchmark, [samples[i] for i in members])
        if masks is not None and profile.label_from_mask:
            labels[members] = masks.any(axis=(1, 2))
        metrics[category] = image_metrics(labels[members], scores[members])
        metrics[category] |= (
            judge(profile, masks, _resized(maps[members], masks.shape[1]))
            if masks is not None
            else dict.fromkeys(PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason))
        )
    metrics[POOLED] = image_metrics(labels, scores)
    return Measures(metrics, labels)


def _masks(
    cell: Cell, profile: Profile, benchmark: Benchmark, samples: Sequence[Sample]
) -> NDArray[np.bool_] | None:
    """Masks of what the method sees, at the profile's size."""
    view = load("methods", cell.method).inputs(cell.config)
    resize, crop = view.resize, view.crop
    if profile.side is not None:
        resize = round(resize * profile.side / (crop or resize))
        crop = profile.side if crop else None
    return load_masks(benchmark, samples, resize, crop, smooth=profile.smooth, above=profile.above)


def _resized(maps_NHW: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if maps_NHW.shape[1] == side:
        return maps_NHW
    maps = torch.from_numpy(maps_NHW)[:, None]
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
