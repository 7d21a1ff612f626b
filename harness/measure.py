"""What a cell's scores are worth: metrics by category, one category's maps in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks
from harness.registry import load
from harness.spec import Cell
from results.metrics import PIXEL_METRICS, Measured, image_metrics, pixel_metrics
from results.table import POOLED


def measure(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    scores: NDArray[np.float64],
    maps: NDArray[np.float32],
) -> dict[str, dict[str, Measured]]:
    """All metrics of each category, and the image metrics of all test images together."""
    view = load("methods", cell.method).inputs(cell.config)
    labels = np.array([sample.anomalous for sample in samples])
    metrics: dict[str, dict[str, Measured]] = {}
    for category in cell.data.categories:
        members = [i for i, sample in enumerate(samples) if sample.category == category]
        masks = load_masks(benchmark, [samples[i] for i in members], view.resize, view.crop)
        metrics[category] = image_metrics(labels[members], scores[members])
        metrics[category] |= (
            pixel_metrics(masks, maps[members])
            if masks is not None
            else dict.fromkeys(PIXEL_METRICS, Measured(None, benchmark.no_pixel_reason))
        )
    metrics[POOLED] = image_metrics(labels, scores)
    return metrics
