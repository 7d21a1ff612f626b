"""Greedy k-center (Gonzalez 1985; PatchCore's coreset): pick the point farthest from all picks.

pick_0 = start,  pick_i = argmax_x min_{j<i} ||x - pick_j||,  ties by lower index

Shape suffixes: N points, M on this rank, C in a part, D coordinates, R ranks, H numbers of a
message, P programs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from kernels import _numba
from kernels._kcenter_cpu import Waves, order_cpu
from kernels._triton import Compiled, compile_for, jit, tl, usable
from kernels.base import HALF_TOLERANCE, LARGE, Op, check_matrix, coreset_cases, reference_only

BLOCK, BLOCK_D = 64, 64
PROGRAMS = 1024
Report = Callable[[int, int], None]
Start = int | Tensor


def kcenter_order(
    points_ND: Tensor, count: int, start: Start = 0, *, on_progress: Report | None = None
) -> Tensor:
    """Return the first ``count`` picks of greedy k-center as int64 indices, prefix-stable.

    ``start`` is the first pick, or distances (N,) that no point may exceed; with distances the
    farthest point is picked first. A point is picked once; its duplicates are points of their own.
    ``on_progress(done, count)`` is called now and then. Raises ValueError on NaN or Inf, and on
    count or start out of range.
    """
    largest = check_matrix("points_ND", points_ND)
    shape = "x".join(map(str, points_ND.shape))
    if not 1 <= count <= len(points_ND):
        raise ValueError(
            f"count must be from 1 to {len(points_ND)}, got {count}: points_ND {shape}"
        )
    if isinstance(start, int) and not 0 <= start < len(points_ND):
        raise ValueError(f"start must be a row of points_ND {shape}, got {start}")
    if isinstance(start, Tensor):
        largest = max(largest, check_matrix("start", start[:, None]))
        if len(start) != len(points_ND) or bool((start < 0).any()):
            raise ValueError(f"start must hold a distance for each row of points_ND {shape}")
    report = on_progress or (lambda done, count: None)
    if points_ND.is_cuda and usable(points_ND):
        return kcenter_order_gpu(points_ND, count, start, on_progress=report)
    on_cpu = points_ND.device.type == "cpu" and _numba.AVAILABLE and not reference_only()
    if on_cpu and largest < LARGE:
        return order_cpu(points_ND, count, *_begin(points_ND, start), report)
    return kcenter_order_reference(points_ND, count, start, on_progress=report)


def kcenter_order_reference(
    points_ND: Tensor, count: int, start: Start = 0, *, on_progress: Report | None = None
) -> Tensor:
    """The truth in plain torch: a pass over the points per pick."""
    points_ND = points_ND.float()
    first, nearest_N = _begin(points_ND, start)
    order = torch.empty(count, dtype=torch.int64, device=points_ND.device)
    pick = torch.tensor(first, device=points_ND.device)
    for i in range(count):
        order[i] = pick
        chunks = zip(torch.split(points_ND, 1 << 14), torch.split(nearest_N, 1 << 14), strict=True)
        for chunk_CD, nearest_C in chunks:
            nearest_C.clamp_max_((chunk_CD - points_ND[pick]).square_().sum(dim=1))
        nearest_N[pick] = -1
        pick = nearest_N.argmax()
        if on_progress and (i + 1) % 256 == 0:
            on_progress(i + 1, count)
    return order


def _begin(points_ND: Tensor, start: Start) -> tuple[int, Tensor]:
    """The first pick and the squared distance (N,) that each point has before it."""
    if isinstance(start, int):
        return start, torch.full((len(points_ND),), torch.inf, device=points_ND.device)
    return int(start.argmax()), start.float().square()


def kcenter_order_sharded(local_MD: Tensor, count: int, start: Start = 0) -> Tensor:
    """Return ``kcenter_order`` of the points of all ranks of torch.distributed, on every rank.

    Points are numbered rank after rank, in each rank's own order. Distances to start from are those
    of the local rows. Every rank calls it, with CPU tensors and at least one row. Each pick costs a
    small message. Raises ValueError as kcenter_order.
    """
    check_matrix("local_MD", local_MD)
    sizes: list[int] = [0] * dist.get_world_size()
    dist.all_gather_object(sizes, len(local_MD))
    outside = isinstance(start, int) and not 0 <= start < sum(sizes)
    if not 1 <= count <= sum(sizes) or outside or min(sizes) < 1:
        raise ValueError(f"count {count} or start {start} does not fit shards of {sizes} rows")
    first = sum(sizes[: dist.get_rank()])
    waves = Waves(local_MD, None if isinstance(start, int) else start.square())
    # Distance, index and vector travel as float64, which holds all three exactly.
    messages_RH = torch.empty(len(sizes), local_MD.shape[1] + 2, dtype=torch.float64)
    order = torch.empty(count, dtype=torch.int64)
    if isinstance(start, Tensor):
        distance, pick = waves.farthest()
    else:
        local = 0 <= start - first < len(local_MD)
        distance, pick = (1.0, start - first) if local else (-2.0, 0)
    for i in range(count):
        head = torch.tensor([distance, float(first + pick)], dtype=torch.float64)
        message_H = torch.cat([head, waves.points_ND[pick].double()])
        dist.all_gather(list(messages_RH), message_H)
        winner_H = messages_RH[messages_RH[:, 0].argmax()]  # lower ranks hold lower indices
        order[i] = winner_H[1].long()
        row = int(order[i]) - first
        waves.add(winner_H[2:].float().numpy(), row if 0 <= row < len(local_MD) else None)
        if i + 1 < count:
            distance, pick = waves.farthest()
    return order


@jit
def _pick_kernel(  # type: ignore[no-untyped-def]
    x_ptr, near_ptr, old_value_ptr, old_index_ptr, value_ptr,
    index_ptr, order_ptr, n, part,
    D: tl.constexpr, PROGRAMS: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    # Every program finds the pick from the last pass's block maxima: no trip to the host.
    slots = tl.arange(0, PROGRAMS)
    values = tl.load(old_value_ptr + slots)
    tops = tl.load(old_index_ptr + slots)
    pick = tl.min(tl.where(values == tl.max(values, 0), tops, 9223372036854775807), 0)
    program = tl.program_id(0)
    tl.store(order_ptr, pick, mask=program == 0)
    best_value, best_index = -3.0, pick
    first = program.to(tl.int64) * part
    for offset in range(0, part, BLOCK):
        rows = first + offset + tl.arange(0, BLOCK)
        inside = (rows < n) & (rows < first + part)
        total = tl.zeros((BLOCK,), tl.float32)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            center = tl.load(x_ptr + pick * D + d, mask=d < D, other=0.0).to(tl.float32)
            at = x_ptr + rows[:, None] * D + d[None, :]
            x = tl.load(at, mask=inside[:, None] & (d[None, :] < D), other=0.0).to(tl.float32)
            total += tl.sum((x - center[None, :]) * (x - center[None, :]), 1)
        near = tl.minimum(tl.load(near_ptr + rows, mask=inside, other=-3.0), total)
        near = tl.where(rows == pick, -1.0, near)
        tl.store(near_ptr + rows, near, mask=inside)
        near = tl.where(inside, near, -3.0)
        high = tl.max(near, 0)
        row = tl.min(tl.where(near == high, rows, 9223372036854775807), 0)
        best_index = tl.where(high > best_value, row, best_index)
        best_value = tl.maximum(high, best_value)
    tl.store(value_ptr + program, best_value)
    tl.store(index_ptr + program, best_index)


def kcenter_order_gpu(
    points_ND: Tensor, count: int, start: Start = 0, *, on_progress: Report | None = None
) -> Tensor:
    """Pick by the Triton kernel: one launch per pick, queued without waiting for the GPU."""
    points_ND = points_ND.contiguous()
    first, nearest_N = _begin(points_ND, start)
    n, d = points_ND.shape
    programs = min(PROGRAMS, 1 << max(0, -(-n // BLOCK) - 1).bit_length())
    part = -(-n // programs)
    device = points_ND.device
    values_2P = torch.full((2, programs), -3.0, device=device)
    indices_2P = torch.full((2, programs), first, dtype=torch.int64, device=device)
    order = torch.empty(count, dtype=torch.int64, device=device)
    for i in range(count):
        old, new = i % 2, 1 - i % 2
        _pick_kernel[(programs,)](
            points_ND, nearest_N, values_2P[old], indices_2P[old], values_2P[new],
            indices_2P[new], order[i:], n, part,
            D=d, PROGRAMS=programs, BLOCK=BLOCK, BLOCK_D=BLOCK_D,
        )  # fmt: skip
        if on_progress and (i + 1) % 1024 == 0:
            on_progress(i + 1, count)
    return order


def compiled(arch: int) -> list[Compiled]:
    """Compile the pick kernel for the sizes in use."""
    types = dict.fromkeys(("x_ptr", "near_ptr", "old_value_ptr", "value_ptr"), "*fp32")
    types |= dict.fromkeys(("old_index_ptr", "index_ptr", "order_ptr"), "*i64")
    blocks = {"PROGRAMS": PROGRAMS, "BLOCK": BLOCK, "BLOCK_D": BLOCK_D}
    types |= {"n": "i32", "part": "i32"}
    return [compile_for(_pick_kernel, arch, types, {"D": d} | blocks) for d in (192, 272)]


def order_error(order: Tensor, truth: Tensor, arguments: tuple[Tensor, int, int]) -> float:
    """0 if the picks are equal, else the relative difference of the covering radii."""
    if torch.equal(order, truth):
        return 0.0
    if len(order.unique()) != len(order):
        return float("inf")
    radius, expected = (covering_radius(arguments[0], picks) for picks in (order, truth))
    return abs(radius - expected) / max(expected, 1e-12)


def covering_radius(points_ND: Tensor, picks: Tensor) -> float:
    """The largest distance from a point to its nearest pick."""
    centers = points_ND[picks].double()
    return max(
        float(torch.cdist(part.double(), centers).min(dim=1).values.max())
        for part in torch.split(points_ND, 1 << 12)
    )


OP = Op(
    name="kcenter_order",
    fast=kcenter_order,
    reference=kcenter_order_reference,
    gpu=kcenter_order_gpu,
    cases=coreset_cases,
    error=order_error,
    tolerance={torch.float32: 1e-5} | HALF_TOLERANCE,
    compiled=compiled,
)
