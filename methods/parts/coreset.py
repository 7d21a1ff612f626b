"""The choice of the patches that a memory bank keeps, by one process or by several together.

Process r holds the patches of images r, r + world, ... A patch has a number, in the order of the
samples, and a row, where the patches of all ranks are laid one rank after the other.

Shape legend: N this rank's patches, M kept patches, D numbers of a patch, E numbers of its
projection, R rows of all ranks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.kcenter import kcenter_order, kcenter_order_sharded
from methods.parts.cost import coreset_rows
from methods.parts.dist import local_count, rank, total, world_size
from methods.parts.progress import OnProgress, Progress
from methods.parts.seeds import generator

AT_ONCE = 1 << 16
"""Patches that are projected at once."""


def choose(
    points_ND: Tensor,
    images: int,
    rate: float,
    projection: int | None,
    starts: int,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Tensor, int]:
    """The patches (M, D) to keep, on every rank, in the order of choice; and the number of all.

    Greedy k-center starts from one seeded patch. With `starts` it is that of the official
    PatchCore: no patch counts as farther away than its mean distance to so many seeded ones.
    `projection` runs the choice on a seeded random projection to so many numbers.
    """
    cells = len(points_ND) // local_count(images, rank())
    patches = images * cells
    projected_NE = _projected(points_ND, projection, seed)
    draw = generator(seed, "coreset start")
    start: int | Tensor
    if starts:
        drawn = torch.randperm(patches, generator=draw)[:starts].tolist()
        start = _mean_distance(projected_NE, [_row(patch, cells, images) for patch in drawn])
    else:
        start = _row(int(torch.randint(patches, (1,), generator=draw)), cells, images)

    def report(chosen: int, count: int) -> None:
        on_progress(Progress(stage="coreset", step=chosen, steps=count))

    count = coreset_rows(patches, rate)
    if world_size() == 1:
        return points_ND[kcenter_order(projected_NE, count, start, on_progress=report)], patches
    start = start if isinstance(start, int) else start.cpu()
    rows_M = kcenter_order_sharded(projected_NE.cpu(), count, start)
    return _gathered(points_ND, rows_M.to(points_ND.device)), patches


def _projected(points_ND: Tensor, projection: int | None, seed: int) -> Tensor:
    """The points among which the choice is made: (N, E) float32, or (N, D) unprojected."""
    channels = points_ND.shape[1]
    if projection is None or projection >= channels:
        return points_ND.float()
    draw = generator(seed, "coreset projection")
    matrix_DE = torch.randn(channels, projection, generator=draw) / projection**0.5
    matrix_DE = matrix_DE.to(points_ND.device)
    projected_NE = torch.empty(len(points_ND), projection, device=points_ND.device)
    blocks = zip(projected_NE.split(AT_ONCE), points_ND.split(AT_ONCE), strict=True)
    for projected_block, block in blocks:
        torch.mm(block.float(), matrix_DE, out=projected_block)
    return projected_NE


def _mean_distance(points_NE: Tensor, rows: list[int]) -> Tensor:
    """The mean distance (N,) of each of this rank's points to these rows."""
    rows_RE = _gathered(points_NE, torch.tensor(rows, device=points_NE.device))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points_NE, rows_RE, compute_mode=exact).mean(dim=1)


def _row(patch: int, cells: int, images: int) -> int:
    """The row of a patch."""
    image, cell = divmod(patch, cells)
    before = sum(local_count(images, earlier) for earlier in range(image % world_size()))
    return (before + image // world_size()) * cells + cell


def _gathered(points_ND: Tensor, rows_R: Tensor) -> Tensor:
    """The points (R, D) in these rows, on every rank."""
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=points_ND.device)
    sizes[rank()] = len(points_ND)
    local_R = rows_R - total(sizes)[: rank()].sum()
    held_R = (local_R >= 0) & (local_R < len(points_ND))
    gathered_RD = points_ND.new_zeros(len(rows_R), points_ND.shape[1])
    gathered_RD[held_R] = points_ND[local_R[held_R]]
    return total(gathered_RD)
