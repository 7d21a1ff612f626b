"""A trained model on new images, without Ray and without the data that it learned from.

    from harness.use.predict import load

    model = load("results/runs/models/0123456789abcdef")
    scores = model(["part-1.png", "part-2.png"])      # paths, PIL images or (H, W, 3) uint8 arrays
    alarms = scores.images > model.threshold(alpha=0.01)

The model is a folder below `OUT/models`, or what `lafite-bench export` wrote. Calibrated ones (`run
--calibrate`) know where alarms begin: see `results.calibration` for what is promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.parts.content import map_threads
from benchmarks.parts.decode import read_rgb
from benchmarks.parts.images import view_of
from harness.plan.cell import Cell, cell_in
from harness.plan.options import is_address
from harness.plan.overrides import PATHS
from harness.plan.registry import UsageError, first_line
from harness.plan.registry import load as plug_in
from harness.store.store import load_state
from harness.work.cache import FeatureCache
from harness.work.copies import input_of
from harness.work.features import inputs_of
from methods.base import Method
from methods.parts.backbone import (
    Extractor,
    Features,
    WeightsMissing,
    file_sha256,
    find_weights,
)
from methods.parts.progress import quiet
from results.calibration import p_values, threshold
from results.files import record_in

BATCH = 8
"""Images that are scored at once, as in a run on a CPU."""
BACKBONE = "backbone"
"""Begins the name of the backbone's weights in an exported folder."""
Picture = str | Path | Image.Image | NDArray[np.uint8]


class Scores(NamedTuple):
    """Scores of N images; larger is more anomalous."""

    images: NDArray[np.float32]
    """(N,)"""
    maps: NDArray[np.float32]
    """(N, S, S), at the resolution of the model's view."""


@dataclass(frozen=True)
class Model:
    """A trained method, its settings and what was held out from it."""

    folder: Path
    cell: Cell
    method: Method
    extractor: Extractor | None
    """The frozen backbone whose features the method reads; None for one that reads pixels."""
    held: Mapping[str, NDArray[np.float64]]
    """Scores and highest map values (n, 2) of the held-out normal images, by category."""
    whites: Mapping[str, float | None]
    record: Mapping[str, Any]
    """All that is noted with it and its cell."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories that it learned."""
        return self.cell.data.categories

    def __call__(self, images: Sequence[Picture], category: str | None = None) -> Scores:
        """Scores; DataError for a file that is no image, ValueError for an array of another shape.

        `category` says which of those learned deep images are of; 8-bit ones need none.
        """
        pieces = [Scores(np.empty(0, np.float32), np.empty((0, 0, 0), np.float32))]
        for start in range(0, len(images), BATCH):
            piece = images[start : start + BATCH]
            views = np.stack([*map_threads(partial(self.view, category=category), piece)])
            pieces.append(self.score(views))
        return Scores(*map(np.concatenate, zip(*(pieces[1:] or pieces), strict=True)))

    def score(self, views_B3SS: NDArray[np.uint8]) -> Scores:
        """Scores of what `view` made of a few images."""
        with torch.no_grad():
            scores = self.method.score(self.inputs(views_B3SS), self.cell.knobs)
        return Scores(scores.images.cpu().numpy(), scores.maps.cpu().numpy())

    def inputs(self, views_B3SS: NDArray[np.uint8]) -> Tensor:
        """The method's inputs of these views."""
        return inputs_of(views_B3SS, self.extractor).to(self.method.device)

    def view(self, image: Picture, category: str | None = None) -> NDArray[np.uint8]:
        """The model's view of an image, (3, S, S)."""
        wanted = self.method.inputs(self.method.config)
        return view_of(self.pixels(image, category), wanted.resize, wanted.crop)

    def threshold(
        self, alpha: float, category: str | None = None, *, pixels: bool = False
    ) -> float:
        """Above this score an image is an alarm, and with `pixels` a pixel is.

        Of a category, else one for all. At most this share of normal images raises one, or shows
        one such pixel. ValueError with too few held-out images.
        """
        return threshold(self._held(category)[:, int(pixels)], alpha)

    def p_values(self, scores_N: NDArray[np.float32], category: str | None = None) -> NDArray[Any]:
        """The conformal p-value of each image score; ValueError without held-out images."""
        return p_values(self._held(category)[:, 0], scores_N)

    def _held(self, category: str | None) -> NDArray[np.float64]:
        if not self.held:
            raise ValueError(
                f"{self.folder}: not calibrated; train it by `lafite-bench run --calibrate 0.1`"
            )
        if category is None:
            return np.concatenate(list(self.held.values()))
        if category not in self.held:
            raise ValueError(f"{category}: not learned; there are: {', '.join(self.held)}")
        return self.held[category]

    def pixels(self, image: Picture, category: str | None = None) -> NDArray[np.uint8]:
        """An image as `view` takes it, (H, W, 3); errors as those of a call."""
        if isinstance(image, (str, Path)):
            return read_rgb(Path(image), lambda: self._white(category))
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"an image of {pixels.dtype} {pixels.shape}: give (H, W, 3) uint8")
        return pixels

    def _white(self, category: str | None) -> float | None:
        if category is None and len(set(self.whites.values())) > 1:
            raise ValueError("categories are of different depths: name the image's category")
        return self.whites.get(category) if category else next(iter(self.whites.values()), None)


