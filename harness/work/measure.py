"""Metrics of a cell's scores by category, and the evidence that is kept to look at them.

One category's maps are in memory at a time. Shape legend: N images, M those of a category, H and W
pixels of a map, S side in pixels at which masks and maps are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks
from harness.plan.cell import Cell
from harness.plan.registry import load
from harness.work.pictures import picture_rows
from methods.base import OnProgress, Progress, quiet
from methods.parts.backbone import Pixels
from results.evidence import Evidence, curve_rows
from results.identity import POOLED
from results.metrics import PIXEL_METRICS, Measured, image_metrics
from results.profiles import PROFILES, Profile, judge

UNUSED = "a search compares image scores and needs no pixel metrics"
Metrics = dict[str, dict[str, Measured]]


class Measures(NamedTuple):
    """Metrics by category, which images were taken for anomalous, curves and pictures."""

    metrics: Metrics
    labels_N: NDArray[np.bool_]
    evidence: Evidence


def measure(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    scores_N: NDArray[np.float64],
    maps_NHW: NDArray[np.float32],
    tell: OnProgress = quiet,
) -> Measures:
    """All metrics of each category, and the image metrics of all test images together.

    Beside them the curves and pictures of a cell that reports show; none for a search's trials.
    """
    view = load("methods", cell.method).method.inputs(cell.config)
    profile = PROFILES[cell.profile]
    measures = Measures({}, np.array([sample.anomalous for sample in samples]), Evidence([], []))
    for number, category in enumerate(cell.data.categories):
        tell(Progress(stage="measure", step=number, steps=len(cell.data.categories)))
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        images, scores_M, maps_MHW = (
            [samples[i] for i in members],
            scores_N[members],
            maps_NHW[members],
        )
        masks_MSS = _masks(profile, benchmark, images, view) if cell.role.shown else None
        if masks_MSS is not None:
            if profile.label_from_mask:
                measures.labels_N[members] = masks_MSS.any(axis=(1, 2))
            maps_MSS = _resized(maps_MHW, masks_MSS.shape[1])
            pixels = judge(profile, masks_MSS, maps_MSS)
            if cell.role.shown:
                measures.evidence.curves.extend(
                    curve_rows(cell.cell_id, category, masks_MSS, maps_MSS)
                )
        else:
            pixels = dict.fromkeys(
                PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason or UNUSED)
            )
        measures.metrics[category] = image_metrics(measures.labels_N[members], scores_M) | pixels
        if cell.role.shown:
            measures.evidence.pictures.extend(
                picture_rows(cell.cell_id, benchmark, images, view, scores_M, masks_MSS, maps_MHW)
            )
    measures.metrics[POOLED] = image_metrics(measures.labels_N, scores_N)
    return measures


def _masks(
    profile: Profile, benchmark: Benchmark, samples: Sequence[Sample], view: Pixels
) -> NDArray[np.bool_] | None:
    """Masks of what the method sees, at the profile's size."""
    resize, crop = view.resize, view.crop
    if profile.side is not None:
        resize = round(resize * profile.side / view.side)
        crop = profile.side if crop else None
    return load_masks(benchmark, samples, resize, crop, smooth=profile.smooth, above=profile.above)


def _resized(maps_NHW: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    if maps_NHW.shape[1] == side:
        return maps_NHW
    maps = torch.from_numpy(maps_NHW)[:, None]
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[:, 0].numpy()
