"""DRAEM's two networks and its losses: rebuild the image, then tell where it was damaged.

Shape legend: B images, C channels, h and w cells of a level, H and W pixels, S side in pixels.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.maps import windowed

WINDOW, SIGMA = 11, 1.5
"""Side and sigma, in pixels, of the Gaussian window of SSIM."""
SMOOTH = 1e-5
"""Distance of a smoothed label from 0 and 1, and of a probability from 0, in the focal loss."""


def block(before: int, *widths: int) -> nn.Sequential:
    """3x3 convolutions, each with batch norm and ReLU."""
    layers: list[nn.Module] = []
    for width, after in pairwise((before, *widths)):
        layers += [nn.Conv2d(width, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers)


def grow(before: int, after: int) -> nn.Sequential:
    """Upsampling to twice the side, then a block."""
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
    """The segmentation network: a U-Net of six levels over the rebuilt and the given image."""

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

    def forward(self, images_B6SS: Tensor) -> Tensor:
        """Logits (B, 2, S, S) of rebuilt and given images, whose channels are concatenated."""
        x_BChw, skips_BChw = images_B6SS, []
        for level, convolve in enumerate(self.down):
            x_BChw = convolve(F.max_pool2d(x_BChw, 2) if level else x_BChw)
            skips_BChw.append(x_BChw)
        x_BChw = skips_BChw.pop()
        for grow, mix in zip(self.grow, self.mix, strict=True):
            x_BChw = mix(torch.cat([grow(x_BChw), skips_BChw.pop()], dim=1))
        logits_B2SS: Tensor = self.leave(x_BChw)
        return logits_B2SS


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
        """Rebuilt images (B, 3, S, S) and logits (B, 2, S, S) of normal and damaged."""
        rebuilt_B3SS = self.rebuild(images_B3SS)
        return rebuilt_B3SS, self.segment(torch.cat([rebuilt_B3SS, images_B3SS], dim=1))


def ssim(x_BCHW: Tensor, y_BCHW: Tensor) -> Tensor:
    """Structural similarity of images in [0, 1], mean over channels and pixels: (B,).

    A Gaussian of 11 pixels and sigma 1.5, zeros beyond the border (Wang et al. 2004; the official
    DRAEM). The window is separable: a banded matrix on either side.
    """
    rows_HH, columns_WW = (windowed(s, WINDOW, SIGMA).to(x_BCHW) for s in x_BCHW.shape[-2:])

    def local(images_BCHW: Tensor) -> Tensor:
        return rows_HH @ images_BCHW @ columns_WW.T

    # Local statistics, each (B, C, H, W).
    mean_x, mean_y = local(x_BCHW), local(y_BCHW)
    variance_x = local(x_BCHW.square()) - mean_x.square()
    variance_y = local(y_BCHW.square()) - mean_y.square()
    covariance = local(x_BCHW * y_BCHW) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 0.01**2) / (mean_x.square() + mean_y.square() + 0.01**2)
    structure = (2 * covariance + 0.03**2) / (variance_x + variance_y + 0.03**2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def focal(logits_B2SS: Tensor, damaged_B1SS: Tensor) -> Tensor:
    """Focal loss with gamma = 2 of labels smoothed by 1e-5, mean over pixels: (B,)."""
    normal_BSS, anomalous_BSS = logits_B2SS.softmax(dim=1).unbind(1)
    right_BSS = torch.where(damaged_B1SS[:, 0], anomalous_BSS, normal_BSS)
    wrong_BSS = torch.where(damaged_B1SS[:, 0], normal_BSS, anomalous_BSS)
    smooth_BSS = (1 - SMOOTH) * right_BSS + SMOOTH * wrong_BSS + SMOOTH
    return -((1 - smooth_BSS).square() * smooth_BSS.log()).mean(dim=(1, 2))
