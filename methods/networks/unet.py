"""The U-Net that predicts noise on a feature grid (Ho et al. 2020, on latents).

As theirs (`diffusion_tf/models/unet.py`): one more block in each level of the way up; a skip from
the first convolution, every block and every halving; attention of one head; branches, attention and
the last convolution start at zero. Differs: weights start as torch has them, where they take
uniform numbers of the mean fan; fewer than 32 groups where a width asks for it.

Shape legend: B images, C channels, h and w grid cells, N = h w, E numbers of a step's embedding.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def step_embedding(steps_B: Tensor, width: int) -> Tensor:
    """Sines and cosines of the corruption step: (B, width)."""
    half = width // 2
    rates_E = torch.exp(-math.log(10_000) * torch.arange(half, device=steps_B.device) / half)
    angles_BE = steps_B[:, None].float() * rates_E
    return torch.cat([angles_BE.sin(), angles_BE.cos()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group norm with up to 32 groups."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with weights of zero, so that it adds nothing before it has learned."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class Residual(nn.Module):
    """Two 3x3 convolutions with a step embedding between them, plus the input."""

    def __init__(self, before: int, after: int, embedding: int) -> None:
        super().__init__()
        self.enter = nn.Sequential(norm(before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1))
        self.moment = nn.Linear(embedding, after)
        self.leave = nn.Sequential(
            norm(after), nn.SiLU(), zero(nn.Conv2d(after, after, 3, padding=1))
        )
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x_BChw: Tensor, moment_BE: Tensor) -> Tensor:
        """Features (B, before, h, w) to features (B, after, h, w)."""
        inner_BChw = self.enter(x_BChw) + self.moment(moment_BE)[:, :, None, None]
        out_BChw: Tensor = self.skip(x_BChw) + self.leave(inner_BChw)
        return out_BChw


class Attention(nn.Module):
    """Self-attention of one head over the grid, plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x_BChw: Tensor) -> Tensor:
        """Features (B, C, h, w) to features of the same shape."""
        qkv_BNC = self.qkv(self.norm(x_BChw)).flatten(2).transpose(1, 2).chunk(3, dim=2)
        mixed_BNC = attention(*qkv_BNC)
        out_BChw: Tensor = x_BChw + self.out(mixed_BNC.transpose(1, 2).reshape(x_BChw.shape))
        return out_BChw


def attention(query_BNC: Tensor, key_BNC: Tensor, value_BNC: Tensor) -> Tensor:
    """Scaled dot-product attention of one head, (B, N, C)."""
    if not torch.compiler.is_exporting():
        return F.scaled_dot_product_attention(query_BNC, key_BNC, value_BNC)
    # ONNX's own takes several heads only.
    weights_BNN = torch.softmax(query_BNC @ key_BNC.mT / math.sqrt(query_BNC.shape[-1]), dim=-1)
    return weights_BNN @ value_BNC


class AttendedBlock(nn.Module):
    """A residual block, followed by attention if `attend`."""

    def __init__(self, before: int, after: int, embedding: int, attend: bool) -> None:
        super().__init__()
        self.block = Residual(before, after, embedding)
        self.attention = Attention(after) if attend else nn.Identity()

    def forward(self, x_BChw: Tensor, moment_BE: Tensor) -> Tensor:
        """Features (B, before, h, w) to features (B, after, h, w)."""
        out_BChw: Tensor = self.attention(self.block(x_BChw, moment_BE))
        return out_BChw


class UNet(nn.Module):
    """Noise predictor: a level for each of `multipliers`, halving the grid between them.

    A grid that can't be halved so often (14 with four levels) is padded at the right and bottom by
    its border and cropped at the end.
    """

    def __init__(
        self,
        channels: int,
        *,
        base: int,
        multipliers: tuple[int, ...],
        blocks: int,
        attention_levels: int,
    ) -> None:
        super().__init__()
        widths = [base * m for m in multipliers]
        embedding = 4 * base
        self.base = base
        self.halvings = len(widths) - 1
        self.moment = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)

        def block(before: int, after: int, level: int) -> AttendedBlock:
            attend = level >= len(widths) - attention_levels
            return AttendedBlock(before, after, embedding, attend)

        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        skips = [widths[0]]
        for level, (before, after) in enumerate(pairwise([widths[0], *widths])):
            pairs = [(before, after), *[(after, after)] * (blocks - 1)]
            self.down.append(nn.ModuleList([block(*pair, level) for pair in pairs]))
            skips += [after] * blocks
            if level < self.halvings:
                self.shrink.append(nn.Conv2d(after, after, 3, stride=2, padding=1))
                skips.append(after)
        self.middle = nn.ModuleList(
            AttendedBlock(widths[-1], widths[-1], embedding, attend) for attend in (True, False)
        )
        self.up, self.grow = nn.ModuleList(), nn.ModuleList()
        before = widths[-1]
        for level in reversed(range(len(widths))):
            after = widths[level]
            befores = [before, *[after] * blocks]
            self.up.append(nn.ModuleList([block(b + skips.pop(), after, level) for b in befores]))
            if level > 0:
                self.grow.append(nn.Conv2d(after, after, 3, padding=1))
            before = after
        # The last layer starts as "no noise".
        last = zero(nn.Conv2d(widths[0], channels, 3, padding=1))
        self.leave = nn.Sequential(norm(widths[0]), nn.SiLU(), last)

    def forward(self, noisy_BChw: Tensor, steps_B: Tensor) -> Tensor:
        """The noise (B, C, h, w) in noisy features at these corruption steps."""
        height, width = noisy_BChw.shape[-2:]
        unit = 2**self.halvings
        padding = (0, -width % unit, 0, -height % unit)
        x_BChw = F.pad(noisy_BChw, padding, mode="replicate") if any(padding) else noisy_BChw
        moment_BE = self.moment(step_embedding(steps_B, self.base))
        x_BChw = self.enter(x_BChw)
        skips_BChw = [x_BChw]
        for level, blocks in enumerate(self.down):
            for block in blocks:  # type: ignore[attr-defined]
                x_BChw = block(x_BChw, moment_BE)
                skips_BChw.append(x_BChw)
            if level < self.halvings:
                x_BChw = self.shrink[level](x_BChw)
                skips_BChw.append(x_BChw)
        for block in self.middle:
            x_BChw = block(x_BChw, moment_BE)
        for level, blocks in enumerate(self.up):
            for block in blocks:  # type: ignore[attr-defined]
                x_BChw = block(torch.cat([x_BChw, skips_BChw.pop()], dim=1), moment_BE)
            if level < self.halvings:
                x_BChw = F.interpolate(x_BChw, scale_factor=2, mode="nearest")
                x_BChw = self.grow[level](x_BChw)
        noise_BChw: Tensor = self.leave(x_BChw)[..., :height, :width]
        return noise_BChw
