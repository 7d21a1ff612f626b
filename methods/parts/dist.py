"""The torch.distributed seam: who started the processes is not the method's business."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def active() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number; 0 when alone."""
    return dist.get_rank() if active() else 0


def world_size() -> int:
    """How many processes work together; 1 when alone."""
    return dist.get_world_size() if active() else 1


def wrap(module: nn.Module) -> nn.Module:
    """The module under DDP where processes work together, else itself."""
    if world_size() == 1:
        return module
    return nn.parallel.DistributedDataParallel(module)


def total(values: Tensor) -> Tensor:
    """The sum over ranks."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def gather_interleaved(rows_ND: Tensor, block: int) -> Tensor:
    """Rows of all ranks, in the order in which one process alone would hold them.

    Rank r holds the blocks r, r + world, r + 2 world, ... of `block` rows each (one image's
    patches); the number of blocks may differ by one between ranks.
    """
    world = world_size()
    if world == 1:
        return rows_ND
    counts = [torch.zeros(1, dtype=torch.int64, device=rows_ND.device) for _ in range(world)]
    own = torch.tensor([len(rows_ND)], device=rows_ND.device)
    dist.all_gather(counts, own)
    sizes = [int(count) for count in counts]
    # all_gather wants equal shapes: pad to the longest, cut after.
    padded = rows_ND.new_zeros(max(sizes), rows_ND.shape[1])
    padded[: len(rows_ND)] = rows_ND
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    merged = rows_ND.new_empty(sum(sizes), rows_ND.shape[1])
    for r, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        blocks = part[:size].unflatten(0, (-1, block))
        merged.unflatten(0, (-1, block))[r::world] = blocks
    return merged
