"""What a cell's scores are worth: metrics by category, one category's maps in memory at a time;
and what is kept to look at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks
from harness.cell import Cell
from harness.pictures import picture_rows
from harness.registry import load
from results.evidence import Evidence, curve_rows
from results.metrics import PIXEL_METRICS, Measured, image_metrics
from results.profiles import PROFILES, Profile, judge
from results.table import POOLED

Metrics = dict[str, dict[str, Measured]]


class Measures(NamedTuple):
    """Metrics by category, which images were taken for anomalous (N,), curves and pictures."""

    metrics: Metrics
    labels: NDArray[np.bool_]
    evidence: Evidence


def measure(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> Measures:
    """All metrics of each category, and the image metrics of all test images together.

    Beside them the curves and pictures of a cell that reports show; none for a search's trials.
    """
    view = load("methods", cell.method).inputs(cell.config)
    profile = PROFILES[cell.profile]
    found = Measures({}, np.array([sample.anomalous for sample in samples]), Evidence([], []))
    for category in cell.data.categories:
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        mine, of_mine, maps_NHW = [samples[i] for i in members], scores[members], maps[members]
        masks = _masks(profile, benchmark, mine, view.resize, view.crop)
        if masks is not None:
            if profile.label_from_mask:
                found.labels[members] = masks.any(axis=(1, 2))
            compared = _resized(maps_NHW, masks.shape[1])
            pixels = judge(profile, masks, compared)
        else:
            pixels = dict.fromkeys(PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason))
        found.metrics[category] = image_metrics(found.labels[members], of_mine) | pixels
        if cell.shown:
            if masks is not None:
                points = curve_rows(cell.cell_id, category, masks, compared)
                found.evidence.curves.extend(points)
            pictured = picture_rows(cell.cell_id, benchmark, mine, view, of_mine, masks, maps_NHW)
            found.evidence.pictures.extend(pictured)
    found.metrics[POOLED] = image_metrics(found.labels, scores)
    return found


def _masks(
    profile: Profile,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    resize: int,
    crop: int | None,
) -> NDArray[np.bool_] | None:
    """Masks of what the method sees, at the profile's size."""
    if profile.side is not None:
        resize = round(resize * profile.side / (crop or resize))
        crop = profile.side if crop else None
    return load_masks(benchmark, samples, resize, crop, smooth=profile.smooth, above=profile.above)


def _resized(maps_NHW: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if maps_NHW.shape[1] == side:
        return maps_NHW
    maps = torch.from_numpy(maps_NHW)[:, None]
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
