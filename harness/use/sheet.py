"""A page of new images: those that score highest are drawn with their maps, all are listed."""

from __future__ import annotations

import heapq
import io
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.use.predict import Model
from harness.work.pictures import heat
from results.reports.page.new_images import Drawn, new_images

MOST, SIDE, QUALITY = 100, 1280, 75
"""Images that are drawn, pixels of their longer side, quality of their WebP: 25 MB at most."""


class Sheet:
    """The maps of the images that score highest, as far as a page can hold them."""

    def __init__(self, model: Model, category: str | None = None) -> None:
        self.model, self.category = model, category
        self.kept: list[tuple[float, int, Path, NDArray[np.float16]]] = []
        self.seen = 0

    def add(self, path: Path, score: float, map_SS: NDArray[np.float32]) -> None:
        """Keep an image's map, unless `MOST` others score higher."""
        self.seen += 1
        entry = score, -self.seen, path, map_SS.astype(np.float16)
        (heapq.heappush if len(self.kept) < MOST else heapq.heappushpop)(self.kept, entry)

    def page(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The page of all rows of `predict`, as HTML; DataError where an image is gone."""
        model, cell = self.model, self.model.cell
        view = model.method.inputs(cell.config)
        maps = [map_SS for *_, map_SS in self.kept]
        peaks = [held[:, 1].max() for held in model.held.values()] or [np.max(maps, initial=0)]
        low, high = float(np.median(maps)) if maps else 0.0, float(max(peaks))
        drawn = {}
        for _, _, path, map_SS in self.kept:
            image = Image.fromarray(model.pixels(path, self.category))
            image.thumbnail((SIDE, SIDE))
            colours = 255 * heat(map_SS.astype(np.float32), low, high)
            drawn[str(path)] = Drawn(
                _webp(image), _webp(Image.fromarray(colours.round().astype(np.uint8)))
            )
        name = f"{cell.method} {cell.variant}".strip()
        about = f"{name}, {cell.preset}, seed {cell.seed}, learned on {cell.data.label}"
        return new_images(about, rows, drawn, view.side / view.resize)


def _webp(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return b64encode(file.getvalue()).decode()
