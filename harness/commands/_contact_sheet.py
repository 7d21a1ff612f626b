"""One picture of pseudo-anomalies: the normal image, what became of it, and its outlined mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure, SubFigure

from benchmarks.base import Sample
from benchmarks.parts.synthesis.pseudo import PseudoValidation

ACROSS, DOWN = 3, 4
"""Images of a category."""
PANEL, CAPTION = 1.8, 0.25  # inches
LINE = "#ff0050"


def contact_sheet(pseudo: PseudoValidation, anomalous: Sequence[Sample]) -> Figure:
    """A block for each category: up to 12 images, evenly over their sizes, the smallest first."""
    by_category = {
        category: [sample for sample in anomalous if sample.category == category]
        for category in sorted({sample.category for sample in anomalous})
    }
    rows = [-(-min(len(samples), ACROSS * DOWN) // ACROSS) for samples in by_category.values()]
    heights = [down * (PANEL + CAPTION) + 2 * CAPTION for down in rows]
    figure = Figure((3 * ACROSS * PANEL, sum(heights)), layout="constrained")
    blocks = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for block, down, (category, samples) in zip(blocks, rows, by_category.items(), strict=True):
        samples.sort(key=lambda sample: pseudo.drawn(sample).size)
        _draw(block, down, pseudo, category, samples)
    return figure


def _draw(
    block: SubFigure, down: int, pseudo: PseudoValidation, category: str, samples: list[Sample]
) -> None:
    count = min(len(samples), ACROSS * DOWN)
    chosen = np.linspace(0, len(samples) - 1, count).round().astype(int)
    block.suptitle(
        f"{category}: {count} of {len(samples)}; normal, pseudo-anomalous, its mask outlined",
        x=0.01,
        horizontalalignment="left",
    )
    axes = block.subplots(down, 3 * ACROSS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, (normal, made, outlined) in zip(chosen, axes.reshape(-1, 3), strict=False):
        sample = samples[index]
        normal.imshow(pseudo.read_image(pseudo.target(sample)))
        made.imshow(pseudo.read_image(sample))
        outlined.imshow(pseudo.read_image(sample))
        outlined.contour(pseudo.read_mask(sample), levels=[0.5], colors=LINE, linewidths=1)
        made.set_title(_caption(pseudo, sample), fontsize=8)


def _caption(pseudo: PseudoValidation, sample: Sample) -> str:
    drawn = pseudo.drawn(sample)
    return (
        f"{' + '.join(drawn.shapes)}, {100 * drawn.size:.3g} %, contrast {drawn.contrast:g}, "
        f"{drawn.blending}, {drawn.position}"
    )
