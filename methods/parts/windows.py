"""Squares cut out of images.

Shape legend: B images, S side of an image in pixels, K side of a square in pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from methods.parts.batches import Draws


def anywhere(draws: Draws, side: int, window: int) -> Tensor:
    """Random top left corners (B, 2), by row and column, of squares that lie inside the image."""
    return draws.integers(0, side - window + 1, 2)


def moved(images_B3SS: Tensor, draws: Draws, window: int) -> Tensor:
    """A square of each image from a random corner on, (B, 3, K, K)."""
    return crop(images_B3SS, draws.integers(0, images_B3SS.shape[-1], 2), window)


def crop(images_B3SS: Tensor, corners_B2: Tensor, window: int) -> Tensor:
    """One square of each image: (B, 3, K, K); beyond its border the image repeats."""
    steps_K = torch.arange(window, device=images_B3SS.device)
    rows_BK, columns_BK = ((corners_B2[..., None] + steps_K) % images_B3SS.shape[-1]).unbind(1)
    image_B11 = torch.arange(len(images_B3SS), device=images_B3SS.device)[:, None, None]
    images_BSS3 = images_B3SS.movedim(1, 3)
    squares_BKK3: Tensor = images_BSS3[image_B11, rows_BK[:, :, None], columns_BK[:, None, :]]
    return squares_BKK3.movedim(3, 1)
