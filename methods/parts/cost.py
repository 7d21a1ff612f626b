"""What a fit will cost, counted before it runs and without allocating its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

BACKWARD = 3
"""A training step costs about three forward passes: one forward, two for the gradients."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Counted from the settings: an upper bound for exact searches that can stop early."""

    train_flops: float = 0.0
    bank_rows: int = 0
    bank_bytes: int = 0
    coreset_flops: float = 0.0
    parameters: int = 0
    held_bytes: int = 0
    """What a training keeps in memory beside its network."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in asdict(self)})

    @property
    def coreset_bytes(self) -> float:
        """What the coreset reads: every pick reads all patches (4 bytes for 2 FLOPs)."""
        return 2.0 * self.coreset_flops

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and AdamW's two moments in float32, and what is held beside them.

        Activations come on top.
        """
        return 16 * self.parameters + self.held_bytes


def coreset_rows(patches: int, rate: float) -> int:
    """How many patches a coreset keeps: floor(patches x rate), at least one."""
    return max(1, int(patches * rate))


def bank_cost(
    patches: int, rate: float, channels: int, projection: int | None, number_bytes: int = 4
) -> Cost:
    """A greedy coreset of `rate` of all patches: every pick is compared with every patch."""
    if rate == 0:
        return Cost()
    rows = coreset_rows(patches, rate)
    width = min(channels, projection or channels)
    copied = 4 * width * patches if width < channels or number_bytes < 4 else 0
    return Cost(
        bank_rows=rows,
        # The rows are picked from all patches, which are held meanwhile; the choice sees them in
        # float32, projected or not.
        bank_bytes=number_bytes * channels * (patches + rows) + copied,
        coreset_flops=2.0 * rows * patches * width,
    )


def training_cost(
    bank: Cost, build: Callable[[], nn.Module], *shapes: tuple[int, ...], samples: int
) -> Cost:
    """The bank's cost and that of a network trained on so many samples with one of these inputs.

    FLOPs of a forward pass are counted on the meta device.
    """
    with torch.device("meta"):
        module = build().eval()
        inputs: list[Tensor] = [torch.zeros(shape) for shape in shapes]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*inputs)
    return replace(
        bank,
        train_flops=float(BACKWARD * counter.get_total_flops() * samples),
        parameters=sum(parameter.numel() for parameter in module.parameters()),
    )
