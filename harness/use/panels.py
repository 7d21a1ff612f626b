"""Pictures of what a trained model sees: panels of single images, and Figure 5's cloud.

Shape legend: B images, C channels, g grid cells a side, S side of a view, N = B g g locations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks, load_views
from harness.use.predict import Model
from methods.base import Diffuses, Explains

CLOUD_STEPS = (0, 100, 200, 400)
CLOUD_POINTS = 2000


def panel(model: Model, benchmark: Benchmark, sample: Sample) -> Figure:
    """Image, mask and overlaid map of one sample.

    Where the method explains itself, also its distances: original to edited, edited to rebuilt and
    original to rebuilt (the paper's Figure 1), and what else it knows.
    """
    cell, method = model.cell, model.method
    view = method.inputs(cell.config)
    views_13SS = load_views(benchmark, [sample], view.resize, view.crop)
    picture_SS3 = views_13SS[0].transpose(1, 2, 0)
    masks_1SS = load_masks(benchmark, [sample], view.resize, view.crop)
    scores = model.score(views_13SS, [sample.key])
    outline_SS = masks_1SS[0] if masks_1SS is not None and masks_1SS.any() else None
    panels: list[tuple[str, NDArray[Any], str | None]] = [("image", picture_SS3, None)]
    if outline_SS is not None:
        panels = [("image, defect outlined", picture_SS3, "outline"), ("mask", outline_SS, "gray")]
    panels.append(("map", scores.maps[0], "overlay"))
    if isinstance(method, Explains):
        errors = method.explain(model.inputs(views_13SS), [sample.key], cell.knobs)
        panels += [
            (name, error_1gg[0].numpy(), "viridis" if " to " in name else "cividis")
            for name, error_1gg in errors.items()
        ]
    figure = Figure(figsize=(2.6 * len(panels), 3.0), layout="constrained")
    name = f"{cell.method} {cell.variant}".strip()
    figure.suptitle(
        f"{sample.key}: score {float(scores.images[0]):.4g} by {name}, seed {cell.seed}, "
        f"{cell.preset}",
        fontsize=9,
    )
    # One scale for the distances from one to another, or their sizes could not be compared.
    top = max((float(p[1].max()) for p in panels if p[2] == "viridis"), default=1.0)
    axes = np.atleast_1d(figure.subplots(1, len(panels)))
    for axis, (name, values_SS, colours) in zip(axes, panels, strict=True):
        _draw(axis, name, values_SS, colours, picture_SS3, top)
        if colours == "outline" and outline_SS is not None:
            axis.contour(outline_SS, levels=[0.5], colors="tab:red", linewidths=1)
    return figure


def cloud(model: Model, benchmark: Benchmark, samples: Sequence[Sample]) -> Figure | None:
    """Two principal directions of the features at several t, defective places marked (Figure 5).

    None for a method without diffusion.
    """
    method = model.method
    if not isinstance(method, Diffuses):
        return None
    view = model.method.inputs(model.cell.config)
    inputs = model.inputs(load_views(benchmark, samples, view.resize, view.crop))
    keys = [sample.key for sample in samples]
    grid = inputs.shape[-1]
    masks_Bgg = load_masks(benchmark, samples, grid)
    if masks_Bgg is None:
        masks_Bgg = np.zeros((len(samples), grid, grid), bool)
    marked_N = masks_Bgg.reshape(-1)
    figure = Figure(figsize=(2.8 * len(CLOUD_STEPS), 3.0), layout="constrained")
    for axis, t in zip(figure.subplots(1, len(CLOUD_STEPS)), CLOUD_STEPS, strict=True):
        rows_NC = method.corrupted(inputs, keys, t).permute(0, 2, 3, 1).flatten(0, 2)
        _, _, directions_C2 = torch.pca_lowrank(rows_NC, q=2)
        flat_N2 = ((rows_NC - rows_NC.mean(0)) @ directions_C2[:, :2]).numpy()
        few = np.random.default_rng(0).permutation(len(flat_N2))[:CLOUD_POINTS]
        for wanted, colour, name in ((False, "tab:blue", "normal"), (True, "tab:red", "defective")):
            points_N2 = flat_N2[few][marked_N[few] == wanted]
            x, y = points_N2.T
            if not len(points_N2):
                continue  # no entry of the legend without a point
            axis.scatter(x, y, s=3, c=colour, label=name, alpha=0.6)
        axis.set_title(f"t = {t}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw(
    axis: Axes,
    name: str,
    values_SS: NDArray[Any],
    colours: str | None,
    picture_SS3: NDArray[np.uint8],
    top: float,
) -> None:
    axis.set_title(name, fontsize=8)
    axis.axis("off")
    if colours == "overlay":
        axis.imshow(picture_SS3)
        shown = axis.imshow(values_SS, cmap="inferno", alpha=0.55)
    elif colours == "viridis":
        shown = axis.imshow(values_SS, cmap="viridis", vmin=0, vmax=top)
    else:
        shown = axis.imshow(values_SS, cmap=None if colours == "outline" else colours)
    if colours not in (None, "gray", "outline"):
        bar = axis.figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.02)
        bar.ax.tick_params(labelsize=6)
