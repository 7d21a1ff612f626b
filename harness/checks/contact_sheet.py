"""One picture of pseudo-anomalies: the normal image, what became of it, and its outlined mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from benchmarks.base import Sample
from benchmarks.parts.synthesis.pseudo import PseudoValidation

ACROSS = 3
"""Images of a family in a category."""
PANEL, CAPTION = 1.8, 0.25  # inches
LINE = "#ff0050"


def contact_sheet(pseudo: PseudoValidation, anomalous: Sequence[Sample]) -> Figure:
    """A block for each category, a row for each family: up to 3 images, from weak to strong."""
    blocks: dict[str, list[list[Sample]]] = {}
    for category in sorted({sample.category for sample in anomalous}):
        of_category = [sample for sample in anomalous if sample.category == category]
        found = {sample.defect for sample in of_category}
        blocks[category] = [
            [sample for sample in of_category if sample.defect == family]
            for family in pseudo.families
            if family in found
        ]
    heights = [len(rows) * (PANEL + CAPTION) + 2 * CAPTION for rows in blocks.values()]
    figure = Figure((3 * ACROSS * PANEL, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(blocks), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (category, rows) in zip(parts, blocks.items(), strict=True):
        _draw(part, pseudo, category, rows)
    return figure


def _draw(
    block: SubFigure, pseudo: PseudoValidation, category: str, rows: list[list[Sample]]
) -> None:
    block.suptitle(
        f"{category}: {sum(map(len, rows))} pseudo-anomalies; normal, pseudo-anomalous, its mask "
        "outlined",
        x=0.01,
        horizontalalignment="left",
    )
    axes = block.subplots(len(rows), 3 * ACROSS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, samples in zip(axes, rows, strict=True):
        ordered = sorted(samples, key=lambda sample: _strength(pseudo, sample))
        count = min(len(ordered), ACROSS)
        chosen = np.linspace(0, len(ordered) - 1, count).round().astype(int)
        for index, panels in zip(chosen, line.reshape(ACROSS, 3), strict=False):
            _panels(panels, pseudo, ordered[index])


def _strength(pseudo: PseudoValidation, sample: Sample) -> tuple[int, float]:
    if pseudo.target(sample) is None:
        return 0, 0.0
    drawn = pseudo.drawn(sample)
    return drawn.level, drawn.size


def _panels(panels: Sequence[Axes], pseudo: PseudoValidation, sample: Sample) -> None:
    normal, made, outlined = panels
    if (target := pseudo.target(sample)) is None:
        made.imshow(pseudo.read_image(sample))
        made.set_title(f"{sample.defect}: {pseudo.plan_of(sample).image.category}", fontsize=8)
        return
    normal.imshow(pseudo.read_image(target))
    made.imshow(pseudo.read_image(sample))
    outlined.imshow(pseudo.read_image(sample))
    outlined.contour(pseudo.read_mask(sample), levels=[0.5], colors=LINE, linewidths=1)
    drawn = pseudo.drawn(sample)
    made.set_title(
        f"{drawn.family} {drawn.level}, {100 * drawn.size:.2g} %: {' + '.join(drawn.shapes)}, "
        f"{drawn.blending}, {drawn.position}",
        fontsize=8,
    )
