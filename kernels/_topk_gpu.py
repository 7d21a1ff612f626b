"""The fused search of topk_l2 and topk_edit on a GPU: no N×M matrix, exact by certificate.

``_code_kernel`` centres and scales rows and rounds them to float16, which keeps as many bits as the
tensor cores' tf32 in half the bytes. ``_minima_kernel`` multiplies the codes and keeps, of every
GROUP rows of the bank, the least ||b||² - 2 q·b alone. ``_nearest_kernel`` takes the groups of a
query, the most promising first, measures their rows in float32 by differences, and stops at the
first group that can't hold a neighbour; then it weighs, gathers and mixes the K nearest.

A minimum is off by at most ``_error``. A query whose CHOSEN groups may all hold neighbours (one in
a crowd of near-equal rows) is not sure to have found them: the reference searches it again.

Shape suffixes: N queries, M bank rows, P either of them in whole blocks, D coordinates, W the same
in whole blocks, K neighbours, G groups, S chosen ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kernels._triton import Compiled, compile_for, jit, tl

BLOCK_N, BLOCK_M, BLOCK_D = 128, 128, 32
WARPS, STAGES = 8, 4
GROUP = 16  # bank rows: every (BLOCK_M / GROUP)-th of a block, as the tensor cores lay them out
CHOSEN = 32
PART_D = 128  # coordinates that are measured together
MINIMA = 1 << 26  # numbers held at once: 256 MB
CENTRE = 4096  # rows whose mean is the centre
LARGEST = 2.0**14  # of a code; float16 ends at 65,504
FAR: Any = 2147483647
WEIGHTING = {"softmax": 0, "inverse": 1, "uniform": 2}


@jit
def _code_kernel(  # type: ignore[no-untyped-def]
    x_ptr, centre_ptr, code_ptr, square_ptr, n, scale,
    D: tl.constexpr, W: tl.constexpr, BLOCK: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Codes and squared norms; a row beyond n is infinitely far."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, W, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        inside = (rows[:, None] < n) & (d[None, :] < D)
        at = x_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
        x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
        centre = tl.load(centre_ptr + d, mask=d < D, other=0.0)
        code = tl.where(inside, (x - centre[None, :]) * scale, 0.0)
        tl.store(code_ptr + rows[:, None].to(tl.int64) * W + d[None, :], code.to(tl.float16))
        total += tl.sum(code * code, 1)
    tl.store(square_ptr + rows, tl.where(rows < n, total, float("inf")))


@jit
def _minima_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, minimum_ptr, groups,
    W: tl.constexpr, GROUP: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The least ||b||² - 2 q·b of every group of a block of the bank, for a block of queries."""
    EACH: tl.constexpr = BLOCK_M // GROUP
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    bank = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    d = tl.arange(0, BLOCK_D)
    q_at = q_ptr + rows[:, None].to(tl.int64) * W + d[None, :]
    b_at = b_ptr + bank[None, :].to(tl.int64) * W + d[:, None]
    product = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for start in range(0, W, BLOCK_D):
        product = tl.dot(tl.load(q_at + start), tl.load(b_at + start), product)
    values = tl.load(square_ptr + bank)[None, :] - 2 * product
    minima = tl.min(tl.reshape(values, (BLOCK_N, GROUP, EACH)), 1)
    group = tl.program_id(1) * EACH + tl.arange(0, EACH)
    tl.store(minimum_ptr + rows[:, None].to(tl.int64) * groups + group[None, :], minima)


