"""Pictures of what a trained model sees: panels of single images, and Figure 5's cloud."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks, load_views
from harness.cell import Cell, Held
from harness.features import extract
from harness.plan import kept, pieces
from harness.registry import UsageError, did_you_mean, load
from harness.store.store import Store
from methods.base import Method
from methods.parts.backbone import Extractor, Features
from results.table import DONE, read, scores_path

WORST, ALARMS = 3, 2
"""Shown by default: the lowest-scored defective images and the highest-scored normal ones."""
CLOUD_STEPS = (0, 100, 200, 400)
CLOUD_POINTS = 2000


def show(
    out: Path, folder: Path, *, method: str, seed: int, category: str, image: str | None
) -> list[Path]:
    """Write PNG files for one finished cell; returns their paths.

    Each image has a panel (image, mask, overlaid map and, where the method explains itself, the
    distances original to edited, edited to rebuilt, original to rebuilt: the paper's Figure 1).
    A method with diffusion adds `cloud.png`, the features at several t (Figure 5).
    """
    store = Store(out)
    cell = find_cell(store, method, seed, category)
    benchmark = cell.data.open()
    model: Method = load("methods", method)(cell.config, seed=seed)
    if store.load_model(cell, model) is None:
        raise UsageError(
            f"{store.model(cell)}: the model is damaged, and was moved aside; "
            "run the cell again with --overwrite"
        )
    model.eval()
    samples = [s for s in benchmark.test(cell.data.categories) if s.category == category]
    chosen = _chosen(store, cell, samples, image)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sample in chosen:
        path = folder / (sample.key.replace("/", "_").rsplit(".", 1)[0] + ".png")
        _panel(model, cell, benchmark, sample).savefig(path, dpi=110)
        written.append(path)
    cloud = _cloud(model, cell, benchmark, chosen)
    if cloud is not None:
        cloud.savefig(folder / "cloud.png", dpi=110)
        written.append(folder / "cloud.png")
    return written


def find_cell(store: Store, method: str, seed: int, category: str) -> Cell:
    """The newest finished cell with a model; UsageError if there is none or its data changed."""
    try:
        frame = read(store.out).filter(pl.col("status") == DONE)
    except ValueError as error:
        raise UsageError(str(error)) from None
    for column, wanted in (("method", method), ("seed", seed), ("category", category)):
        there = [str(value) for value in frame[column].unique().sort()]
        frame = frame.filter(pl.col(column) == wanted)
        if frame.is_empty():
            hint = did_you_mean(str(wanted), there)
            raise UsageError(f"{store.out}: no finished cell with {column} '{wanted}'; {hint}")
    row = frame.sort("finished_at").row(-1, named=True)
    for noted in store.models():
        if noted["method"] != method or noted["seed"] != seed:
            continue
        cell = _rebuilt(row, noted)
        if cell is not None and cell.cell_id == row["cell_id"]:
            return cell
    raise UsageError(
        f"{store.out}: the model of cell {row['cell_id']} is gone or its data changed since; "
        "run it again with --overwrite"
    )


def _rebuilt(row: dict[str, Any], noted: dict[str, Any]) -> Cell | None:
    """The cell of a row, from what its model's folder says about the data."""
    of = load("methods", row["method"])
    config = _values(of.Config, json.loads(row["config_json"]))
    root = Path(noted["root"]) if noted["root"] else None
    categories = noted["categories"]
    held = noted.get("held")
    for data in pieces(noted["benchmark"], root, categories, row["mode"]):
        cell = Cell(
            data=kept(data, Held(*held)) if held else data,
            mode=row["mode"],
            method=row["method"],
            variant=row["variant"],
            preset=row["preset"],
            config=config,
            knobs=_values(of.Knobs, json.loads(row["knobs_json"])),
            seed=row["seed"],
            weights=Path(noted["weights"]) if noted["weights"] else None,
            weights_sha256=row["weights_sha256"],
        )
        if cell.cell_id == row["cell_id"]:
            return cell
    return None


def _values(of: type, plain: dict[str, Any]) -> Any:
    """A Config or Knobs from its JSON, where tuples came back as lists."""
    return of(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})


