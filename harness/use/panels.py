"""A picture of what a trained model sees of an image.

Shape legend: g grid cells a side, S side of a view.
"""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks, load_views
from harness.use.predict import Model
from methods.base import Explains


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
    outlined = masks_1SS is not None and bool(masks_1SS.any())
    scores = model.score(views_13SS)
    errors = {}
    if isinstance(method, Explains):
        errors = method.explain(model.inputs(views_13SS), cell.knobs)
    count = 2 + outlined + len(errors)
    figure = Figure(figsize=(2.6 * count, 3.0), layout="constrained")
    name = f"{cell.method} {cell.variant}".strip()
    figure.suptitle(
        f"{sample.key}: score {float(scores.images[0]):.4g} by {name}, seed {cell.seed}, "
        f"{cell.preset}",
        fontsize=9,
    )
    axes = iter(figure.subplots(1, count))

    def draw(title: str, values: Any, **how: Any) -> AxesImage:
        axis = next(axes)
        axis.set_title(title, fontsize=8)
        axis.axis("off")
        image: AxesImage = axis.imshow(values, **how)
        return image

    def explained(image: AxesImage) -> None:
        bar = figure.colorbar(image, ax=image.axes, fraction=0.046, pad=0.02)
        bar.ax.tick_params(labelsize=6)

    if masks_1SS is not None and outlined:
        axis = draw("image, defect outlined", picture_SS3).axes
        axis.contour(masks_1SS[0], levels=[0.5], colors="tab:red", linewidths=1)
        draw("mask", masks_1SS[0], cmap="gray")
    else:
        draw("image", picture_SS3)
    below = draw("map", picture_SS3)
    explained(below.axes.imshow(scores.maps[0], cmap="inferno", alpha=0.55))
    # One scale for the distances from one to another, or their sizes could not be compared.
    top = max((float(e.max()) for name, e in errors.items() if " to " in name), default=1.0)
    for name, error_1gg in errors.items():
        how = {"cmap": "viridis", "vmin": 0, "vmax": top} if " to " in name else {"cmap": "cividis"}
        explained(draw(name, error_1gg[0].numpy(), **how))
    return figure