@jit
def _write(  # type: ignore[no-untyped-def]
    b_ptr, distance_ptr, neighbour_ptr, edited_ptr, row, best, best_index, temperature,
    D: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_D: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """Write the K best of a query in order, and their weighted mean."""
    ks = tl.arange(0, KP)
    used = ks < K
    left = tl.where(used, best, float("inf"))
    for k in range(K):
        low = tl.min(left, 0)
        index = tl.min(tl.where(left == low, best_index, FAR), 0)
        tl.store(distance_ptr + row * K + k, tl.sqrt(low))
        tl.store(neighbour_ptr + row * K + k, index.to(tl.int64))
        left = tl.where(best_index == index, float("inf"), left)
    if MIX >= 0:
        distances = tl.sqrt(tl.where(used, best, 0.0))
        nearest = tl.min(tl.where(used, distances, float("inf")), 0)
        weights = tl.full((KP,), 1.0, tl.float32)
        if MIX == 0:
            weights = tl.exp((nearest - distances) / temperature)
        if MIX == 1:
            beyond = distances > nearest
            weights = tl.where(beyond, nearest / tl.where(beyond, distances, 1.0), 1.0)
        weights = tl.where(used, weights, 0.0)
        weights = weights / tl.sum(weights, 0)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            edited = tl.zeros((BLOCK_D,), tl.float32)
            for k in range(K):
                index = tl.max(tl.where(ks == k, best_index, 0), 0).to(tl.int64)
                weight = tl.sum(tl.where(ks == k, weights, 0.0), 0)
                b = tl.load(b_ptr + index * D + d, mask=d < D, other=0.0)
                edited += weight * b.to(tl.float32)
            tl.store(edited_ptr + row * D + d, edited, mask=d < D)


@jit
def _nearest_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, chosen_ptr, bound_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr,
    m, chosen, groups, temperature,
    D: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    GROUP: tl.constexpr, EACH: tl.constexpr, BLOCK_D: tl.constexpr, FAR: tl.constexpr,
):  # fmt: skip
    """The K nearest of one query, in order, whether they are certain, and their weighted mean."""
    row = tl.program_id(0).to(tl.int64)
    ks = tl.arange(0, KP)
    # K places out of reach, told apart by index; places beyond K stay unused.
    best = tl.where(ks < K, float("inf"), float("-inf"))
    best_index = FAR - ks
    worst = tl.max(best, 0)
    s = 0
    bound = tl.load(bound_ptr + row * chosen)
    while (s < chosen) & (bound <= worst):
        group = tl.load(chosen_ptr + row * chosen + s)
        members = group // EACH * (EACH * GROUP) + group % EACH + EACH * tl.arange(0, GROUP)
        exact = tl.zeros((GROUP,), tl.float32)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            q = tl.load(q_ptr + row * D + d, mask=d < D, other=0.0).to(tl.float32)
            inside = (members[:, None] < m) & (d[None, :] < D)
            b = tl.load(b_ptr + members[:, None] * D + d[None, :], mask=inside, other=0.0)
            step = tl.where(inside, q[None, :] - b.to(tl.float32), 0.0)
            exact += tl.sum(step * step, 1)
        exact = tl.where(members < m, exact, float("inf"))
        # The nearest member takes the place of the last of the K, until none is nearer.
        low = tl.min(exact, 0)
        member = tl.min(tl.where(exact == low, members, FAR), 0).to(tl.int32)
        last = tl.max(tl.where(best == worst, best_index, -1), 0)
        while (low < worst) | ((low == worst) & (low < float("inf")) & (member < last)):
            put = (best == worst) & (best_index == last)
            best = tl.where(put, low, best)
            best_index = tl.where(put, member, best_index)
            exact = tl.where(members == member, float("inf"), exact)
            worst = tl.max(best, 0)
            low = tl.min(exact, 0)
            member = tl.min(tl.where(exact == low, members, FAR), 0).to(tl.int32)
            last = tl.max(tl.where(best == worst, best_index, -1), 0)
        s += 1
        bound = tl.load(bound_ptr + row * chosen + tl.minimum(s, chosen - 1))
    # Beyond the last chosen group lie minima that are no less than its own.
    tl.store(sure_ptr + row, ((chosen == groups) | (bound > worst)).to(tl.int8))
    _write(
        b_ptr, distance_ptr, neighbour_ptr, edited_ptr, row, best, best_index, temperature,
        D, K, KP, MIX, BLOCK_D, FAR,
    )  # fmt: skip


