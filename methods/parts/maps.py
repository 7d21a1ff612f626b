"""Anomaly maps and image scores from errors on the feature grid (eq. 12).

Shape legend: B images, C channels, h and w grid cells, H and W pixels, S side of the map in pixels,
N cells in a row, T taps of a Gaussian.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from methods.base import Scores, Stage

SEARCH = (Stage({"sigma": (0.0, 2.0, 4.0)}), Stage({"pool": (1, 4, 16)}))
"""Stages of a search over how maps become scores."""
TOP_SEARCH = (Stage({"sigma": (0.0, 2.0, 4.0)}), Stage({"top": (0.001, 0.01, 0.05)}))
"""The same where they do so by `evaluated`."""
TILTS = (-1.0, 0.0, 1.0)
"""Tilts that a search tries: weights halve, stay or double from fine layers to coarse ones."""


def layer_weights(layers: int, tilt: float) -> list[float]:
    """Weights of the layers' maps, the finest first: 2^(tilt x number), scaled to a mean of 1."""
    weights = [2.0 ** (tilt * number) for number in range(layers)]
    return [weight * layers / sum(weights) for weight in weights]


def error_map(difference_BChw: Tensor) -> Tensor:
    """L2 norm of a difference of features over channels: (B, h, w)."""
    error_Bhw: Tensor = torch.linalg.vector_norm(difference_BChw, dim=1)
    return error_Bhw


def editing_maps(
    original_BChw: Tensor, edited_BChw: Tensor, rebuilt_BChw: Tensor
) -> dict[str, Tensor]:
    """Figure 1: how far editing and the network each move the features, maps (B, h, w)."""
    return {
        "original to edited": error_map(original_BChw - edited_BChw),
        "edited to rebuilt": error_map(edited_BChw - rebuilt_BChw),
        "original to rebuilt": error_map(original_BChw - rebuilt_BChw),
    }


def smooth_upsample(
    maps_Bhw: Tensor, side: int, sigma: float, *, align_corners: bool = False
) -> Tensor:
    """Bilinear upsampling to (B, S, S), then a Gaussian of `sigma` pixels (0: none).

    Both are linear and separable, so together they are one small matrix on either side. The
    Gaussian is SciPy's `gaussian_filter` (mode reflect, truncated at 4 sigma).
    """
    rows_Sh = _upsampling(maps_Bhw.shape[1], side, align_corners)
    columns_Sw = _upsampling(maps_Bhw.shape[2], side, align_corners)
    if sigma > 0:
        blur_SS = torch.from_numpy(gaussian_filter1d(np.eye(side), sigma, axis=0))
        rows_Sh, columns_Sw = blur_SS @ rows_Sh, blur_SS @ columns_Sw
    return rows_Sh.to(maps_Bhw) @ maps_Bhw @ columns_Sw.to(maps_Bhw).T


def evaluated(errors_Bhw: Tensor, side: int, knobs: Any, *, by_way_of: int | None = None) -> Scores:
    """Maps (B, S, S) and image scores (B,) as Dinomaly's evaluation has them (`evaluation_batch`).

    Bilinearly to `knobs.scored_at` pixels a side, where `by_way_of` is named first to that many
    with aligned corners; then a Gaussian of `window` taps a side and `sigma` (0: none), beyond the
    border 0; the image score is the mean of the `top` share of its pixels. Ours: the map is then
    brought to the side of the view.
    """
    cells, scored_at = errors_Bhw.shape[1], knobs.scored_at
    if by_way_of is None:
        rows_Nh = _upsampling(cells, scored_at, align_corners=False)
    else:
        rows_Nh = _upsampling(by_way_of, scored_at, False) @ _upsampling(cells, by_way_of, True)
    if knobs.sigma > 0:
        rows_Nh = windowed(scored_at, knobs.window, knobs.sigma) @ rows_Nh
    rows_Nh = rows_Nh.to(errors_Bhw)
    maps_BNN = rows_Nh @ errors_Bhw @ rows_Nh.T
    count = max(1, int(scored_at**2 * knobs.top))
    images_B = maps_BNN.flatten(1).topk(count, dim=1).values.mean(dim=1)
    return Scores(smooth_upsample(maps_BNN, side, 0), images_B)


def windowed(side: int, window: int, sigma: float) -> Tensor:
    """The weights (S, S) of a Gaussian of so many taps, 0 beyond the border, float64."""
    apart_SS = (torch.arange(side)[:, None] - torch.arange(side)).double()
    taps_T = torch.arange(window).double() - (window - 1) / 2
    scale = torch.exp(-0.5 * (taps_T / sigma) ** 2).sum()
    weights_SS = torch.exp(-0.5 * (apart_SS / sigma) ** 2) / scale
    return torch.where(apart_SS.abs() <= window // 2, weights_SS, 0.0)


def _upsampling(cells: int, side: int, align_corners: bool) -> Tensor:
    """The weights (S, N) of 1-D linear interpolation, float64."""
    unit_1NN = torch.eye(cells, dtype=torch.float64)[None]
    return F.interpolate(unit_1NN, size=side, mode="linear", align_corners=align_corners)[0].T


def image_score(maps_BHW: Tensor, pool: int) -> Tensor:
    """The maximum (B,) of the averages over pool x pool windows, stride 1 (1: over pixels)."""
    pooled_B1HW = maps_BHW[:, None]
    if pool > 1:
        # A mean over a square is a mean of means: one side after the other, 2 pool sums a window
        # instead of pool^2.
        pooled_B1HW = F.avg_pool2d(pooled_B1HW, (1, pool), stride=1)
        pooled_B1HW = F.avg_pool2d(pooled_B1HW, (pool, 1), stride=1)
    return pooled_B1HW.flatten(1).amax(dim=1)
