"""Ways in which the layers of a frozen backbone become one tensor.

Shape legend: B images, C channels, h and w a layer's own cells, g grid cells a side, K numbers of a
layer's patch, P patches, L numbers of all layers together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, int, int]
"""(C, h, w) of one layer."""


def align(layers_BChw: Sequence[Tensor], grid: int) -> Tensor:
    """Multi-scale aggregation (eq. 1; UniAD's MFCN): (B, C of all layers, g, g).

    Layers are resized bilinearly, with aligned corners, and their channels concatenated.
    """
    resized_BCgg = [
        F.interpolate(layer_BChw, grid, mode="bilinear", align_corners=True)
        for layer_BChw in layers_BChw
    ]
    return torch.cat(resized_BCgg, dim=1)


def pool_patches(layers_BChw: Sequence[Tensor], grid: int, channels: int | None) -> Tensor:
    """PatchCore's patch features (B, C, g, g) (official repository, `patchcore.common`).

    Each location takes its 3x3 neighbourhood in every layer. Deeper layers are resized to the
    grid. Each layer is mean-pooled to `channels` numbers, then all layers together to as many.
    Without `channels` each layer keeps its own, averaged over 3x3, and all are concatenated, as in
    anomalib: layers with many channels then weigh more.
    """
    pooled_BPC = []
    for layer_BChw in layers_BChw:
        cells = layer_BChw.shape[-2:]
        around_BKhw = F.unfold(layer_BChw, kernel_size=3, padding=1).unflatten(2, cells)
        if cells[1] != grid:
            around_BKhw = F.interpolate(around_BKhw, grid, mode="bilinear", align_corners=False)
        around_BPK = around_BKhw.flatten(2).transpose(1, 2)
        pooled_BPC.append(F.adaptive_avg_pool1d(around_BPK, channels or layer_BChw.shape[1]))
    rows_BPC = torch.cat(pooled_BPC, dim=2)
    if channels is not None:
        rows_BPC = F.adaptive_avg_pool1d(rows_BPC, channels)
    return rows_BPC.transpose(1, 2).reshape(len(rows_BPC), -1, grid, grid)


def flatten(layers_BChw: Sequence[Tensor]) -> Tensor:
    """Layers, each at its own resolution, as one pyramid (B, L)."""
    return torch.cat([layer_BChw.flatten(1) for layer_BChw in layers_BChw], dim=1)


def unflatten(pyramid_BL: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The layers (B, C, h, w) of a pyramid: the inverse of `flatten`."""
    flat_BL = pyramid_BL.split([math.prod(shape) for shape in shapes], dim=1)
    return [layer_BL.unflatten(1, shape) for layer_BL, shape in zip(flat_BL, shapes, strict=True)]
