"""Poisson blending (Perez et al. 2003; NSA, arXiv 2109.15222): gradients stay, borders meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from scipy.sparse.linalg import splu

FINEST = 64  # cells along the longer side; a membrane is smooth, so it is solved on a coarse grid

Plane = NDArray[np.floating]


def membrane(difference: Plane, marked: NDArray[np.bool_]) -> Plane:
    """The correction (h, w, 3) that lets a fragment meet what lies around it.

    `difference` is surroundings minus fragment, (h, w, 3); `marked` the pixels of the fragment. The
    result is harmonic where it is marked and equals the difference around it. Where nothing lies
    around it, it is the mean difference.
    """
    if marked.all():
        return np.broadcast_to(difference.mean(axis=(0, 1)), difference.shape)
    height, width = marked.shape
    factor = cell_size(marked.shape)
    rows, columns = -(-height // factor), -(-width // factor)
    outside = _cells(~marked[:, :, None] * np.float32(1), factor)[:, :, 0]
    known = outside >= 0.5
    if not known.any():
        known = outside == outside.max()
    sums = _cells(np.where(marked[:, :, None], 0, difference), factor)
    border = sums / np.maximum(outside, 1e-6)[:, :, None]
    coarse = _solved(border, known)
    planes = [Image.fromarray(coarse[:, :, channel]) for channel in range(3)]
    size = columns * factor, rows * factor
    smooth = [np.asarray(plane.resize(size, Image.Resampling.BILINEAR)) for plane in planes]
    return np.stack(smooth, axis=2)[:height, :width]


def cell_size(shape: tuple[int, ...]) -> int:
    """Pixels along a side of the cells in which a membrane over (h, w) is solved."""
    return -(-max(shape) // FINEST)


def _cells(values: Plane, factor: int) -> Plane:
    """Means over cells of `factor` pixels a side; those at the end have their own share only."""
    sums: Plane = values
    for axis in (0, 1):
        starts = np.arange(0, values.shape[axis], factor)
        sums = np.add.reduceat(sums, starts, axis=axis)
        counts: Plane = np.diff(np.append(starts, values.shape[axis])).astype(np.float32)
        sums = sums / np.expand_dims(counts, tuple(a for a in range(3) if a != axis))
    return sums


def _solved(border: Plane, known: NDArray[np.bool_]) -> Plane:
    """Laplace's equation on a grid (r, c): values that are known, harmonic in between."""
    number = np.cumsum(~known).reshape(known.shape) - 1
    count = int((~known).sum())
    if count == 0:
        return border.astype(np.float32)
    degree, right = np.zeros(count), np.zeros((count, 3))
    pairs = []
    for axis in (0, 1):
        for one, two in (_neighbours(known.shape, axis), _neighbours(known.shape, axis)[::-1]):
            free = ~known[one]
            np.add.at(degree, number[one][free], 1)
            fixed = free & known[two]
            np.add.at(right, number[one][fixed], border[two][fixed])
            both = free & ~known[two]
            pairs.append((number[one][both], number[two][both]))
    rows, columns = (np.concatenate(part) for part in zip(*pairs, strict=True))
    off = sparse.coo_matrix((-np.ones(len(rows)), (rows, columns)), shape=(count, count))
    solution: Plane = splu((off + sparse.diags(degree)).tocsc()).solve(right)
    whole: Plane = border.astype(np.float32)
    whole[~known] = solution
    return whole


def _neighbours(shape: tuple[int, ...], axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The cells that have one after them along the axis, and those."""
    before, after = [slice(None)] * 2, [slice(None)] * 2
    before[axis], after[axis] = slice(None, -1), slice(1, None)
    return tuple(before), tuple(after)
