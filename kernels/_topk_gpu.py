"""The fused search of topk_l2 and topk_edit on a GPU: no N×M matrix, exact by certificate.

``_fused_kernel`` does it all for a block of queries. Tiles of the product come from the tensor
cores; a list of C candidates per query stays in registers. Every candidate is then measured in
float32 by differences, and the K nearest are weighed, gathered and mixed. Few queries would leave
most of the GPU idle: there ``_split_kernel`` finds the candidates of a part of the bank, and
``_merge_kernel`` goes on from those of all parts.

A candidate's value ||b||² - 2 q·b is off by at most e = error (||q||² + max ||b||²). So a row that
never entered the list has a squared distance of at least (worst value in it + ||q||² - e). Where
that does not exceed the K-th exact one (crowds of near-equal rows), the reference searches again.

Shape suffixes: N queries, M bank rows, D coordinates, K neighbours, S parts of the bank, C
candidates. In a kernel ``best`` (BN, KP) are exact squared distances, ``best_index`` their bank
rows, and ``reach`` (BN,) is the least value that a full list may have turned away.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels._triton import Compiled, compile_for, jit, tl

BLOCK_N, BLOCK_M, BLOCK_D = 64, 64, 32
MERGED = 16  # queries that one program merges
WARPS = 8
PROGRAMS = 264  # two for each multiprocessor of the largest GPU
MOST_SPLITS = 64
# tf32 keeps 10 bits of a factor: |error of q·b| <= 2·2^-10 ||q|| ||b|| <= 2^-10 (||q||² + ||b||²)
# and it counts twice; the factor 2 more is for float32 sums.
ERROR = 2.0**-8
WEIGHTING = {"softmax": 0, "inverse": 1, "uniform": 2}


@jit
def _candidates(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, rows, n, begin, end,
    D: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    """The C least of ||b||² - 2 q·b over the bank's rows begin to end: values, indices (BN, C)."""
    slots = tl.arange(0, C)
    columns = tl.arange(0, BLOCK_M)
    values = tl.full((BLOCK_N, C), float("inf"), tl.float32)
    indices = tl.full((BLOCK_N, C), -1, tl.int32)
    for first in range(begin, end, BLOCK_M):
        bank = first + columns
        product = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            q_at = q_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
            q = tl.load(q_at, mask=(rows[:, None] < n) & (d[None, :] < D), other=0.0)
            b_at = b_ptr + bank[None, :].to(tl.int64) * D + d[:, None]
            b = tl.load(b_at, mask=(bank[None, :] < end) & (d[:, None] < D), other=0.0)
            product = tl.dot(q, b, product, input_precision="tf32")
        square = tl.load(square_ptr + bank, mask=bank < end, other=float("inf"))
        tile = square[None, :] - 2 * product
        # A row of the tile enters in place of the worst candidate, until no row is better.
        low, worst = tl.min(tile, 1), tl.max(values, 1)
        while tl.max((low < worst).to(tl.int32), 0) > 0:
            column, slot = tl.argmin(tile, 1), tl.argmax(values, 1)
            put = (slots[None, :] == slot[:, None]) & (low < worst)[:, None]
            values = tl.where(put, low[:, None], values)
            indices = tl.where(put, (first + column)[:, None].to(tl.int32), indices)
            tile = tl.where(columns[None, :] == column[:, None], float("inf"), tile)
            low, worst = tl.min(tile, 1), tl.max(values, 1)
    return values, indices


