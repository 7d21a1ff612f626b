"""The cost of a fit, counted before it runs; no weights are allocated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BACKWARD = 3
"""A training step costs about three forward passes: one forward, two for the gradients."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Costs counted from the settings; an upper bound for exact searches that can stop early."""

    train_flops: float = 0.0
    pass_flops: float = 0.0
    """A forward pass of the trained network over one image."""
    score_flops: float = 0.0
    """Scoring as many images as were learned from, beside the passes: the search in a bank."""
    bank_rows: int = 0
    bank_bytes: int = 0
    coreset_flops: float = 0.0
    parameters: int = 0
    held_bytes: int = 0
    """Data that a training holds in memory beside its network."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in asdict(self)})

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and AdamW's two moments in float32, and the held data.

        Activations come on top.
        """
        return 16 * self.parameters + self.held_bytes


def coreset_rows(patches: int, rate: float) -> int:
    """Rows of a coreset: floor(patches x rate), at least one."""
    return max(1, int(patches * rate))


def bank_cost(
    patches: int, rate: float, channels: int, projection: int | None, number_bytes: int = 4
) -> Cost:
    """The cost of a greedy coreset; none where `rate` is 0. Every pick meets every patch."""
    if rate == 0:
        return Cost()
    rows = coreset_rows(patches, rate)
    width = min(channels, projection or channels)
    copied = 4 * width * patches if width < channels or number_bytes < 4 else 0
    return Cost(
        bank_rows=rows,
        # All patches are held while rows are picked, and beside them a copy that is projected or
        # in float32.
        bank_bytes=number_bytes * channels * (patches + rows) + copied,
        coreset_flops=2.0 * rows * patches * width,
        score_flops=2.0 * rows * patches * channels,
    )


def training_cost(
    build: Callable[[], nn.Module], *shapes: tuple[int, ...], samples: int, rows: int = 1
) -> Cost:
    """The cost of a network that is trained on so many samples.

    `shapes` are those of the network's inputs without their first axis, which has `rows` entries
    for each sample. FLOPs of a forward pass are counted on the meta device.
    """
    with torch.device("meta"):
        network = build().eval().requires_grad_(False)
        inputs: list[Tensor] = [torch.zeros(rows, *shape) for shape in shapes]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(*inputs)
    return Cost(
        train_flops=float(BACKWARD * counter.get_total_flops() * samples),
        pass_flops=float(counter.get_total_flops()),
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
