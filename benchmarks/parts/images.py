"""Images and masks as a model sees them: one square size, stacked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, Sample
from benchmarks.parts.content import map_threads


def load_views(
    benchmark: Benchmark, samples: Sequence[Sample], resize: int, crop: int | None = None
) -> NDArray[np.uint8]:
    """Images (N, 3, S, S) uint8, S = crop or resize.

    Pillow's bilinear resize to (resize, resize), which averages when it shrinks, then the centre.
    DataError for an image that cannot be read, ValueError for a crop larger than the resize.
    """
    size, _ = _window(resize, crop)

    def read(sample: Sample) -> NDArray[np.uint8]:
        return view_of(benchmark.read_image(sample), resize, crop)

    views = np.empty((len(samples), 3, size, size), dtype=np.uint8)
    for row, view in enumerate(map_threads(read, samples)):
        views[row] = view
    return views


def view_of(image: NDArray[np.uint8], resize: int, crop: int | None = None) -> NDArray[np.uint8]:
    """One image as `load_views` has it, (3, S, S)."""
    _, window = _window(resize, crop)
    resized = Image.fromarray(image).resize((resize, resize), Image.Resampling.BILINEAR)
    return np.asarray(resized)[window, window].transpose(2, 0, 1)


def load_masks(
    benchmark: Benchmark,
    samples: Sequence[Sample],
    resize: int,
    crop: int | None = None,
    *,
    smooth: bool = False,
    above: float = 0,
) -> NDArray[np.bool_] | None:
    """Masks (N, S, S) bool, cut like `load_views`; None where the data set has no masks.

    The resize takes the nearest pixel, or is bilinear with `smooth`; values above `above`, of 255,
    are marked. A small defect may vanish on the way; its image stays defective (see `vanished`).
    """
    if not benchmark.pixel_truth:
        return None
    size, window = _window(resize, crop)
    resampling = Image.Resampling.BILINEAR if smooth else Image.Resampling.NEAREST

    def read(sample: Sample) -> NDArray[np.bool_]:
        mask = Image.fromarray(255 * np.asarray(benchmark.read_mask(sample), dtype=np.uint8))
        return np.asarray(mask.resize((resize, resize), resampling))[window, window] > above

    masks = np.zeros((len(samples), size, size), dtype=bool)
    defective = [row for row, sample in enumerate(samples) if sample.anomalous]
    marked = map_threads(read, [samples[row] for row in defective])
    for row, mask in zip(defective, marked, strict=True):
        masks[row] = mask
    return masks


def vanished(samples: Sequence[Sample], masks: NDArray[np.bool_]) -> list[str]:
    """Keys of the defective samples whose mask, of masks (N, S, S), has no pixel left."""
    return [
        sample.key
        for sample, mask in zip(samples, masks, strict=True)
        if sample.anomalous and not mask.any()
    ]


def _window(resize: int, crop: int | None) -> tuple[int, slice]:
    """The side S of a view, and its rows, which are also its columns, in the resized image."""
    size = resize if crop is None else crop
    if not 0 < size <= resize:
        raise ValueError(f"crop {crop} does not fit into resize {resize}; choose at most {resize}")
    start = round((resize - size) / 2)
    return size, slice(start, start + size)