def _chosen(store: Store, cell: Cell, samples: Sequence[Sample], image: str | None) -> list[Sample]:
    by_key = {sample.key: sample for sample in samples}
    if image is not None:
        matches = [key for key in by_key if key == image or key.endswith(Path(image).name)]
        if not matches:
            raise UsageError(f"--image {image}: {did_you_mean(image, sorted(by_key)[:20])}")
        return [by_key[matches[0]]]
    scores = pl.read_parquet(scores_path(store.out, cell.cell_id))
    mine = scores.filter(pl.col("key").is_in(list(by_key)))
    misses = mine.filter(pl.col("label")).sort("score").head(WORST)["key"]
    alarms = mine.filter(~pl.col("label")).sort("score", descending=True).head(ALARMS)["key"]
    return [by_key[key] for key in [*misses, *alarms]]


def _inputs(cell: Cell, benchmark: Benchmark, samples: Sequence[Sample]) -> Tensor:
    inputs = load("methods", cell.method).inputs(cell.config)
    views = load_views(benchmark, samples, inputs.resize, inputs.crop)
    if not isinstance(inputs, Features) or cell.weights is None:
        return torch.from_numpy(views).float() / 255
    return torch.from_numpy(extract(Extractor(inputs, cell.weights), views)).float()


def _panel(model: Method, cell: Cell, benchmark: Benchmark, sample: Sample) -> Figure:
    view = load("methods", cell.method).inputs(cell.config)
    picture = load_views(benchmark, [sample], view.resize, view.crop)[0].transpose(1, 2, 0)
    masks = load_masks(benchmark, [sample], view.resize, view.crop)
    inputs = _inputs(cell, benchmark, [sample])
    scores = model.score(inputs, [sample.key], cell.knobs)
    panels: list[tuple[str, NDArray[Any], str | None]] = [("image", picture, None)]
    if masks is not None:
        panels.append(("mask", masks[0], "gray"))
    panels.append(("map", scores.maps[0].numpy(), "overlay"))
    for name, error in model.explain(inputs, [sample.key], cell.knobs).items():
        panels.append((name, error[0].numpy(), "viridis"))
    figure = Figure(figsize=(2.6 * len(panels), 3.0), layout="constrained")
    figure.suptitle(f"{sample.key}   score {float(scores.images[0]):.3f}", fontsize=9)
    # One scale for the three distances, or their sizes could not be compared.
    top = max((float(p[1].max()) for p in panels if p[2] == "viridis"), default=1.0)
    for axis, (name, values, colours) in zip(
        np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True
    ):
        _draw(axis, name, values, colours, picture, top)
    return figure


def _draw(
    axis: Axes,
    name: str,
    values: NDArray[Any],
    colours: str | None,
    picture: NDArray[np.uint8],
    top: float,
) -> None:
    axis.set_title(name, fontsize=8)
    axis.axis("off")
    if colours == "overlay":
        axis.imshow(picture)
        axis.imshow(values, cmap="inferno", alpha=0.55)
    elif colours == "viridis":
        axis.imshow(values, cmap="viridis", vmin=0, vmax=top)
    else:
        axis.imshow(values, cmap=colours)


def _cloud(
    model: Method, cell: Cell, benchmark: Benchmark, samples: Sequence[Sample]
) -> Figure | None:
    """Two principal directions of the features at several t, defective places marked."""
    inputs = _inputs(cell, benchmark, samples)
    keys = [sample.key for sample in samples]
    if model.corrupted(inputs[:1], keys[:1], 0) is None:
        return None
    grid = inputs.shape[-1]
    masks = load_masks(benchmark, samples, grid)
    marked = np.zeros(len(samples) * grid * grid, bool) if masks is None else masks.reshape(-1)
    figure = Figure(figsize=(2.8 * len(CLOUD_STEPS), 3.0), layout="constrained")
    for axis, t in zip(figure.subplots(1, len(CLOUD_STEPS)), CLOUD_STEPS, strict=True):
        features = model.corrupted(inputs, keys, t)
        assert features is not None
        rows = features.permute(0, 2, 3, 1).flatten(0, 2)
        _, _, directions = torch.pca_lowrank(rows, q=2)
        flat = ((rows - rows.mean(0)) @ directions[:, :2]).numpy()
        few = np.random.default_rng(0).permutation(len(flat))[:CLOUD_POINTS]
        for wanted, colour, name in ((False, "tab:blue", "normal"), (True, "tab:red", "defective")):
            points = flat[few][marked[few] == wanted]
            axis.scatter(points[:, 0], points[:, 1], s=3, c=colour, label=name, alpha=0.6)
        axis.set_title(f"t = {t}", fontsize=9)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
