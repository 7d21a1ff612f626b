"""A normalising flow on feature maps: affine coupling, one scale and offset a channel, permutation.

The blocks are those of FrEIA's `AllInOneBlock` (Ardizzone et al.), which FastFlow is built of.
Shape legend: B images, C channels, h and w grid cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOFT = 0.5
"""Sharpness of the softplus that keeps the scale of a channel above zero."""


class FlowStep(nn.Module):
    """The second half of the channels, scaled and moved by what the first half says.

    Log scales stay within +-`clamp`. The Jacobian is triangular, so each location has its own part
    of the log-determinant.
    """

    permutation: Tensor

    def __init__(self, channels: int, *, kernel: int, hidden_ratio: float, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        self.first, self.second = channels - channels // 2, channels // 2
        hidden = max(1, int(self.first * hidden_ratio))
        self.subnet = nn.Sequential(
            nn.Conv2d(self.first, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 * self.second, kernel, padding=kernel // 2),
        )
        # A scale of one.
        self.scale = nn.Parameter(torch.full((channels, 1, 1), math.log(math.expm1(5.0)) / SOFT))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("permutation", torch.randperm(channels))

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to the same shape, and the log-determinant of each location (B, h, w)."""
        kept, changed = x_BChw.split([self.first, self.second], dim=1)
        log_scale, offset = self._coupling(kept)
        scale = self._channel_scale()
        out = torch.cat([kept, changed * log_scale.exp() + offset], dim=1) * scale + self.offset
        return out[:, self.permutation], log_scale.sum(dim=1) + scale.log().sum()

    def inverse(self, z_BChw: Tensor) -> Tensor:
        """What `forward` made z of."""
        out = z_BChw[:, self.permutation.argsort()]
        kept, changed = ((out - self.offset) / self._channel_scale()).split(
            [self.first, self.second], dim=1
        )
        log_scale, offset = self._coupling(kept)
        return torch.cat([kept, (changed - offset) * (-log_scale).exp()], dim=1)

    def _coupling(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        # A tenth of what the convolutions say: a step starts close to the identity.
        says = 0.1 * self.subnet(kept).to(kept.dtype)
        log_scale, offset = says.chunk(2, dim=1)
        return self.clamp * log_scale.tanh(), offset

    def _channel_scale(self) -> Tensor:
        return 0.1 * F.softplus(self.scale, beta=SOFT)


class Flow(nn.Module):
    """Steps one after the other; `kernels` are the sizes of their convolutions."""

    def __init__(
        self, channels: int, *, kernels: Sequence[int], hidden_ratio: float, clamp: float
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(
            FlowStep(channels, kernel=kernel, hidden_ratio=hidden_ratio, clamp=clamp)
            for kernel in kernels
        )

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) to the latent z, and the log-determinant of each location (B, h, w)."""
        log_det = x_BChw.new_zeros(())
        for step in self.steps:
            x_BChw, part = step(x_BChw)
            log_det = log_det + part
        return x_BChw, log_det

    def inverse(self, z_BChw: Tensor) -> Tensor:
        """What `forward` made z of."""
        for step in reversed(self.steps):
            assert isinstance(step, FlowStep)
            z_BChw = step.inverse(z_BChw)
        return z_BChw
