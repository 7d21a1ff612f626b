"""The ten augmentations of which DRAEM applies three to each texture, for a whole batch at a time.

Each takes images in [0, 1] and uniform numbers, and returns images. Ranges are those of the
official code, whose imgaug works on bytes.

Shape legend: B images, S side in pixels, P = S S pixels, N = DRAWN numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.painting.perlin import rotate
from methods.parts.batches import Draws

DRAWN, CHOSEN = 3, 3


def augment(images_B3SS: Tensor, draws: Draws) -> Tensor:
    """Three different augmentations of each image, in an order that is drawn."""
    order_BA = draws.uniform(len(AUGMENTATIONS)).argsort(dim=1)
    numbers_BRN = draws.uniform(CHOSEN, DRAWN)
    out_B3SS = images_B3SS.clone()
    for rank in range(CHOSEN):
        for index, augmentation in enumerate(AUGMENTATIONS):
            chosen_B = order_BA[:, rank] == index
            if chosen_B.any():
                augmented = augmentation(out_B3SS[chosen_B], numbers_BRN[chosen_B, rank])
                out_B3SS[chosen_B] = augmented.clamp(0, 1)
    return out_B3SS


def _scaled(numbers_BN: Tensor, index: int, low: float, high: float) -> Tensor:
    """The numbers of one column, from low to high: (B, 1, 1, 1)."""
    return (low + (high - low) * numbers_BN[:, index]).view(-1, 1, 1, 1)


def gamma(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Values raised to a power of 0.5 to 2, drawn for each channel."""
    return images_B3SS ** (0.5 + 1.5 * numbers_BN[:, :, None, None])


def brightness(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Values times 0.8 to 1.2, plus -30 to 30 of 255."""
    factor_B111 = _scaled(numbers_BN, 0, 0.8, 1.2)
    return images_B3SS * factor_B111 + _scaled(numbers_BN, 1, -30 / 255, 30 / 255)


def sharpness(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Images smoothed (0), unchanged (1) to sharpened (2), with Pillow's kernel."""
    kernel_3133 = torch.ones(3, 1, 3, 3, device=images_B3SS.device)
    kernel_3133[:, :, 1, 1] = 5
    padded_B3SS = F.pad(images_B3SS, (1, 1, 1, 1), mode="replicate")
    smooth_B3SS = F.conv2d(padded_B3SS, kernel_3133 / 13, groups=3)
    return smooth_B3SS + _scaled(numbers_BN, 0, 0, 2) * (images_B3SS - smooth_B3SS)


def hue_and_saturation(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Hue and saturation shifted by -50 to 50 of 255, the hue around its circle."""
    # All but the last lines work on single channels (B, 1, S, S).
    top, bottom = images_B3SS.amax(1, keepdim=True), images_B3SS.amin(1, keepdim=True)
    chroma = (top - bottom).clamp(min=1e-6)
    red, green, blue = images_B3SS.split(1, dim=1)
    hue = torch.where(top == blue, 4 + (red - green) / chroma, 2 + (blue - red) / chroma)
    hue = torch.where(top == red, (green - blue) / chroma, hue)
    hue = hue + 6 * _scaled(numbers_BN, 0, -50 / 255, 50 / 255)
    saturation = (top - bottom) / top.clamp(min=1e-6)
    saturation = (saturation + _scaled(numbers_BN, 1, -50 / 255, 50 / 255)).clamp(0, 1)
    # Each channel falls from the top as the hue leaves its third of the circle.
    offset_1311 = torch.tensor([5.0, 3.0, 1.0], device=images_B3SS.device).view(1, 3, 1, 1)
    sector_B3SS = (offset_1311 + hue) % 6
    return top - top * saturation * torch.minimum(sector_B3SS, 4 - sector_B3SS).clamp(0, 1)


def solarize(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Values above 32 to 128 of 255 inverted, in every second image."""
    above_B3SS = images_B3SS >= _scaled(numbers_BN, 0, 32 / 255, 128 / 255)
    inverted_B3SS = above_B3SS & (_scaled(numbers_BN, 1, 0, 1) < 0.5)
    return torch.where(inverted_B3SS, 1 - images_B3SS, images_B3SS)


def posterize(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Values rounded down to one to eight bits of eight."""
    step_B111 = 2.0 ** (7 - (8 * numbers_BN[:, 0]).floor()).view(-1, 1, 1, 1)
    return ((255 * images_B3SS) / step_B111).floor() * step_B111 / 255


def invert(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """The negative."""
    return 1 - images_B3SS


def autocontrast(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Each channel stretched to its whole range, 0 to 20 % cut off at either end."""
    ordered_B3P = images_B3SS.flatten(2).sort(dim=2).values
    last = ordered_B3P.shape[2] - 1
    cut_B31 = (0.2 * numbers_BN[:, 0] * last).long()[:, None, None].expand(-1, 3, 1)
    low_B311 = ordered_B3P.gather(2, cut_B31)[..., None]
    span_B311 = ordered_B3P.gather(2, last - cut_B31)[..., None] - low_B311
    stretched_B3SS = (images_B3SS - low_B311) / span_B311.clamp(min=1e-6)
    return torch.where(span_B311 > 0, stretched_B3SS, images_B3SS)


def equalize(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Each channel's values replaced by the share of pixels below them."""
    values_B3P = images_B3SS.flatten(2).contiguous()
    below_B3P = torch.searchsorted(values_B3P.sort(dim=2).values, values_B3P).float()
    most_B31 = below_B3P.amax(dim=2, keepdim=True)
    shares_B3P = torch.where(most_B31 > 0, below_B3P / most_B31.clamp(min=1), values_B3P)
    return shares_B3P.view_as(images_B3SS)


def turn(images_B3SS: Tensor, numbers_BN: Tensor) -> Tensor:
    """Images rotated by -45 to 45 degrees."""
    return rotate(images_B3SS, 90 * numbers_BN[:, 0] - 45)


AUGMENTATIONS: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    gamma,
    brightness,
    sharpness,
    hue_and_saturation,
    solarize,
    posterize,
    invert,
    autocontrast,
    equalize,
    turn,
)