def search_gpu(
    queries_ND: Tensor, bank_MD: Tensor, k: int, largest: float, weighting: str | None = None,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Return distances_NK, indices_NK, edited_ND (if weighted) and sure_N (nothing was missed).

    ``largest`` is the largest magnitude of both inputs.
    """
    dtype = torch.promote_types(queries_ND.dtype, bank_MD.dtype)
    queries_ND, bank_MD = queries_ND.to(dtype).contiguous(), bank_MD.to(dtype).contiguous()
    (n, d), m = queries_ND.shape, len(bank_MD)
    make: dict[str, Any] = {"device": queries_ND.device}
    distances_NK = torch.empty(n, k, **make)
    indices_NK = torch.empty(n, k, dtype=torch.int64, **make)
    edited_ND = torch.empty(n if weighting else 0, d, **make)
    sure_N = torch.empty(n, dtype=torch.int8, **make)
    centre_D = bank_MD[:: -(-m // CENTRE)].float().mean(dim=0)
    scale = min(LARGEST / (2 * largest), 2.0**60) if largest else 1.0
    bank_codes_PW, squares_P = _codes(bank_MD, centre_D, scale, BLOCK_M)
    bank_norm = math.sqrt(squares_P[:m].max())  # the largest
    groups = len(squares_P) // GROUP
    chosen = min(groups, max(CHOSEN, 2 * _power(k)))
    mix = {"K": k, "KP": _power(k), "MIX": WEIGHTING[weighting] if weighting else -1}
    tile = {"GROUP": GROUP, "BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M, "BLOCK_D": BLOCK_D}
    step = max(1, MINIMA // groups // BLOCK_N) * BLOCK_N
    for first in range(0, n, step):
        part = slice(first, first + step)
        codes_PW, query_squares_P = _codes(queries_ND[part], centre_D, scale, BLOCK_N)
        blocks, width = len(codes_PW) // BLOCK_N, codes_PW.shape[1]
        minima_PG = torch.empty(len(codes_PW), groups, **make)
        _minima_kernel[(blocks, len(squares_P) // BLOCK_M)](
            codes_PW, bank_codes_PW, squares_P, minima_PG, groups,
            W=width, **tile, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
        size = len(queries_ND[part])
        least_NS, groups_NS = minima_PG[:size].topk(chosen, dim=1, largest=False)
        query_squares_N = query_squares_P[:size]
        offsets_N = query_squares_N - _error(query_squares_N.sqrt(), bank_norm, d)
        bounds_NS = (least_NS + offsets_N[:, None]) / scale**2
        _nearest_kernel[(size,)](
            queries_ND[part], bank_MD, groups_NS, bounds_NS, distances_NK[part], indices_NK[part],
            edited_ND[part], sure_N[part], m, chosen, groups, temperature,
            D=d, **mix, GROUP=GROUP, EACH=BLOCK_M // GROUP, BLOCK_D=PART_D, FAR=FAR,
        )  # fmt: skip
    return distances_NK, indices_NK, edited_ND, sure_N.bool()


def _codes(rows_ND: Tensor, centre_D: Tensor, scale: float, block: int) -> tuple[Tensor, Tensor]:
    """Return codes_PW float16 and the squared norms (P,) of what they round."""
    n, d = rows_ND.shape
    padded, width = -(-n // block) * block, -(-d // BLOCK_D) * BLOCK_D
    codes_PW = torch.empty(padded, width, dtype=torch.float16, device=rows_ND.device)
    squares_P = torch.empty(padded, device=rows_ND.device)
    _code_kernel[(padded // 32,)](
        rows_ND, centre_D, codes_PW, squares_P, n, scale, D=d, W=width, BLOCK=32, BLOCK_D=BLOCK_D
    )
    return codes_PW, squares_P


def _error(norms_N: Tensor, bank_norm: float, d: int) -> Tensor:
    """The largest error of a minimum, by the norms of what the codes round.

    Codes are off by 2^-11 of their norm each, and the product counts twice; float16's least step is
    2^-24; float32 rounds sums of d numbers, of the product, of squares and of the measure.
    """
    codes_N = (2.0**-9 + 2.0**-21) * norms_N * bank_norm
    steps_N = 2.0**-23 * math.sqrt(d) * (norms_N + bank_norm)
    return codes_N + steps_N + (d + 16) * 2.0**-21 * (norms_N.square() + bank_norm**2)


def compiled(arch: int) -> list[Compiled]:
    """Compile the kernels for the sizes in use: D 192, 272, 1024, K 1, 5, 32, float32 and half."""
    records: list[Compiled] = []
    sizes = ((192, 5, "fp32"), (272, 5, "fp32"), (272, 32, "fp32"), (272, 5, "bf16"))
    for d, k, kind in (*sizes, (1024, 1, "fp32")):
        types = dict.fromkeys(("x_ptr", "q_ptr", "b_ptr"), f"*{kind}")
        types |= dict.fromkeys(("centre_ptr", "square_ptr", "minimum_ptr", "bound_ptr"), "*fp32")
        types |= {"code_ptr": "*fp16", "chosen_ptr": "*i64", "distance_ptr": "*fp32"}
        types |= {"neighbour_ptr": "*i64", "edited_ptr": "*fp32", "sure_ptr": "*i8"}
        types |= dict.fromkeys(("n", "m", "chosen", "groups"), "i32")
        types |= dict.fromkeys(("temperature", "scale"), "fp32")
        width = {"W": -(-d // BLOCK_D) * BLOCK_D, "BLOCK_D": BLOCK_D}
        tile = {"GROUP": GROUP, "BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M}
        mix = {"K": k, "KP": _power(k), "MIX": 0, "GROUP": GROUP, "EACH": BLOCK_M // GROUP}
        halves = types | {"q_ptr": "*fp16", "b_ptr": "*fp16"}
        for kernel, its, constants, warps in (
            (_code_kernel, types, {"D": d, "BLOCK": 32} | width, 4),
            (_minima_kernel, halves, tile | width, WARPS),
            (_nearest_kernel, types, {"D": d, "BLOCK_D": PART_D, "FAR": FAR} | mix, 4),
        ):
            records.append(compile_for(kernel, arch, its, constants, warps))
    return records


def _power(x: int) -> int:
    """The least power of two that is not below x."""
    return 1 << max(0, x - 1).bit_length()
