"""DRAEM's two networks and three losses: rebuild the image, then tell where it was damaged.

Shape legend: B images, C channels, S side in pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOW, SIGMA = 11, 1.5
"""Of the Gaussian in which SSIM compares."""
SMOOTH = 1e-5
"""Focal loss: what a label keeps away from 0 and 1, and a probability from 0."""


def block(before: int, *widths: int) -> nn.Sequential:
    """3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for one, other in pairwise((before, *widths)):
        layers += [nn.Conv2d(one, other, 3, padding=1), nn.BatchNorm2d(other), nn.ReLU(True)]
    return nn.Sequential(*layers)


def grow(before: int, after: int) -> nn.Sequential:
    """Twice the side, then a block."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), *block(before, after)
    )


class Rebuilder(nn.Sequential):
    """The reconstruction network: an auto-encoder without skips, five levels."""

    def __init__(self, base: int) -> None:
        layers: list[nn.Module] = [block(3, base, base)]
        for before, after in pairwise(base * m for m in (1, 2, 4, 8, 8)):
            layers += [nn.MaxPool2d(2), block(before, after, after)]
        for before, after in pairwise(base * m for m in (8, 4, 2, 1, 1)):
            layers += [grow(before, before), block(before, before, after)]
        super().__init__(*layers, nn.Conv2d(base, 3, 3, padding=1))


class Segmenter(nn.Module):
    """The segmentation network: a U-Net of six levels over the image and what it was rebuilt to."""

    def __init__(self, base: int) -> None:
        super().__init__()
        self.down = nn.ModuleList([block(6, base, base)])
        for before, after in pairwise(base * m for m in (1, 2, 4, 8, 8, 8)):
            self.down.append(block(before, after, after))
        self.grow, self.mix = nn.ModuleList(), nn.ModuleList()
        for skip, after in pairwise(base * m for m in (8, 8, 4, 2, 1, 1)):
            self.grow.append(grow(skip, after))
            self.mix.append(block(after + skip, after, after))
        self.leave = nn.Conv2d(base, 2, 3, padding=1)

    def forward(self, both_B6SS: Tensor) -> Tensor:
        """Rebuilt and given image, one above the other, to logits (B, 2, S, S)."""
        x, kept = both_B6SS, []
        for level, stage in enumerate(self.down):
            x = stage(F.max_pool2d(x, 2) if level else x)
            kept.append(x)
        x = kept.pop()
        for grow, mix in zip(self.grow, self.mix, strict=True):
            x = mix(torch.cat([grow(x), kept.pop()], dim=1))
        out: Tensor = self.leave(x)
        return out


class RebuildAndTell(nn.Module):
    """Both networks, initialised as in the official code."""

    def __init__(self, rebuild_width: int, segment_width: int) -> None:
        super().__init__()
        self.rebuild, self.segment = Rebuilder(rebuild_width), Segmenter(segment_width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1.0, 0.02)

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Images to what they are rebuilt to and logits (B, 2, S, S): normal, damaged."""
        rebuilt = self.rebuild(images_B3SS)
        return rebuilt, self.segment(torch.cat([rebuilt, images_B3SS], dim=1))


def ssim(one_BCSS: Tensor, other_BCSS: Tensor) -> Tensor:
    """Structural similarity of images in [0, 1], mean over channels and pixels: (B,).

    A Gaussian of 11 pixels and sigma 1.5, zeros beyond the border (Wang et al. 2004; the official
    DRAEM). The window is separable: a banded matrix on either side.
    """
    rows, columns = (_window(side).to(one_BCSS) for side in one_BCSS.shape[-2:])

    def local(images: Tensor) -> Tensor:
        return rows @ images @ columns.T

    mean, other = local(one_BCSS), local(other_BCSS)
    spread = local(one_BCSS.square()) - mean.square()
    other_spread = local(other_BCSS.square()) - other.square()
    together = local(one_BCSS * other_BCSS) - mean * other
    light = (2 * mean * other + 0.01**2) / (mean.square() + other.square() + 0.01**2)
    contrast = (2 * together + 0.03**2) / (spread + other_spread + 0.03**2)
    return (light * contrast).mean(dim=(1, 2, 3))


def _window(side: int) -> Tensor:
    """(S, S): row i holds the weights around pixel i."""
    away = torch.arange(side)[:, None] - torch.arange(side)
    reach = torch.arange(WINDOW) - WINDOW // 2
    whole = torch.exp(-(reach.double() ** 2) / (2 * SIGMA**2)).sum()
    weights = torch.exp(-(away.double() ** 2) / (2 * SIGMA**2)) / whole
    return torch.where(away.abs() <= WINDOW // 2, weights, 0.0)


def focal(logits_B2SS: Tensor, damaged_B1SS: Tensor) -> Tensor:
    """Focal loss with gamma = 2 of labels smoothed by 1e-5, mean over pixels: (B,)."""
    normal, anomalous = logits_B2SS.softmax(dim=1).unbind(1)
    true, false = (
        torch.where(damaged_B1SS[:, 0], a, b) for a, b in ((anomalous, normal), (normal, anomalous))
    )
    certain = (1 - SMOOTH) * true + SMOOTH * false + SMOOTH
    return -((1 - certain).square() * certain.log()).mean(dim=(1, 2))