def load(folder: str | Path, cell: str | None = None, device: str | None = None) -> Model:
    """A trained model; of several cells that used it the newest, or that of this id.

    UsageError where there is none, it is damaged, its code has changed, or its backbone's weights
    are not here.
    """
    folder = Path(folder)
    record = record_of(folder, cell)
    known = cell_of(folder, record)
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    with _loading(folder):
        method: Method = plug_in("methods", known.method).method(known.config, seed=known.seed)
        facts = load_state(folder, method)
        held, whites = _held(record["held"]), dict(record["whites"])
    view = method.inputs(known.config)
    views = [view] if isinstance(view, Features) else []
    of = known.weights, known.weights_sha256
    extractor = FeatureCache.default().extractor(views, *of, target, quiet)
    return Model(folder, known, method.to(target).eval(), extractor, held, whites, facts | record)


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """UsageError in place of what a folder raises that is not whole, or that no run wrote."""
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no whole model ({error.filename} is missing)") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = first_line(error)
        raise UsageError(f"{folder}: can't be loaded ({why}); train it again") from None


def record_of(folder: Path, cell: str | None) -> dict[str, Any]:
    """The record of a cell that used the model in a folder: the newest, or that of this id.

    UsageError where there is none.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name one below OUT/models, or an exported one")
    uses = sorted((folder / "cells").glob("*.json"), key=lambda path: path.stat().st_mtime)
    chosen = [path for path in uses if cell in (None, path.stem)]
    if not chosen:
        there = ", ".join(path.stem for path in uses) or "none"
        raise UsageError(
            f"{folder}: no model that a finished cell{f' {cell}' if cell else ''} used (cells: "
            f"{there}); run the cell again with --overwrite"
        )
    try:
        return record_in(chosen[-1].read_bytes(), "cell", "whites", "held")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: its records can't be read ({error})") from None


def cell_of(
    folder: Path,
    record: Mapping[str, Any],
    placed: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Cell:
    """The cell of a record, with the weights of its backbone: the folder's, or those that its
    settings name; UsageError where they are not here, or others than it learned with.

    `placed` is given what is noted of the data, and says where it lies here.
    """
    with _loading(folder):
        here = {"config": with_copies(record["config"], PATHS), "data": placed(record["data"])}
        known = cell_in({**record, **here})
        view = plug_in("methods", known.method).method.inputs(known.config)
    if not isinstance(view, Features):
        return known
    own = sorted(folder.glob(f"{BACKBONE}.*"))
    try:
        path = own[0] if own else find_weights(view)
    except WeightsMissing as error:
        raise UsageError(f"{folder}: {error}") from None
    if file_sha256(path) != known.weights_sha256:
        raise UsageError(f"{path}: other weights than the model learned with")
    return replace(known, weights=path)


def with_copies(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Values with copies on this machine for those of the named addresses that are URIs."""
    return {
        name: str(input_of(FeatureCache.default().root / "inputs", value))
        if name in names and isinstance(value, str) and is_address(value)
        else value
        for name, value in values.items()
    }


def _held(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    names = dict.fromkeys(row["category"] for row in rows)
    return {
        name: np.array([(r["score"], r["peak"]) for r in rows if r["category"] == name])
        for name in names
    }
