"""Metrics of a cell's scores by category, and the evidence that is kept to look at them.

One category's maps are in memory at a time. Shape legend: N images, M those of a category, H and W
pixels of a map, S side in pixels at which masks and maps are compared, P = S S.
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
from methods.parts.backbone import Pixels
from methods.parts.progress import OnProgress, Progress, quiet
from results.evidence import Evidence, curve_rows
from results.identity import POOLED
from results.metrics import PIXEL_METRICS, Measured, image_metrics
from results.profiles import PROFILES, Profile, judge

AT_ONCE = 32
"""Maps that are resized at once."""
UNUSED = "a search compares image scores and needs no pixel metrics"
Metrics = dict[str, dict[str, Measured]]


class Measures(NamedTuple):
    """Metrics by category, each image's label and score that they are of, curves and pictures."""

    metrics: Metrics
    labels_N: NDArray[np.bool_]
    scores_N: NDArray[np.float64]
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
    labels_N = np.array([sample.anomalous for sample in samples])
    measures = Measures({}, labels_N, scores_N.copy(), Evidence([], []))
    for number, category in enumerate(cell.data.categories):
        tell(Progress(stage="measure", step=number, steps=len(cell.data.categories)))
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        images = [samples[i] for i in members]
        pixels = dict.fromkeys(PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason or UNUSED))
        masks_MSS = _masks(profile, benchmark, images) if cell.role.shown else None
        maps_MSS = None
        if masks_MSS is not None or profile.top:
            maps_MSS = judged(profile, view, maps_NHW, members)
        if maps_MSS is not None and profile.top:
            measures.scores_N[members] = _mean_of_top(maps_MSS, profile.top)
        if maps_MSS is not None and masks_MSS is not None:
            if profile.label_from_mask:
                labels_N[members] = masks_MSS.any(axis=(1, 2))
            pixels = judge(profile, masks_MSS, maps_MSS)
            curves = curve_rows(cell.cell_id, category, masks_MSS, maps_MSS)
            measures.evidence.curves.extend(curves)
        del masks_MSS, maps_MSS  # before those of the pictures are read
        scores_M = measures.scores_N[members]
        measures.metrics[category] = image_metrics(labels_N[members], scores_M) | pixels
        if cell.role.shown:
            measures.evidence.pictures.extend(
                picture_rows(cell.cell_id, benchmark, images, view, scores_M, maps_NHW[members])
            )
    measures.metrics[POOLED] = image_metrics(labels_N, measures.scores_N)
    return measures


def judged(
    profile: Profile, view: Pixels, maps_NHW: NDArray[np.float32], members: Sequence[int]
) -> NDArray[np.float32]:
    """The part of an image that the profile judges, of the maps of these images: (M, S, S).

    Where a method saw less of it, the rest has the smallest value of all these maps: a defect there
    is missed, and nothing there is a false alarm. A few maps at a time are in memory beside them.
    """
    seen = maps_NHW.shape[-1]
    wanted = round(seen * view.resize / view.side * profile.share)
    before = round((wanted - seen) / 2)  # below 0: the method saw more
    edges = [before, wanted - seen - before] * 2
    low = min((float(maps_NHW[i].min()) for i in members), default=0.0) if wanted > seen else 0.0
    maps_MSS = np.empty((len(members), profile.side, profile.side), np.float32)
    for start in range(0, len(members), AT_ONCE):
        some = torch.from_numpy(maps_NHW[members[start : start + AT_ONCE]])[:, None]
        some = F.pad(some, edges, value=low)
        if wanted != profile.side:
            size = (profile.side, profile.side)
            some = F.interpolate(some, size, mode="bilinear", align_corners=False)
        maps_MSS[start : start + AT_ONCE] = some[:, 0].numpy()
    return maps_MSS


def _masks(
    profile: Profile, benchmark: Benchmark, samples: Sequence[Sample]
) -> NDArray[np.bool_] | None:
    """Masks (M, S, S) of what the profile judges; None where the data set has none."""
    part = profile.resize, profile.crop
    masks_MHW = load_masks(benchmark, samples, *part, smooth=profile.smooth, above=profile.above)
    if masks_MHW is None or masks_MHW.shape[1] == profile.side:
        return masks_MHW
    picked_S = np.arange(profile.side) * masks_MHW.shape[1] // profile.side  # as torch's nearest
    return masks_MHW[:, picked_S][:, :, picked_S]


def _mean_of_top(maps_MSS: NDArray[np.float32], share: float) -> NDArray[np.float64]:
    """The mean of the highest share of each map's pixels, (M,)."""
    flat_MP = maps_MSS.reshape(len(maps_MSS), -1)
    count = max(1, int(flat_MP.shape[1] * share))
    scores_M = [np.partition(flat_P, -count)[-count:].mean(dtype=float) for flat_P in flat_MP]
    return np.array(scores_M)
