"""Small pictures of a category's worst images, kept with a cell for the report."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.images import load_views
from harness.store.store import Row
from methods.parts.backbone import Pixels
from results.evidence import ALARM, MISS

WORST = 3
"""Pictures of each kind and category."""
SIZE, QUALITY = 192, 75  # pixels, of WebP: 5 to 12 kB an image with its mask and map
STRENGTH = 0.8
"""How much a map's highest value covers the image."""


def worst(samples: Sequence[Sample], scores_N: NDArray[np.float64]) -> list[tuple[int, str]]:
    """Indices of the defective images with the lowest scores and the normal ones with the highest,
    each beside MISS or ALARM; the worst first."""
    rising = np.argsort(scores_N, kind="stable")
    misses = [int(i) for i in rising if samples[i].anomalous]
    alarms = [int(i) for i in rising[::-1] if not samples[i].anomalous]
    return [(i, MISS) for i in misses[:WORST]] + [(i, ALARM) for i in alarms[:WORST]]


def picture_rows(
    cell_id: str,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    view: Pixels,
    scores_N: NDArray[np.float64],
    masks_NHW: NDArray[np.bool_] | None,
    maps_NHW: NDArray[np.float32],
) -> list[Row]:
    """Rows of `results.evidence.PICTURES_SCHEMA` for one category, as the model saw its images.

    One scale for all of a category's maps: from their median to their highest value.
    """
    chosen = worst(samples, scores_N)
    views = load_views(benchmark, [samples[i] for i, _ in chosen], view.resize, view.crop)
    low, high = float(np.median(maps_NHW[:, ::4, ::4])), float(maps_NHW.max())
    rows = []
    for (index, kind), pixels in zip(chosen, views.transpose(0, 2, 3, 1), strict=True):
        sample = samples[index]
        rows.append(
            {
                "cell_id": cell_id,
                "category": sample.category,
                "key": sample.key,
                "defect": sample.defect,
                "kind": kind,
                "score": float(scores_N[index]),
                "image": _webp(pixels),
                "mask": _webp(masks_NHW[index])
                if sample.anomalous and masks_NHW is not None
                else None,
                "overlay": _webp(overlay(pixels, maps_NHW[index], low, high)),
                "licence": benchmark.licence,
                "source": benchmark.source,
            }
        )
    return rows


def overlay(
    pixels_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32], low: float, high: float
) -> NDArray[np.uint8]:
    """The map over the image, (H, W, 3): clear at `low` and below, strongest from `high`."""
    share_HW = ((map_HW - low) / max(high - low, 1e-12)).clip(0, 1)
    colours_HW3 = 255 * colormaps["inferno"](share_HW)[..., :3]
    cover_HW1 = STRENGTH * share_HW[..., None]
    mixed_HW3: NDArray[np.uint8] = (
        (cover_HW1 * colours_HW3 + (1 - cover_HW1) * pixels_HW3).round().astype(np.uint8)
    )
    return mixed_HW3


def _webp(pixels: NDArray[Any]) -> bytes:
    """A picture (H, W, 3) uint8 or a mask (H, W) bool, scaled down to SIZE; masks are lossless."""
    is_mask = pixels.dtype == bool
    image = Image.fromarray(pixels.astype(np.uint8) * 255 if is_mask else pixels)
    image.thumbnail((SIZE, SIZE), Image.Resampling.BOX)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY, lossless=is_mask)
    return file.getvalue()