@jit
def _measure(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, rows, n, values, indices, best, best_index, reach,
    D: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Put C candidates among the K best by their exact squared distance, ties by lower index."""
    slots = tl.arange(0, C)
    for c in range(C):
        index = tl.max(tl.where(slots[None, :] == c, indices, -1), 1)
        exact = tl.zeros((BLOCK_N,), tl.float32)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            inside = (rows[:, None] < n) & (d[None, :] < D)
            q_at = q_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
            q = tl.load(q_at, mask=inside, other=0.0).to(tl.float32)
            b_at = b_ptr + index[:, None].to(tl.int64) * D + d[None, :]
            b = tl.load(b_at, mask=inside & (index[:, None] >= 0), other=0.0).to(tl.float32)
            exact += tl.sum((q - b) * (q - b), 1)
        exact = tl.where(index >= 0, exact, float("inf"))
        worst = tl.max(best, 1)
        last = tl.max(tl.where(best == worst[:, None], best_index, -1), 1)
        nearer = (exact < worst) | ((exact == worst) & (index < last) & (index >= 0))
        put = (best == worst[:, None]) & (best_index == last[:, None]) & nearer[:, None]
        best = tl.where(put, exact[:, None], best)
        best_index = tl.where(put, index[:, None], best_index)
    # A full list may have turned rows away: all of them at least as far as its worst value.
    full = tl.min(indices, 1) >= 0
    reach = tl.where(full, tl.minimum(reach, tl.max(values, 1)), reach)
    return best, best_index, reach


@jit
def _finish(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr, rows, n,
    best, best_index, reach, temperature, largest, error,
    D: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write the K best in order, whether they are certain, and their weighted mean."""
    ks = tl.arange(0, KP)
    used = ks[None, :] < K
    square = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        q_at = q_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
        q = tl.load(q_at, mask=(rows[:, None] < n) & (d[None, :] < D), other=0.0).to(tl.float32)
        square += tl.sum(q * q, 1)
    farthest = tl.max(best, 1)
    sure = reach + square - error * (square + largest) > farthest
    tl.store(sure_ptr + rows, sure.to(tl.int8), mask=rows < n)
    left = tl.where(used, best, float("inf"))
    for k in range(K):
        low = tl.min(left, 1)
        index = tl.min(tl.where(left == low[:, None], best_index, 2147483647), 1)
        at = rows.to(tl.int64) * K + k
        tl.store(distance_ptr + at, tl.sqrt(low), mask=rows < n)
        tl.store(neighbour_ptr + at, index.to(tl.int64), mask=rows < n)
        left = tl.where(used & (best_index == index[:, None]), float("inf"), left)
    if MIX >= 0:
        # Rows beyond n have no neighbours; infinity there would only raise warnings.
        distances = tl.sqrt(tl.where(used & (best < float("inf")), best, 0.0))
        nearest = tl.min(tl.where(used, distances, float("inf")), 1)[:, None]
        weights = tl.full((BLOCK_N, KP), 1.0, tl.float32)
        if MIX == 0:
            weights = tl.exp((nearest - distances) / temperature)
        if MIX == 1:
            beyond = distances > nearest
            weights = tl.where(beyond, nearest / tl.where(beyond, distances, 1.0), 1.0)
        weights = tl.where(used, weights, 0.0)
        weights = weights / tl.sum(weights, 1)[:, None]
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            inside = (rows[:, None] < n) & (d[None, :] < D)
            edited = tl.zeros((BLOCK_N, BLOCK_D), tl.float32)
            for k in range(K):
                index = tl.max(tl.where(ks[None, :] == k, best_index, 0), 1)
                weight = tl.sum(tl.where(ks[None, :] == k, weights, 0.0), 1)
                b_at = b_ptr + index[:, None].to(tl.int64) * D + d[None, :]
                edited += weight[:, None] * tl.load(b_at, mask=inside, other=0.0).to(tl.float32)
            at = edited_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
            tl.store(at, edited, mask=inside)


@jit
def _fused_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr,
    n, m, temperature, largest, error,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    values, indices = _candidates(
        q_ptr, b_ptr, square_ptr, rows, n, 0, m, D, C, BLOCK_N, BLOCK_M, BLOCK_D
    )
    best, best_index, reach = _empty(BLOCK_N, K, KP)
    best, best_index, reach = _measure(
        q_ptr, b_ptr, rows, n, values, indices, best, best_index, reach, D, C, BLOCK_N, BLOCK_D
    )
    _finish(
        q_ptr, b_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr, rows, n,
        best, best_index, reach, temperature, largest, error, D, K, KP, MIX, BLOCK_N, BLOCK_D,
    )  # fmt: skip


@jit
def _empty(BLOCK_N: tl.constexpr, K: tl.constexpr, KP: tl.constexpr):  # type: ignore[no-untyped-def]
    """K places out of reach for each query, told apart by index; places beyond K stay unused."""
    ks = tl.arange(0, KP)[None, :] + tl.zeros((BLOCK_N, KP), tl.int32)
    best = tl.where(ks < K, float("inf"), float("-inf"))
    return best, 2147483647 - ks, tl.full((BLOCK_N,), float("inf"), tl.float32)


@jit
def _split_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, value_ptr, index_ptr, n, m, part, splits,
    D: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    end = tl.minimum((split + 1) * part, m)
    values, indices = _candidates(
        q_ptr, b_ptr, square_ptr, rows, n, split * part, end, D, C, BLOCK_N, BLOCK_M, BLOCK_D
    )
    out = (rows[:, None].to(tl.int64) * splits + split) * C + tl.arange(0, C)[None, :]
    tl.store(value_ptr + out, values, mask=rows[:, None] < n)
    tl.store(index_ptr + out, indices, mask=rows[:, None] < n)


@jit
def _merge_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, value_ptr, index_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr,
    n, splits, temperature, largest, error,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    best, best_index, reach = _empty(BLOCK_N, K, KP)
    for split in range(0, splits):
        at = (rows[:, None].to(tl.int64) * splits + split) * C + tl.arange(0, C)[None, :]
        values = tl.load(value_ptr + at, mask=rows[:, None] < n, other=float("inf"))
        indices = tl.load(index_ptr + at, mask=rows[:, None] < n, other=-1)
        best, best_index, reach = _measure(
            q_ptr, b_ptr, rows, n, values, indices, best, best_index, reach, D, C, BLOCK_N, BLOCK_D
        )
    _finish(
        q_ptr, b_ptr, distance_ptr, neighbour_ptr, edited_ptr, sure_ptr, rows, n,
        best, best_index, reach, temperature, largest, error, D, K, KP, MIX, BLOCK_N, BLOCK_D,
    )  # fmt: skip


def search_gpu(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return distances_NK, indices_NK, edited_ND (if weighted) and sure_N (nothing was missed)."""
    dtype = torch.promote_types(queries_ND.dtype, bank_MD.dtype)
    queries_ND, bank_MD = queries_ND.to(dtype).contiguous(), bank_MD.to(dtype).contiguous()
    (n, d), m = queries_ND.shape, len(bank_MD)
    candidates = max(16, 2 * _power(k))
    blocks = -(-n // BLOCK_N)
    splits = max(1, min(PROGRAMS // max(1, blocks), -(-m // (4 * candidates)), MOST_SPLITS))
    make: dict[str, Any] = {"device": queries_ND.device}
    distances_NK = torch.empty(n, k, **make)
    indices_NK = torch.empty(n, k, dtype=torch.int64, **make)
    edited_ND = torch.empty(n if weighting else 0, d, **make)
    sure_N = torch.empty(n, dtype=torch.int8, **make)
    squares_M = torch.cat([p.float().square().sum(1) for p in torch.split(bank_MD, 1 << 14)])
    outputs = distances_NK, indices_NK, edited_ND, sure_N
    bounds = temperature, float(squares_M.max()), ERROR + 2.0**-22 * d
    mix = {"K": k, "KP": _power(k), "MIX": WEIGHTING[weighting] if weighting else -1}
    sizes = {"D": d, "C": candidates, "BLOCK_D": BLOCK_D, "num_warps": WARPS}
    tile = {"BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M}
    if splits == 1 and n:
        _fused_kernel[(blocks,)](
            queries_ND, bank_MD, squares_M, *outputs, n, m, *bounds, **sizes, **mix, **tile
        )
    elif n:
        values_NSC = torch.empty(n, splits, candidates, **make)
        rows_NSC = torch.empty(n, splits, candidates, dtype=torch.int32, **make)
        _split_kernel[(blocks, splits)](
            queries_ND, bank_MD, squares_M, values_NSC, rows_NSC, n, m, -(-m // splits), splits,
            **sizes, **tile,
        )  # fmt: skip
        _merge_kernel[(-(-n // MERGED),)](
            queries_ND, bank_MD, values_NSC, rows_NSC, *outputs, n, splits, *bounds,
            **sizes, **mix, BLOCK_N=MERGED,
        )  # fmt: skip
    return distances_NK, indices_NK, edited_ND, sure_N.bool()


def compiled(arch: int) -> list[Compiled]:
    """Compile the kernels for the sizes in use: D 192, 272, 1024, K 1, 5, 32, float32 and half."""
    records: list[Compiled] = []
    sizes = ((192, 5, "fp32"), (272, 5, "fp32"), (272, 32, "fp32"), (272, 5, "bf16"))
    for d, k, kind in (*sizes, (1024, 1, "fp32")):
        types = {"q_ptr": f"*{kind}", "b_ptr": f"*{kind}", "square_ptr": "*fp32"}
        types |= {"value_ptr": "*fp32", "index_ptr": "*i32", "distance_ptr": "*fp32"}
        types |= {"neighbour_ptr": "*i64", "edited_ptr": "*fp32", "sure_ptr": "*i8"}
        types |= dict.fromkeys(("n", "m", "part", "splits"), "i32")
        types |= dict.fromkeys(("temperature", "largest", "error"), "fp32")
        common = {"D": d, "C": max(16, 2 * _power(k)), "BLOCK_D": BLOCK_D}
        tile = {"BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M}
        mix = {"K": k, "KP": _power(k), "MIX": 0}
        for kernel, constants in (
            (_fused_kernel, common | tile | mix),
            (_split_kernel, common | tile),
            (_merge_kernel, common | mix | {"BLOCK_N": MERGED}),
        ):
            records.append(compile_for(kernel, arch, types, constants, WARPS))
    return records


def _power(x: int) -> int:
    """The least power of two that is not below x."""
    return 1 << max(0, x - 1).bit_length()
