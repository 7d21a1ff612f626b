"""Which training patches a memory bank keeps, by one process or several that hold a part each.

Shape legend: N this process's patches, M kept ones, D numbers a patch. Patches count in the order
of the samples, as one process alone would count them; process r holds those of every world-th
image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.kcenter import kcenter_order, kcenter_order_sharded
from methods.base import OnProgress, Progress
from methods.parts.cost import coreset_rows
from methods.parts.dist import rank, total, world_size
from methods.parts.seeds import generator

AT_ONCE = 1 << 16
"""Patches that are projected at once."""


def choose(
    points_ND: Tensor,
    images: int,
    rate: float,
    *,
    projection: int | None,
    starts: int,
    seed: int,
    on_progress: OnProgress,
) -> tuple[Tensor, int]:
    """The kept rows (M, D) on every rank, in the order of their choice, and of how many patches.

    Greedy k-center from one seeded patch, or, with `starts`, as the official PatchCore: no patch
    counts as farther away than its mean distance to so many seeded ones. `projection` runs the
    choice on a seeded random projection to so many numbers.
    """
    cells = len(points_ND) // -(-(images - rank()) // world_size())
    patches = images * cells
    seen_in = _projected(points_ND, projection, seed)
    draw = generator(seed, "coreset start")
    start: int | Tensor
    if starts:
        drawn = torch.randperm(patches, generator=draw)[:starts].tolist()
        start = _mean_distance(seen_in, [_row(patch, cells, images) for patch in drawn])
    else:
        start = _row(int(torch.randint(patches, (1,), generator=draw)), cells, images)

    def told(done: int, count: int) -> None:
        on_progress(Progress(stage="coreset", step=done, steps=count))

    count = coreset_rows(patches, rate)
    if world_size() == 1:
        return points_ND[kcenter_order(seen_in, count, start, on_progress=told)], patches
    start = start if isinstance(start, int) else start.cpu()
    order = kcenter_order_sharded(seen_in.cpu(), count, start)
    return _gathered(points_ND, order.to(points_ND.device)), patches


def _projected(points_ND: Tensor, projection: int | None, seed: int) -> Tensor:
    """What the choice sees of the points, float32."""
    channels = points_ND.shape[1]
    if projection is None or projection >= channels:
        return points_ND.float()
    draw = torch.randn(channels, projection, generator=generator(seed, "coreset projection"))
    draw = (draw / projection**0.5).to(points_ND.device)
    seen = torch.empty(len(points_ND), projection, device=points_ND.device)
    for part, rows in zip(seen.split(AT_ONCE), points_ND.split(AT_ONCE), strict=True):
        torch.mm(rows.float(), draw, out=part)
    return seen


def _mean_distance(points_ND: Tensor, rows: list[int]) -> Tensor:
    """The mean distance (N,) of each of this rank's points to some rows of all ranks."""
    few = _gathered(points_ND, torch.tensor(rows, device=points_ND.device))
    exact = "donot_use_mm_for_euclid_dist"
    return torch.cdist(points_ND, few, compute_mode=exact).mean(dim=1)


def _row(patch: int, cells: int, images: int) -> int:
    """Where a patch lies when the ranks' patches stand one rank after the other."""
    image, cell = divmod(patch, cells)
    before = sum(-(-(images - r) // world_size()) for r in range(image % world_size()))
    return (before + image // world_size()) * cells + cell


def _gathered(points_ND: Tensor, rows: Tensor) -> Tensor:
    """Rows of all ranks' points that stand one rank after the other, (len(rows), D), everywhere."""
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=points_ND.device)
    sizes[rank()] = len(points_ND)
    own = rows - total(sizes)[: rank()].sum()
    mine = (own >= 0) & (own < len(points_ND))
    found = points_ND.new_zeros(len(rows), points_ND.shape[1])
    found[mine] = points_ND[own[mine]]
    return total(found)
