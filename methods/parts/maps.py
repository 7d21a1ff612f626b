"""From errors on the feature grid to anomaly maps and image scores (eq. 12)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from methods.base import Stage

SEARCH = (Stage({"sigma": (0.0, 2.0, 4.0)}), Stage({"pool": (1, 4, 16)}))
"""How maps become scores: what a search tries where a method has no other knobs."""


def error_map(features_BChw: Tensor, rebuilt_BChw: Tensor) -> Tensor:
    """L2 norm of the difference over channels: (B, h, w)."""
    error: Tensor = torch.linalg.vector_norm(features_BChw - rebuilt_BChw, dim=1)
    return error


def editing_maps(
    original_BChw: Tensor, edited_BChw: Tensor, rebuilt_BChw: Tensor
) -> dict[str, Tensor]:
    """Figure 1: how far editing and the network each move the features, (B, h, w)."""
    return {
        "original to edited": error_map(original_BChw, edited_BChw),
        "edited to rebuilt": error_map(edited_BChw, rebuilt_BChw),
        "original to rebuilt": error_map(original_BChw, rebuilt_BChw),
    }


def smooth_upsample(
    maps_Bhw: Tensor, side: int, sigma: float, *, align_corners: bool = False
) -> Tensor:
    """Bilinear upsampling to (B, side, side), then a Gaussian of `sigma` pixels (0: none).

    Both are linear and separable, so together they are one small matrix on either side; the
    Gaussian is SciPy's `gaussian_filter` (mode reflect, truncated at 4 sigma).
    """
    rows = _upsampling(maps_Bhw.shape[1], side, align_corners)
    columns = _upsampling(maps_Bhw.shape[2], side, align_corners)
    if sigma > 0:
        blur = _gaussian(side, sigma)
        rows, columns = blur @ rows, blur @ columns
    rows, columns = rows.to(maps_Bhw), columns.to(maps_Bhw)
    return rows @ maps_Bhw @ columns.T


def _upsampling(cells: int, side: int, align_corners: bool) -> Tensor:
    """(side, cells): the weights of 1-D linear interpolation."""
    unit = torch.eye(cells, dtype=torch.float64)[None]
    return F.interpolate(unit, size=side, mode="linear", align_corners=align_corners)[0].T


def _gaussian(side: int, sigma: float) -> Tensor:
    """(side, side): the weights of a 1-D Gaussian with mirrored borders."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()
    source = (np.arange(side)[:, None] + offsets) % (2 * side)
    source = np.where(source < side, source, 2 * side - 1 - source)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], source), weights)
    return torch.from_numpy(matrix)


def image_score(maps_BHW: Tensor, pool: int) -> Tensor:
    """The maximum of the averages over pool x pool windows, stride 1 (1: the plain maximum)."""
    pooled = maps_BHW[:, None]
    if pool > 1:
        # A mean over a square is a mean of means: one side after the other, 2 pool sums a window
        # instead of pool^2.
        pooled = F.avg_pool2d(F.avg_pool2d(pooled, (1, pool), stride=1), (pool, 1), stride=1)
    return pooled.flatten(1).amax(dim=1)
