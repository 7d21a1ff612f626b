"""What a cell's scores are worth: metrics by category, one category's maps in memory at a time;
and what is kept to look at them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks
from harness.pictures import picture_rows
from harness.registry import load
from harness.spec import Cell
from results.evidence import Evidence, curve_rows
from results.metrics import PIXEL_METRICS, Measured, image_metrics, pixel_metrics
from results.table import POOLED

Metrics = dict[str, dict[str, Measured]]


def measure(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> tuple[Metrics, Evidence]:
    """All metrics of each category, and the image metrics of all test images together.

    Beside them the curves and pictures of a cell that reports show; none for a search's trials.
    """
    view = load("methods", cell.method).inputs(cell.config)
    labels = np.array([sample.anomalous for sample in samples])
    metrics: Metrics = {}
    evidence = Evidence([], [])
    for category in cell.data.categories:
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        mine, of_mine, maps_NHW = [samples[i] for i in members], scores[members], maps[members]
        masks = load_masks(benchmark, mine, view.resize, view.crop)
        metrics[category] = image_metrics(labels[members], of_mine)
        metrics[category] |= (
            pixel_metrics(masks, maps_NHW)
            if masks is not None
            else dict.fromkeys(PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason))
        )
        if cell.shown:
            if masks is not None:
                points = curve_rows(cell.cell_id, category, masks, maps_NHW)
                evidence.curves.extend(points)
            pictured = picture_rows(cell.cell_id, benchmark, mine, view, of_mine, masks, maps_NHW)
            evidence.pictures.extend(pictured)
    metrics[POOLED] = image_metrics(labels, scores)
    return metrics, evidence
