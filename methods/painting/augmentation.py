"""The ten augmentations of which DRAEM applies three to each texture, for a whole batch at a time.

Each takes images (B, 3, S, S) in [0, 1] and uniform numbers (B, DRAWN), and returns images. Ranges
are those of the official code, whose imgaug works on bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.painting.perlin import rotate
from methods.parts.training import Draws

DRAWN, CHOSEN = 3, 3


def augment(images_B3SS: Tensor, draws: Draws) -> Tensor:
    """Three different augmentations of each image, in drawn order."""
    order = draws.uniform(len(AUGMENTATIONS)).argsort(dim=1)
    numbers = draws.uniform(CHOSEN, DRAWN)
    out = images_B3SS.clone()
    for turn in range(CHOSEN):
        for index, change in enumerate(AUGMENTATIONS):
            chosen = order[:, turn] == index
            if chosen.any():
                out[chosen] = change(out[chosen], numbers[chosen, turn]).clamp(0, 1)
    return out


def _column(numbers_BN: Tensor, index: int, low: float, high: float) -> Tensor:
    return (low + (high - low) * numbers_BN[:, index]).view(-1, 1, 1, 1)


def gamma(images: Tensor, numbers: Tensor) -> Tensor:
    """A power of 0.5 to 2, its own for each channel."""
    return images ** (0.5 + 1.5 * numbers[:, :, None, None])


def brightness(images: Tensor, numbers: Tensor) -> Tensor:
    """Times 0.8 to 1.2, plus -30 to 30 of 255."""
    return images * _column(numbers, 0, 0.8, 1.2) + _column(numbers, 1, -30 / 255, 30 / 255)


def sharpness(images: Tensor, numbers: Tensor) -> Tensor:
    """From smoothed (0) past unchanged (1) to sharpened (2), with Pillow's kernel."""
    kernel = torch.ones(3, 1, 3, 3, device=images.device)
    kernel[:, :, 1, 1] = 5
    around = F.pad(images, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(around, kernel / 13, groups=3)
    return smooth + _column(numbers, 0, 0, 2) * (images - smooth)


def hue_and_saturation(images: Tensor, numbers: Tensor) -> Tensor:
    """Both shifted by -50 to 50 of 255, the hue around its circle."""
    top, bottom = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = (top - bottom).clamp(min=1e-6)
    red, green, blue = images.split(1, dim=1)
    hue = torch.where(top == blue, 4 + (red - green) / chroma, 2 + (blue - red) / chroma)
    hue = torch.where(top == red, (green - blue) / chroma, hue)
    hue = hue + 6 * _column(numbers, 0, -50 / 255, 50 / 255)
    saturation = (top - bottom) / top.clamp(min=1e-6)
    saturation = (saturation + _column(numbers, 1, -50 / 255, 50 / 255)).clamp(0, 1)
    # Each channel falls from the top as the hue leaves its third of the circle.
    place = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    away = (place + hue) % 6
    return top - top * saturation * torch.minimum(away, 4 - away).clamp(0, 1)


def solarize(images: Tensor, numbers: Tensor) -> Tensor:
    """Every second image: values above 32 to 128 of 255 inverted."""
    above = (images >= _column(numbers, 0, 32 / 255, 128 / 255)) & (_column(numbers, 1, 0, 1) < 0.5)
    return torch.where(above, 1 - images, images)


def posterize(images: Tensor, numbers: Tensor) -> Tensor:
    """One to eight bits of eight."""
    step = 2.0 ** (7 - (8 * numbers[:, 0]).floor()).view(-1, 1, 1, 1)
    return ((255 * images) / step).floor() * step / 255


def invert(images: Tensor, numbers: Tensor) -> Tensor:
    """The negative."""
    return 1 - images


def autocontrast(images: Tensor, numbers: Tensor) -> Tensor:
    """Each channel stretched to its whole range, 0 to 20 % cut off at either end."""
    ordered = images.flatten(2).sort(dim=2).values
    cut = (0.2 * numbers[:, 0] * (ordered.shape[2] - 1)).long()[:, None, None].expand(-1, 3, 1)
    low = ordered.gather(2, cut)[..., None]
    high = ordered.gather(2, ordered.shape[2] - 1 - cut)[..., None]
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def equalize(images: Tensor, numbers: Tensor) -> Tensor:
    """Each channel's values replaced by the share of pixels below them."""
    values = images.flatten(2).contiguous()
    below = torch.searchsorted(values.sort(dim=2).values, values).float()
    most = below.amax(dim=2, keepdim=True)
    return torch.where(most > 0, below / most.clamp(min=1), values).view_as(images)


def turn(images: Tensor, numbers: Tensor) -> Tensor:
    """Rotated by -45 to 45 degrees."""
    return rotate(images, 90 * numbers[:, 0] - 45)


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
