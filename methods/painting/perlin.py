"""Perlin noise, and the masks and textures made of it (DRAEM), for a whole batch at a time.

Shape legend: B images, C channels, S side in pixels, G corners of a noise grid in a row.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.training import Draws

SCALES = 6
"""A mask's noise has 2^0 to 2^5 cells in a row and, drawn apart, in a column."""
CORNERS = 2 ** (SCALES - 1) + 1
THRESHOLD = 0.5


def perlin(turns_BGG: Tensor, cells_B2: Tensor, side: int) -> Tensor:
    """Perlin noise (B, S, S), about -1 to 1.

    `turns` (0 to 1) are the directions of the gradients at the corners, of which each image uses
    as many as it has `cells` by row and by column, and one more.
    """
    steps = torch.arange(side, device=turns_BGG.device) / side
    scaled_B2S = steps * cells_B2[:, :, None]
    cell_B2S = scaled_B2S.floor()
    (y, x), (row, column) = (scaled_B2S - cell_B2S).unbind(1), cell_B2S.long().unbind(1)
    y, x = y[:, :, None], x[:, None, :]
    down, right = torch.cos(2 * math.pi * turns_BGG), torch.sin(2 * math.pi * turns_BGG)
    image = torch.arange(len(turns_BGG), device=turns_BGG.device)[:, None, None]

    def ramp(below: int, beside: int) -> Tensor:
        corner = image, row[:, :, None] + below, column[:, None, :] + beside
        return down[corner] * (y - below) + right[corner] * (x - beside)

    left = torch.lerp(ramp(0, 0), ramp(1, 0), _fade(y))
    return math.sqrt(2) * torch.lerp(left, torch.lerp(ramp(0, 1), ramp(1, 1), _fade(y)), _fade(x))


def _fade(t: Tensor) -> Tensor:
    return t**3 * (t * (6 * t - 15) + 10)


def rotate(images_BCSS: Tensor, degrees_B: Tensor) -> Tensor:
    """Each image turned about its centre, bilinearly, black where nothing was."""
    angle = torch.deg2rad(degrees_B)
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros_like(angle)
    turns = torch.stack([cosine, -sine, zero, sine, cosine, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(turns, list(images_BCSS.shape), align_corners=False)
    return F.grid_sample(images_BCSS, grid, align_corners=False)


def _noise(draws: Draws, side: int) -> Tensor:
    """Noise (B, 1, S, S) of a drawn number of cells."""
    cells = 2 ** draws.integers(0, SCALES, 2)
    return perlin(draws.uniform(CORNERS, CORNERS), cells, side)[:, None]


def masks(draws: Draws, side: int) -> Tensor:
    """Where an image is damaged: (B, 1, S, S) bool, noise above a threshold, turned."""
    return rotate(_noise(draws, side), 180 * draws.uniform() - 90) > THRESHOLD


def textures(draws: Draws, side: int) -> Tensor:
    """Procedural textures (B, 3, S, S) in [0, 1]: two colours parted by noise, softly or hard."""
    hardness, grain = 2 + 18 * draws.uniform(1, 1, 1), 0.2 * draws.uniform(1, 1, 1)
    share = torch.sigmoid(hardness * _noise(draws, side))
    colours = draws.uniform(2, 3, 1, 1)
    mixed = share * colours[:, 0] + (1 - share) * colours[:, 1]
    return (mixed + grain * draws.normal(3, side, side)).clamp(0, 1)
