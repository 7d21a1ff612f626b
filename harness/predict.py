"""A trained model on new images, without Ray and without the data that it learned from.

    from harness.predict import load

    model = load("results/runs/models/0123456789abcdef")
    scores = model(["part-1.png", "part-2.png"])      # paths, PIL images or (H, W, 3) uint8 arrays
    alarms = scores.images > model.threshold(alpha=0.01)

The model is a folder below `OUT/models`, or what `lafite-bench export` wrote. Calibrated ones (`run
--calibrate`) know where alarms begin: see `results.calibration` for what is promised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.parts.content import map_threads
from benchmarks.parts.decode import SIXTEEN_BITS, is_deep, read_rgb
from benchmarks.parts.images import view_of
from harness.cache import FeatureCache
from harness.features import as_input, extract
from harness.registry import UsageError, first_line
from harness.registry import load as plug_in
from harness.store.checkpoints import load_whole, read_state
from methods.base import Method, quiet
from methods.parts.backbone import (
    Extractor,
    Features,
    Pixels,
    WeightsMissing,
    file_sha256,
    find_weights,
)
from results.calibration import p_values, threshold
from results.files import record_in

BATCH = 8
"""Images that are scored at once, as in a run on a CPU."""
BACKBONE = "backbone"
"""Begins the name of the backbone's weights in an exported folder."""
Picture = str | Path | Image.Image | NDArray[np.uint8]


class Scores(NamedTuple):
    """Of N images; larger is more anomalous."""

    images: NDArray[np.float32]
    """(N,)"""
    maps: NDArray[np.float32]
    """(N, S, S), at the resolution of the model's view."""


@dataclass(frozen=True)
class Model:
    """A trained method, its settings and what was held out from it."""

    folder: Path
    method: Method
    knobs: Any
    name: str
    held: Mapping[str, NDArray[np.float64]]
    """By category, scores and highest map values (n, 2) of the held-out normal images."""
    whites: Mapping[str, float]
    extractor: Extractor | None
    record: Mapping[str, Any]

    @property
    def categories(self) -> list[str]:
        """What it learned."""
        return list(self.record["categories"])

    def __call__(self, images: Sequence[Picture], category: str | None = None) -> Scores:
        """Scores; DataError for a file that is no image, ValueError for an array of another shape.

        `category` says which of those learned deep images are of; 8-bit ones need none.
        """
        pieces = [Scores(np.empty(0, np.float32), np.empty((0, 0, 0), np.float32))]
        for start in range(0, len(images), BATCH):
            piece = images[start : start + BATCH]
            views = np.stack([*map_threads(partial(self.view, category=category), piece)])
            names = [Path(i).name if isinstance(i, (str, Path)) else "" for i in piece]
            pieces.append(self.score(views, names))
        return Scores(*map(np.concatenate, zip(*(pieces[1:] or pieces), strict=True)))

    def score(self, views_B3SS: NDArray[np.uint8], names: Sequence[str]) -> Scores:
        """Scores of what `view` made of a few images; a name is what random draws derive from."""
        values = as_input(views_B3SS)
        if self.extractor is not None:
            values = as_input(extract(self.extractor, views_B3SS))
        with torch.no_grad():
            scores = self.method.score(values.to(self.method.device), names, self.knobs)
        return Scores(scores.images.cpu().numpy(), scores.maps.cpu().numpy())

    def view(self, image: Picture, category: str | None = None) -> NDArray[np.uint8]:
        """What the model sees of an image, (3, S, S)."""
        wanted = self.method.inputs(self.method.config)
        return view_of(self._pixels(image, category), wanted.resize, wanted.crop)

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

    def _pixels(self, image: Picture, category: str | None) -> NDArray[np.uint8]:
        if isinstance(image, (str, Path)):
            path = Path(image)
            return read_rgb(path, self._white(category)) if is_deep(path) else read_rgb(path)
        pixels = np.asarray(image.convert("RGB") if isinstance(image, Image.Image) else image)
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
            raise ValueError(f"an image of {pixels.dtype} {pixels.shape}: give (H, W, 3) uint8")
        return pixels

    def _white(self, category: str | None) -> float:
        if category is None and len(set(self.whites.values())) > 1:
            raise ValueError("categories are of different depths: name the image's category")
        found = self.whites.get(category) if category else next(iter(self.whites.values()), None)
        return SIXTEEN_BITS if found is None else found


def load(folder: str | Path, cell: str | None = None, device: str | None = None) -> Model:
    """A trained model; of several cells that used it the newest, or that of this id.

    UsageError where there is none, it is damaged, its code has changed, or its backbone's weights
    are not here.
    """
    folder = Path(folder)
    record, use = _records(folder, cell)
    declared = plug_in("methods", record["method"])
    try:
        config = settings(declared.method.Config, record["config"])
        knobs = settings(declared.method.Knobs, use["knobs"])
        method: Method = declared.method(config, seed=record["seed"])
        load_whole(method, read_state(folder / "model.safetensors", record["sha256"]))
    except FileNotFoundError as error:
        raise UsageError(f"{folder}: holds no whole model ({error.filename} is missing)") from None
    except (ValueError, KeyError, TypeError) as error:
        why = first_line(error)
        raise UsageError(f"{folder}: can't be loaded ({why}); train it again") from None
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return Model(
        folder,
        method.to(target).eval(),
        knobs,
        record["method"],
        _held(use["held"]),
        use.get("whites", {}),
        _extractor(folder, method, use["weights_sha256"], target),
        record | use,
    )


def settings(kind: type, values: Mapping[str, Any]) -> Any:
    """A Config or Knobs from JSON, where tuples came back as lists."""
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def _records(folder: Path, cell: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
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
        record = record_in((folder / "fit.json").read_bytes(), "method", "config", "seed", "sha256")
        return record, record_in(chosen[-1].read_bytes(), "knobs", "held", "weights_sha256")
    except (OSError, ValueError) as error:
        raise UsageError(f"{folder}: its records can't be read ({error})") from None


def _held(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[np.float64]]:
    names = dict.fromkeys(row["category"] for row in rows)
    return {
        name: np.array([(r["score"], r["peak"]) for r in rows if r["category"] == name])
        for name in names
    }


def backbone_of(model: Model) -> Path | None:
    """The file of its backbone's weights; None for a method that reads pixels."""
    return _backbone(model.folder, model.method.inputs(model.method.config))


def _backbone(folder: Path, view: Features | Pixels) -> Path | None:
    own = sorted(folder.glob(f"{BACKBONE}.*"))
    if not isinstance(view, Features):
        return None
    return own[0] if own else find_weights(view)


def _extractor(folder: Path, method: Method, sha256: str, device: torch.device) -> Extractor | None:
    """The backbone, with the weights of the folder or those that the settings name."""
    view = method.inputs(method.config)
    try:
        path = _backbone(folder, view)
    except WeightsMissing as error:
        raise UsageError(f"{folder}: {error}") from None
    if path is None or not isinstance(view, Features):
        return None
    if file_sha256(path) != sha256:
        raise UsageError(f"{path}: other weights than the model learned with")
    program = FeatureCache.default().program(view, path, sha256, device, quiet)
    return Extractor(view, path, program).to(device).eval()
