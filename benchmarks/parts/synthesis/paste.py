"""Fragments cut from a layer and pasted on a normal image, with labels exact to the pixel.

Poisson blending (Perez et al. 2003; NSA, arXiv 2109.15222) keeps gradients and lets borders meet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import splu

from benchmarks.parts.synthesis.masks import Outline, coverage, thickness

CELLS = 64  # along the shorter side; finer noise does not count as change
SOFTNESS = 0.25  # width of a soft edge, as a share of the fragment's thickness
SOFTEST = 0.02  # its largest width, as a share of the image's shorter side
FINEST = 64  # cells along the longer side; a membrane is smooth, so it is solved on a coarse grid

Plane = NDArray[np.floating]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fragment:
    """One cut-out, how it is blended, and where its box lies in both images."""

    alpha: NDArray[np.uint8]  # (h, w), its opacity before the contrast, 0 off the mask
    contrast: float
    blending: str  # "matched": its mean colour is brought to that of what it covers
    source: tuple[int, int] = (0, 0)  # y and x of the box's upper left corner
    target: tuple[int, int] = (0, 0)

    @classmethod
    def cut(
        cls, outlines: Sequence[Outline], contrast: float, blending: str, side: int
    ) -> Fragment:
        """The union of the outlines, not placed yet, for an image of shorter side `side`."""
        soft = min(SOFTNESS * thickness(outlines), SOFTEST * side)
        feather = 0.0 if blending == "hard" else soft
        return cls(alpha=coverage(outlines, feather), contrast=contrast, blending=blending)

    def at(self, source: NDArray[np.int64], target: NDArray[np.int64]) -> Fragment:
        """The fragment with its box moved from the corner `source` to the corner `target`."""
        (top, left), (to_top, to_left) = source.tolist(), target.tolist()
        return replace(self, source=(top, left), target=(to_top, to_left))


class Patch(NamedTuple):
    """The pixels (h, w, 3) uint8 that a pasted fragment would put into a box of the image."""

    box: tuple[slice, slice]
    pixels: NDArray[np.uint8]
    marked: NDArray[np.bool_]  # (h, w), the pixels that may change


class Change(NamedTuple):
    """The change by a patch in grey levels of 255: of its mean colour, and of its roughness."""

    colour: float
    structure: float

    def visible(self, least: Change) -> bool:
        """Whether either is what the eye can tell."""
        return self.colour >= least.colour or self.structure >= least.structure


class Canvas:
    """A target image that takes fragments; each pixel is pasted on at most once.

    `most` is the saturation that no layer exceeds, and that no blending may exceed.
    """

    def __init__(self, image: NDArray[np.uint8], most: float = 255) -> None:
        self.original, self.most = image, most
        self.cell = max(1, min(image.shape[:2]) // CELLS)
        self.clear()

    def clear(self) -> None:
        """Takes all fragments away again."""
        self.image = self.original.copy()
        self.mask = np.zeros(self.image.shape[:2], dtype=bool)

    def patch(self, source: NDArray[np.uint8], fragment: Fragment) -> Patch:
        """The fragment, cut from a source of equal shape, blended with what it covers.

        Marked are the pixels with alpha above 0 that no earlier fragment took.
        """
        box = _box(fragment.target, fragment.alpha.shape)
        alpha = np.where(self.mask[box], 0, fragment.alpha)
        marked = alpha > 0
        under = self.original[box].astype(np.float32)
        layer = source[_box(fragment.source, alpha.shape)].astype(np.float32)
        if fragment.blending == "matched" and marked.any():
            layer += under[marked].mean(axis=0) - layer[marked].mean(axis=0)
        elif fragment.blending == "poisson":
            layer += self._membrane(source, fragment, box)
        weight = alpha * np.float32(fragment.contrast / 255)
        mixed = under + weight[:, :, None] * (layer - under)
        if self.most and fragment.blending in ("matched", "poisson"):  # they move colours
            mixed = within(mixed, self.most)
        return Patch(box, mixed.round().clip(0, 255).astype(np.uint8), marked)

    def put(self, patch: Patch) -> None:
        """Changes the marked pixels and no others."""
        self.image[patch.box][patch.marked] = patch.pixels[patch.marked]
        self.mask[patch.box] |= patch.marked

    def _membrane(
        self, source: NDArray[np.uint8], fragment: Fragment, box: tuple[slice, slice]
    ) -> NDArray[np.float32]:
        """The correction that lets the fragment meet its surroundings, within a cell of theirs."""
        margin = _cell_size(fragment.alpha.shape)
        above, left = (min(margin, side.start) for side in box)
        wide = tuple(
            slice(side.start - before, side.stop + margin)
            for side, before in zip(box, (above, left), strict=True)
        )
        under = self.original[wide].astype(np.float32)
        height, width = fragment.alpha.shape
        inner = slice(above, above + height), slice(left, left + width)
        marked = np.zeros(under.shape[:2], dtype=bool)
        marked[inner] = fragment.alpha > 0
        # Beyond the fragment's box the layer goes on as it ends there.
        cut = source[_box(fragment.source, fragment.alpha.shape)].astype(np.float32)
        below, right = (o - i.stop for o, i in zip(under.shape[:2], inner, strict=True))
        layer = np.pad(cut, ((above, below), (left, right), (0, 0)), mode="edge")
        return membrane(under - layer, marked)[inner]

    def change(self, patch: Patch) -> Change:
        """Mean change over the marked pixels; 0 where none is marked.

        The signed change is first averaged over cells of 1/64 of the image's side: noise and grain
        on equal ground cancel out. Then the channel that changed most counts; for structure the
        direction, across or down, in which the steps between pixels changed most.
        """
        before = self.original[patch.box].astype(np.int32)
        after = np.where(patch.marked[:, :, None], patch.pixels, before).astype(np.int32)
        return Change(
            self._mean_change(after - before, patch.marked),
            self._mean_change(_steps(after) - _steps(before), patch.marked),
        )

    def _mean_change(self, difference: NDArray[np.int32], marked: NDArray[np.bool_]) -> float:
        difference[~marked] = 0
        for axis in (0, 1):
            starts = np.arange(0, difference.shape[axis], self.cell)
            difference = np.add.reduceat(difference, starts, axis=axis)
        total = float(np.abs(difference).max(axis=2).sum())
        return total / max(1, int(marked.sum()))

    @cached_property
    def grain(self) -> Change:
        """Median difference between neighbouring cells of the target."""
        steps = _steps(self.original.astype(np.int32)).clip(0, 255).astype(np.uint8)
        return Change(self._grain(self.original), self._grain(np.dstack([steps, steps[..., :1]])))

    def _grain(self, planes: NDArray[np.uint8]) -> float:
        cells = np.asarray(Image.fromarray(planes).reduce(self.cell), dtype=np.int32)
        steps = np.abs(np.diff(cells, axis=1)).max(axis=2)
        return float(np.median(steps)) if steps.size else 0.0

    def visible_from(self, patch: Patch, least_change: float) -> Change:
        """The smallest changes that the eye can tell: `least_change`, or the target's own grain.

        Structure is told apart by twice its grain: two patches of one texture differ by about one.
        Below 2 x 2 cells both rise as the side of the patch shrinks.
        """
        side = max(1.0, math.sqrt(patch.marked.sum()))
        rise = max(1.0, 2 * self.cell / side)
        return Change(
            max(least_change, self.grain.colour) * rise,
            max(least_change, 2 * self.grain.structure) * rise,
        )


def saturation(image: NDArray[np.uint8]) -> int:
    """The most that the channels of a pixel differ, in grey levels; 0 of a grey image."""
    return int(np.ptp(image, axis=2).max())


def within(colours: NDArray[Any], most: float) -> Plane:
    """The colours (h, w, 3); those that are more saturated are drawn towards their own grey."""
    grey, spread = colours.mean(axis=2, keepdims=True), np.ptp(colours, axis=2, keepdims=True)
    whole: Plane = grey + (colours - grey) * np.minimum(1, most / np.maximum(spread, 1e-6))
    return whole


def membrane(difference: Plane, marked: NDArray[np.bool_]) -> Plane:
    """The correction (h, w, 3) that lets a fragment meet what lies around it.

    `difference` is surroundings minus fragment, (h, w, 3); `marked` the pixels of the fragment. The
    result is harmonic where it is marked and equals the difference around it. Where nothing lies
    around it, it is the mean difference.
    """
    if marked.all():
        return np.broadcast_to(difference.mean(axis=(0, 1)), difference.shape)
    height, width = marked.shape
    factor = _cell_size(marked.shape)
    outside = _cells(~marked, factor)
    known = outside >= 0.5
    if not known.any():
        known = outside == outside.max()
    around = np.where(marked[:, :, None], 0, difference)
    cells = np.stack([_cells(around[:, :, channel], factor) for channel in range(3)], axis=2)
    cells /= np.maximum(outside, 1e-6)[:, :, None]
    if not known.all():
        # The Laplacian of a grid is the sum of those of its rows and columns.
        down, across = (np.diff(np.eye(side), axis=0) for side in known.shape)
        laplacian = sparse.kronsum(across.T @ across, down.T @ down).tocsr()[~known.ravel()]
        right = -laplacian[:, known.ravel()] @ cells[known]
        cells[~known] = splu(laplacian[:, ~known.ravel()].tocsc()).solve(right)
    size = known.shape[1] * factor, known.shape[0] * factor
    planes = [Image.fromarray(plane) for plane in cells.transpose(2, 0, 1)]
    smooth = [np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(smooth, axis=2)[:height, :width]


def _cell_size(shape: tuple[int, ...]) -> int:
    """Pixels along a side of the cells in which a membrane over (h, w) is solved."""
    return -(-max(shape) // FINEST)


def _cells(plane: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Means over cells of `factor` pixels a side; those at the end have their own share only."""
    return np.array(Image.fromarray(plane.astype(np.float32)).reduce(factor))


def _steps(image: NDArray[np.int32]) -> NDArray[np.int32]:
    """Differences in brightness of neighbouring pixels, down and across: (h, w, 2)."""
    grey = image.sum(axis=2) // 3
    down = np.abs(np.diff(grey, axis=0, prepend=grey[:1]))
    across = np.abs(np.diff(grey, axis=1, prepend=grey[:, :1]))
    return np.stack([down, across], axis=2)


def _box(corner: tuple[int, int], shape: tuple[int, ...]) -> tuple[slice, slice]:
    return slice(corner[0], corner[0] + shape[0]), slice(corner[1], corner[1] + shape[1])
