"""Greedy k-center (Gonzalez 1985; PatchCore's coreset): pick the point farthest from all picks.

pick_0 = start,  pick_i = argmax_x min_{j<i} ||x - pick_j||,  ties by lower index
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kernels import _numba
from kernels._numba import njit, prange
from kernels.base import check_matrix, reference_only

BLOCK = 512
Report = Callable[[int, int], None]


def kcenter_order(
    points_ND: Tensor, count: int, start: int = 0, *, on_progress: Report | None = None
) -> Tensor:
    """Return the first ``count`` picks of greedy k-center as int64 indices, prefix-stable.

    Picked points are never picked again, duplicates included. ``on_progress(done, count)`` is
    called now and then. Raises ValueError on NaN or Inf, and on count or start out of range.
    """
    check_matrix("points_ND", points_ND)
    shape = "x".join(map(str, points_ND.shape))
    if not 1 <= count <= len(points_ND):
        raise ValueError(
            f"count must be from 1 to {len(points_ND)}, got {count}: points_ND {shape}"
        )
    if not 0 <= start < len(points_ND):
        raise ValueError(f"start must be a row of points_ND {shape}, got {start}")
    report = on_progress or (lambda done, count: None)
    if points_ND.device.type == "cpu" and _numba.AVAILABLE and not reference_only():
        return _kcenter_cpu(points_ND, count, start, report)
    return kcenter_order_reference(points_ND, count, start, on_progress=report)


def kcenter_order_reference(
    points_ND: Tensor, count: int, start: int = 0, *, on_progress: Report | None = None
) -> Tensor:
    """The truth in plain torch: one pass over the points per pick."""
    points_ND = points_ND.float()
    nearest_N = torch.full((len(points_ND),), torch.inf, device=points_ND.device)
    order = torch.empty(count, dtype=torch.int64, device=points_ND.device)
    pick = torch.tensor(start, device=points_ND.device)
    for i in range(count):
        order[i] = pick
        for chunk_CD, nearest_C in zip(
            points_ND.split(1 << 14), nearest_N.split(1 << 14), strict=True
        ):
            nearest_C.clamp_max_((chunk_CD - points_ND[pick]).square_().sum(dim=1))
        nearest_N[pick] = -1
        pick = nearest_N.argmax()
        if on_progress and (i + 1) % 256 == 0:
            on_progress(i + 1, count)
    return order


def _kcenter_cpu(points_ND: Tensor, count: int, start: int, report: Report) -> Tensor:
    points = points_ND.float().contiguous().numpy()
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    order = np.empty(count, dtype=np.int64)
    order[0] = start
    with _numba.threads():
        for done in range(0, count, 64):
            _picks(points, nearest, order, done, min(done + 64, count))
            report(min(done + 64, count), count)
    return torch.from_numpy(order)


@njit(parallel=True, fastmath=True)
def _picks(points, nearest, order, first, last):  # type: ignore[no-untyped-def]
    blocks = (len(points) + BLOCK - 1) // BLOCK
    tops = np.empty(blocks, dtype=np.int64)
    for i in range(first, last):
        pick = order[i]
        center = points[pick]
        nearest[pick] = -1
        for b in prange(blocks):
            tops[b] = _update(points, nearest, center, b * BLOCK, min((b + 1) * BLOCK, len(points)))
        if i + 1 < len(order):
            best = tops[0]
            for b in range(1, blocks):
                if nearest[tops[b]] > nearest[best]:
                    best = tops[b]
            order[i + 1] = best


@njit(fastmath=True)
def _update(points, nearest, center, low, high):  # type: ignore[no-untyped-def]
    top = low
    for x in range(low, high):
        if nearest[x] > 0:
            total = np.float32(0)
            for d in range(len(center)):
                step = points[x, d] - center[d]
                total += step * step
            nearest[x] = min(nearest[x], total)
        if nearest[x] > nearest[top]:
            top = x
    return top
