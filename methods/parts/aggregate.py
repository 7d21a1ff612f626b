"""How the layers of a frozen backbone become one tensor.

Shape legend: B images, C channels, h and w a layer's own cells, g grid cells a side, L numbers of
all layers together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Shape = tuple[int, int, int]
"""(C, h, w) of one layer."""


def align(layers: list[Tensor], grid: int) -> Tensor:
    """Multi-scale aggregation (eq. 1; UniAD's MFCN): resize bilinearly, concatenate channels."""
    resized = [
        F.interpolate(layer, size=(grid, grid), mode="bilinear", align_corners=True)
        for layer in layers
    ]
    return torch.cat(resized, dim=1)


def pool_patches(layers: list[Tensor], grid: int, channels: int | None) -> Tensor:
    """PatchCore's patch features (official repository, `patchcore.common`).

    Each location takes its 3x3 neighbourhood in every layer; deeper layers are resized to the
    grid; each layer is mean-pooled to `channels` numbers, then all layers together to as many. With
    None each layer keeps its own channels, averaged over 3x3, and all stand side by side, as
    anomalib has them: layers with many channels weigh more then.
    """
    pooled = []
    for layer in layers:
        around = F.unfold(layer, kernel_size=3, padding=1).unflatten(2, layer.shape[-2:])
        if around.shape[-1] != grid:
            around = F.interpolate(around, size=(grid, grid), mode="bilinear", align_corners=False)
        of_each = channels or layer.shape[1]
        pooled.append(F.adaptive_avg_pool1d(around.flatten(2).transpose(1, 2), of_each))
    rows = torch.cat(pooled, dim=2)
    if channels is not None:
        rows = F.adaptive_avg_pool1d(rows, channels)
    return rows.transpose(1, 2).reshape(len(rows), -1, grid, grid)


def flatten(layers: list[Tensor]) -> Tensor:
    """Layers (B, C, h, w), each at its own resolution, side by side: (B, L)."""
    return torch.cat([layer.flatten(1) for layer in layers], dim=1)


def unflatten(pyramid_BL: Tensor, shapes: Sequence[Shape]) -> list[Tensor]:
    """The layers (B, C, h, w) that `flatten` laid side by side."""
    parts = pyramid_BL.split([math.prod(shape) for shape in shapes], dim=1)
    return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]
