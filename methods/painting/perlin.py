"""Perlin noise, and the masks and textures made of it (DRAEM), for a whole batch at a time.

Shape legend: B images, C channels, S side in pixels, G corners of a noise grid in a row. A 2 stands
for row and column.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.batches import Draws

SCALES = 6
"""A mask's noise has 2^0 to 2^5 cells in a row, and independently in a column."""
CORNERS = 2 ** (SCALES - 1) + 1
THRESHOLD = 0.5


def perlin(turns_BGG: Tensor, cells_B2: Tensor, side: int) -> Tensor:
    """Perlin noise (B, S, S), about -1 to 1.

    `turns_BGG` are the directions of the gradients at the corners, 0 to 1 for a full turn. An image
    with n cells in a row uses the first n + 1 corners of it; so with columns.
    """
    steps_S = torch.arange(side, device=turns_BGG.device) / side
    scaled_B2S = steps_S * cells_B2[:, :, None]
    cell_B2S = scaled_B2S.floor()
    y_BS, x_BS = (scaled_B2S - cell_B2S).unbind(1)
    row_BS, column_BS = cell_B2S.long().unbind(1)
    y_BS1, x_B1S = y_BS[:, :, None], x_BS[:, None, :]
    down_BGG, right_BGG = torch.cos(2 * math.pi * turns_BGG), torch.sin(2 * math.pi * turns_BGG)
    image_B11 = torch.arange(len(turns_BGG), device=turns_BGG.device)[:, None, None]

    def ramp(below: int, beside: int) -> Tensor:
        corner = image_B11, row_BS[:, :, None] + below, column_BS[:, None, :] + beside
        return down_BGG[corner] * (y_BS1 - below) + right_BGG[corner] * (x_B1S - beside)

    left_BSS = torch.lerp(ramp(0, 0), ramp(1, 0), _fade(y_BS1))
    right_BSS = torch.lerp(ramp(0, 1), ramp(1, 1), _fade(y_BS1))
    return math.sqrt(2) * torch.lerp(left_BSS, right_BSS, _fade(x_B1S))


def _fade(t: Tensor) -> Tensor:
    """Perlin's weight 6 t^5 - 15 t^4 + 10 t^3, of any shape."""
    return t**3 * (t * (6 * t - 15) + 10)


def rotate(images_BCSS: Tensor, degrees_B: Tensor) -> Tensor:
    """Images turned about their centres, bilinearly; black comes in at the corners."""
    angle_B = torch.deg2rad(degrees_B)
    sine_B, cosine_B, zero_B = angle_B.sin(), angle_B.cos(), torch.zeros_like(angle_B)
    turns_B6 = torch.stack([cosine_B, -sine_B, zero_B, sine_B, cosine_B, zero_B], dim=1)
    grid_BSS2 = F.affine_grid(turns_B6.view(-1, 2, 3), list(images_BCSS.shape), align_corners=False)
    return F.grid_sample(images_BCSS, grid_BSS2, align_corners=False)


def _noise(draws: Draws, side: int) -> Tensor:
    """Noise (B, 1, S, S) of a drawn number of cells."""
    cells_B2 = 2 ** draws.integers(0, SCALES, 2)
    return perlin(draws.uniform(CORNERS, CORNERS), cells_B2, side)[:, None]


def masks(draws: Draws, side: int) -> Tensor:
    """Masks of the damage, (B, 1, S, S) bool: noise above a threshold, turned."""
    return rotate(_noise(draws, side), 180 * draws.uniform() - 90) > THRESHOLD


def textures(draws: Draws, side: int) -> Tensor:
    """Procedural textures (B, 3, S, S) in [0, 1]: two colours parted by noise, softly or hard."""
    hardness_B111, grain_B111 = 2 + 18 * draws.uniform(1, 1, 1), 0.2 * draws.uniform(1, 1, 1)
    share_B1SS = torch.sigmoid(hardness_B111 * _noise(draws, side))
    colours_B2311 = draws.uniform(2, 3, 1, 1)
    mixed_B3SS = share_B1SS * colours_B2311[:, 0] + (1 - share_B1SS) * colours_B2311[:, 1]
    return (mixed_B3SS + grain_B111 * draws.normal(3, side, side)).clamp(0, 1)
