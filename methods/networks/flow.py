"""A normalising flow on feature maps: affine coupling, one scale and offset a channel, permutation.

The blocks are those of FrEIA's `AllInOneBlock` (Ardizzone et al.), which FastFlow is built of.
Shape legend: B images, C channels, of a half where the tensor is one, h and w grid cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.aggregate import Shape

SOFT = 0.5
"""Sharpness of the softplus that makes the scale of a channel positive."""


class FlowStep(nn.Module):
    """Scales and shifts the second half of the channels, by a function of the first half.

    Log scales stay within +-`clamp`. The Jacobian is triangular: its log-determinant is a sum over
    locations.
    """

    permutation: Tensor

    def __init__(self, channels: int, *, kernel: int, hidden_ratio: float, clamp: float) -> None:
        super().__init__()
        self.clamp = clamp
        first, second = channels - channels // 2, channels // 2
        self.halves = [first, second]
        hidden = max(1, int(first * hidden_ratio))
        self.subnet = nn.Sequential(
            nn.Conv2d(first, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 * second, kernel, padding=kernel // 2),
        )
        # A scale of one.
        self.scale = nn.Parameter(torch.full((channels, 1, 1), math.log(math.expm1(5.0)) / SOFT))
        self.offset = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("permutation", torch.randperm(channels))

    def forward(self, x_BChw: Tensor) -> tuple[Tensor, Tensor]:
        """The step's output, of the same shape, and its log-determinant (B, h, w)."""
        first_BChw, second_BChw = x_BChw.split(self.halves, dim=1)
        # A tenth of the output of the convolutions: a step starts close to the identity.
        inner_BChw = 0.1 * self.subnet(first_BChw).to(first_BChw.dtype)
        log_scale_BChw, offset_BChw = inner_BChw.chunk(2, dim=1)
        log_scale_BChw = self.clamp * log_scale_BChw.tanh()
        second_BChw = second_BChw * log_scale_BChw.exp() + offset_BChw
        scale_C11 = 0.1 * F.softplus(self.scale, beta=SOFT)
        out_BChw = torch.cat([first_BChw, second_BChw], dim=1) * scale_C11 + self.offset
        log_det_Bhw = log_scale_BChw.sum(dim=1) + scale_C11.log().sum()
        return out_BChw[:, self.permutation], log_det_Bhw


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
        """The latent z, of the same shape, and the log-determinant of all steps (B, h, w)."""
        log_det_Bhw = x_BChw.new_zeros(())
        for step in self.steps:
            x_BChw, step_log_det_Bhw = step(x_BChw)
            log_det_Bhw = log_det_Bhw + step_log_det_Bhw
        return x_BChw, log_det_Bhw


class Flows(nn.Module):
    """A norm and a flow of `flow_steps` for each layer; `kernels` are taken in turn."""

    def __init__(
        self,
        shapes: Sequence[Shape],
        *,
        flow_steps: int,
        kernels: Sequence[int],
        hidden_ratio: float,
        clamp: float,
        layer_norm: bool,
    ) -> None:
        super().__init__()
        each = [kernels[i % len(kernels)] for i in range(flow_steps)]
        norms = (nn.LayerNorm(shape) if layer_norm else nn.Identity() for shape in shapes)
        self.norms = nn.ModuleList(norms)
        self.flows = nn.ModuleList(
            Flow(channels, kernels=each, hidden_ratio=hidden_ratio, clamp=clamp)
            for channels, _, _ in shapes
        )

    def forward(self, *layers_BChw: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The latent (B, C, h, w) and log-determinant (B, h, w) of each layer."""
        return [
            flow(norm(layer_BChw))
            for layer_BChw, norm, flow in zip(layers_BChw, self.norms, self.flows, strict=True)
        ]
