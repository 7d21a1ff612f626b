"""Small pictures of some of a category's images and their maps, kept with a cell for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_masks, load_views
from harness.store.store import Row
from methods.parts.backbone import Pixels
from results.evidence import ALARM, COMMON, FOUND, MISS, f1max_threshold

WORST, BEST, SHARED = 3, 2, 4
"""Pictures of a category: misses and false alarms each, found defects, images of all methods."""
SIZE, QUALITY = 192, 75  # pixels, of WebP: 5 to 10 kB an image with its mask and map
HEADROOM = 6
"""How far above the level a kept map reaches, as a multiple of the level's height."""
STRENGTH = 0.8
"""How much a map's highest value covers the image."""


def chosen(samples: Sequence[Sample], scores_N: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Indices and kinds of the images to keep, each image once.

    MISS and ALARM come the worst first, FOUND the best first. COMMON are mostly defective, evenly
    over the order of the data set.
    """
    rising = np.argsort(scores_N, kind="stable")
    defective = [int(i) for i in rising if samples[i].anomalous]
    normal = [int(i) for i in rising if not samples[i].anomalous]
    shared = _evenly(sorted(defective), SHARED - 1) + _evenly(sorted(normal), 1)
    kept: dict[int, str] = {}
    for kind, indices in (
        (MISS, defective[:WORST]),
        (ALARM, normal[::-1][:WORST]),
        (FOUND, defective[::-1][:BEST]),
        (COMMON, shared),
    ):
        for index in indices:
            kept.setdefault(index, kind)
    return list(kept.items())


def picture_rows(
    cell_id: str,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    view: Pixels,
    scores_N: NDArray[np.float64],
    maps_NHW: NDArray[np.float32],
) -> list[Row]:
    """Rows of `results.evidence.PICTURES_SCHEMA` for one category, as the model saw its images.

    One scale for all of a category's maps, from their median.
    """
    picked = chosen(samples, scores_N)
    shown = [samples[i] for i, _ in picked]
    views = load_views(benchmark, shown, view.resize, view.crop)
    masks = load_masks(benchmark, shown, view.resize, view.crop)
    scale = _scale(np.array([sample.anomalous for sample in samples]), scores_N, maps_NHW)
    rows = []
    for place, (sample, (index, kind)) in enumerate(zip(shown, picked, strict=True)):
        share_HW = (maps_NHW[index] - scale["low"]) / max(scale["high"] - scale["low"], 1e-12)
        rows.append(
            {
                "cell_id": cell_id,
                "category": sample.category,
                "key": sample.key,
                "defect": sample.defect,
                "kind": kind,
                "score": float(scores_N[index]),
                "image": _webp(views[place].transpose(1, 2, 0)),
                "mask": _webp(masks[place]) if sample.anomalous and masks is not None else None,
                "map": _webp((255 * share_HW.clip(0, 1)).round().astype(np.uint8)),
                "licence": benchmark.licence,
                "source": benchmark.source,
            }
            | scale
        )
    return rows


def _scale(
    labels_N: NDArray[np.bool_], scores_N: NDArray[np.float64], maps_NHW: NDArray[np.float32]
) -> dict[str, float]:
    """low, high and level of a category's maps, see `results.evidence.PICTURES_SCHEMA`."""
    low, top = float(np.median(maps_NHW[:, ::4, ::4])), float(maps_NHW.max())
    called = np.count_nonzero(scores_N >= f1max_threshold(labels_N, scores_N))
    level = float(np.sort(maps_NHW.max(axis=(1, 2)))[-called])
    # One extreme image would leave all others without a shade between the median and the level.
    high = max(min(top, low + HEADROOM * (level - low)), level)
    return {"low": low, "high": high, "level": level}


def _evenly(indices: Sequence[int], count: int) -> list[int]:
    """So many of the indices at most, from the middles of equal parts."""
    parts = np.array_split(np.asarray(indices, dtype=int), min(count, len(indices)) or 1)
    return [int(part[len(part) // 2]) for part in parts if len(part)]


def heat(map_HW: NDArray[np.float32], low: float, high: float) -> NDArray[np.float64]:
    """The map's colours and opacity (H, W, 4) in [0, 1]: clear at `low`, strongest from `high`."""
    share_HW = ((map_HW - low) / max(high - low, 1e-12)).clip(0, 1)
    colours_HW4: NDArray[np.float64] = colormaps["inferno"](share_HW)
    colours_HW4[..., 3] = STRENGTH * share_HW
    return colours_HW4


def overlay(
    pixels_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32], low: float, high: float
) -> NDArray[np.uint8]:
    """The map over the image, (H, W, 3), in the colours of `heat`."""
    colours_HW4 = heat(map_HW, low, high)
    cover_HW1 = colours_HW4[..., 3:]
    mixed_HW3 = cover_HW1 * 255 * colours_HW4[..., :3] + (1 - cover_HW1) * pixels_HW3
    return mixed_HW3.round().astype(np.uint8)


def _webp(pixels: NDArray[Any]) -> bytes:
    """A picture (H, W, 3) or map (H, W) uint8, or a mask (H, W) bool, scaled down to SIZE.

    Masks are lossless.
    """
    is_mask = pixels.dtype == bool
    image = Image.fromarray(pixels.astype(np.uint8) * 255 if is_mask else pixels)
    image.thumbnail((SIZE, SIZE), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, lossless=is_mask)
    return file.getvalue()
