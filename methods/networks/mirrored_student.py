"""Residual bottlenecks that keep, halve or double the grid, and what reverse distillation builds of
them: the one-class bottleneck and the mirrored decoder (Deng and Li 2022).

Shape legend: B images, C channels, h and w cells of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from methods.parts.dist import total_with_gradient, world_size

Grid = Literal["keep", "halve", "double"]


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation whose statistics are those of all ranks' samples together."""

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Features (B, C, h, w) to features of the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(x_BChw)
        float_BChw = x_BChw.float()
        count = total_with_gradient(float_BChw.new_tensor(x_BChw.numel() / x_BChw.shape[1]))
        mean_C = total_with_gradient(float_BChw.sum(dim=(0, 2, 3))) / count
        centred_BChw = float_BChw - mean_C[:, None, None]
        variance_C = total_with_gradient(centred_BChw.square().sum(dim=(0, 2, 3))) / count
        # What `nn.BatchNorm2d` scores with.
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean_C.detach(), self.momentum)
        self.running_var.lerp_((variance_C * count / (count - 1)).detach(), self.momentum)
        self.num_batches_tracked.add_(1)
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        out_BChw = centred_BChw * scale_C[:, None, None] + self.bias[:, None, None]
        return out_BChw.to(x_BChw.dtype)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions, plus the input: the block of WideResNet-50-2.

    The inner width is half of `after`. Where the grid doubles, 2x2 transposed convolutions replace
    the strided ones. Without `relu` the sum stays linear.
    """

    def __init__(self, before: int, after: int, grid: Grid = "keep", *, relu: bool = True) -> None:
        super().__init__()
        width = max(1, after // 2)
        self.inner = nn.Sequential(
            nn.Conv2d(before, width, 1, bias=False),
            BatchNorm(width),
            nn.ReLU(),
            _resized(width, width, grid, kernel=3),
            BatchNorm(width),
            nn.ReLU(),
            nn.Conv2d(width, after, 1, bias=False),
            BatchNorm(after),
        )
        self.skip: nn.Module = nn.Identity()
        if grid != "keep" or before != after:
            self.skip = nn.Sequential(_resized(before, after, grid, kernel=1), BatchNorm(after))
        self.leave = nn.ReLU() if relu else nn.Identity()

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Features (B, before, h, w) to features (B, after, h', w')."""
        out_BChw: Tensor = self.leave(self.inner(x_BChw) + self.skip(x_BChw))
        return out_BChw


def _resized(before: int, after: int, grid: Grid, kernel: int) -> nn.Module:
    if grid == "double":
        return nn.ConvTranspose2d(before, after, 2, stride=2, bias=False)
    stride = 2 if grid == "halve" else 1
    return nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False)


class Student(nn.Module):
    """The one-class bottleneck of a teacher's layers, and the mirrored decoder that rebuilds them.

    `channels` are the teacher's, from its shallowest layer to its deepest; each layer has half the
    grid of the one before it. `decoder_blocks` count from the deepest. Without `relu` the rebuilt
    layers may be negative, as those of a backbone with linear outputs are.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        bottleneck_blocks: int,
        decoder_blocks: Sequence[int],
        relu: bool,
    ) -> None:
        super().__init__()
        deepest = channels[-1]
        self.shrink = nn.ModuleList(
            nn.Sequential(*(_halved(*pair) for pair in pairwise(channels[level:])))
            for level in range(len(channels))
        )
        self.embed = nn.Sequential(
            Bottleneck(len(channels) * deepest, 2 * deepest, "halve"),
            *(Bottleneck(2 * deepest, 2 * deepest) for _ in range(bottleneck_blocks - 1)),
        )
        widths = pairwise([2 * deepest, *reversed(channels)])
        self.grow = nn.ModuleList(
            _grown(before, after, blocks, relu)
            for (before, after), blocks in zip(widths, decoder_blocks, strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, *layers_BChw: Tensor) -> list[Tensor]:
        """The reconstructions of the teacher's layers, in the same order and shapes."""
        shrunk_BChw = [shrink(x) for shrink, x in zip(self.shrink, layers_BChw, strict=True)]
        x_BChw = self.embed(torch.cat(shrunk_BChw, dim=1))
        rebuilt_BChw: list[Tensor] = []
        for grow in self.grow:
            x_BChw = grow(x_BChw)
            rebuilt_BChw.insert(0, x_BChw)
        return rebuilt_BChw


def _halved(before: int, after: int) -> nn.Sequential:
    convolution = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, BatchNorm(after), nn.ReLU())


def _grown(before: int, after: int, blocks: int, relu: bool) -> nn.Sequential:
    """Blocks of one width, the first of which doubles the grid; `relu` concerns the last alone."""
    doubling = Bottleneck(before, after, "double", relu=relu or blocks > 1)
    further = (Bottleneck(after, after, relu=relu or n < blocks - 1) for n in range(1, blocks))
    return nn.Sequential(doubling, *further)
