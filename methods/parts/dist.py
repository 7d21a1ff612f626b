"""The questions of methods to torch.distributed, whoever started the processes."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """This process's number; 0 when alone."""
    return dist.get_rank() if world_size() > 1 else 0


def world_size() -> int:
    """The number of processes that work together; 1 when alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def local_count(samples: int, rank: int) -> int:
    """The number of samples that a rank holds of so many: rank, rank + world, ..."""
    return -(-(samples - rank) // world_size())


def wrap(module: nn.Module) -> nn.Module:
    """The module under DDP where processes work together, else the module itself."""
    if world_size() == 1:
        return module
    # Gradients then live in the buckets that are summed: no copy of them is made or held.
    return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)


def total(values: Tensor) -> Tensor:
    """The sum over ranks, of any shape; in place where there are several."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def total_with_gradient(values: Tensor) -> Tensor:
    """The sum over ranks, of any shape; gradients flow back to all of them."""
    summed: Tensor = _Total.apply(values)
    return summed


class _Total(torch.autograd.Function):
    """Every rank's loss depends on every rank's values, so their gradients are summed as well."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return total(values.clone())

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return total(gradient.clone())
