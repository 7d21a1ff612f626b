"""Fragments cut from one normal image and pasted on another, with labels exact to the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.parts.masks import Outline, coverage

CELLS = 64  # along the shorter side; noise finer than that is no change


@dataclass(frozen=True, eq=False)
class Fragment:
    """One cut-out: its outlines, where its box lies in both images, and how it is blended."""

    outlines: Sequence[Outline]
    feather: float
    source: tuple[int, int]  # y and x of the box's upper left corner
    target: tuple[int, int]
    contrast: float
    matched: bool  # its mean colour is brought to that of what it covers

    def alpha(self) -> NDArray[np.float32]:
        """How much of the fragment shows, (h, w) from 0 to 1, before the contrast."""
        return coverage(self.outlines, self.feather)


class Canvas:
    """A target image that takes fragments; each pixel is pasted on at most once."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.original = image
        self.image = image.copy()
        self.mask = np.zeros(image.shape[:2], dtype=bool)

    def paste(
        self, source: NDArray[np.uint8], fragment: Fragment, least_change: float = 0.0
    ) -> float:
        """Pastes it unless it changes less than asked for; returns the change in grey levels.

        The source has the target's shape. Only pixels with alpha above 0 that no earlier
        fragment took may change, and those are what the mask gains.
        """
        alpha = fragment.alpha()
        to, origin = _box(fragment.target, alpha.shape), _box(fragment.source, alpha.shape)
        alpha = np.where(self.mask[to], 0, alpha)
        marked = alpha > 0
        if not marked.any():
            return 0.0
        under = self.original[to].astype(np.float32)
        layer = source[origin].astype(np.float32)
        if fragment.matched:
            layer += under[marked].mean(axis=0) - layer[marked].mean(axis=0)
        mixed = under + (fragment.contrast * alpha)[:, :, None] * (layer - under)
        pasted = mixed.round().clip(0, 255).astype(np.uint8)
        change = coarse_change(pasted, self.original[to], marked, self._cell())
        if change >= least_change:
            self.image[to][marked] = pasted[marked]
            self.mask[to] |= marked
        return change

    def _cell(self) -> int:
        return max(1, min(self.mask.shape) // CELLS)


def coarse_change(
    changed: NDArray[np.uint8],
    original: NDArray[np.uint8],
    marked: NDArray[np.bool_],
    cell: int,
) -> float:
    """Mean change over the marked pixels (h, w) of images (h, w, 3), in grey levels of 255.

    The signed change is first averaged over cells of `cell` x `cell` pixels, so that noise and
    grain on equal ground cancel out; then the channel that changed most counts.
    """
    difference = changed.astype(np.int32) - original
    difference[~marked] = 0
    for axis in (0, 1):
        starts = np.arange(0, difference.shape[axis], cell)
        difference = np.add.reduceat(difference, starts, axis=axis)
    return float(np.abs(difference).max(axis=2).sum() / marked.sum())


def _box(corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + shape[0]), slice(corner[1], corner[1] + shape[1])
