"""The fused search of topk_l2 and topk_edit on a GPU: no N×M matrix, exact by certificate.

``_fused_kernel`` does it all for a block of queries: tiles of the product on the tensor cores, a
running list of C candidates per query in registers, then every candidate measured in float32 by
differences, the K nearest kept, weighed, gathered and mixed. Few queries would leave most of the
GPU idle: there ``_split_kernel`` finds the candidates of a part of the bank each, and
``_merge_kernel`` goes on from those of all parts.

The screen's value differs from the exact one by at most e = error (||q||² + max ||b||²), so a row
that was never kept is at least (worst kept value - e) away. Where that does not reach the K-th
exact distance (crowds of near-equal rows), the query is searched again by the reference.
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
    """The C lowest of ||b||² - 2 q·b over the bank's rows begin to end: values, indices (BN, C)."""
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
        # Rows of the tile enter one at a time, each in place of the worst, until none is better.
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
    q_ptr, b_ptr, rows, n, values, indices, best, found, reach,
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
        last = tl.max(tl.where(best == worst[:, None], found, -1), 1)
        nearer = (exact < worst) | ((exact == worst) & (index < last) & (index >= 0))
        put = (best == worst[:, None]) & (found == last[:, None]) & nearer[:, None]
        best = tl.where(put, exact[:, None], best)
        found = tl.where(put, index[:, None], found)
    # A full list may have turned rows away: all of them at least as far as its worst value.
    full = tl.min(indices, 1) >= 0
    reach = tl.where(full, tl.minimum(reach, tl.max(values, 1)), reach)
    return best, found, reach


@jit
def _finish(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, distance_ptr, found_ptr, edited_ptr, sure_ptr, rows, n, best, found, reach,
    temperature, largest, error,
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
        index = tl.min(tl.where(left == low[:, None], found, 2147483647), 1)
        at = rows.to(tl.int64) * K + k
        tl.store(distance_ptr + at, tl.sqrt(low), mask=rows < n)
        tl.store(found_ptr + at, index.to(tl.int64), mask=rows < n)
        left = tl.where(used & (found == index[:, None]), float("inf"), left)
    if MIX >= 0:
        # Rows beyond n found nothing; infinity there would only raise warnings.
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
                index = tl.max(tl.where(ks[None, :] == k, found, 0), 1)
                weight = tl.sum(tl.where(ks[None, :] == k, weights, 0.0), 1)
                b_at = b_ptr + index[:, None].to(tl.int64) * D + d[None, :]
                edited += weight[:, None] * tl.load(b_at, mask=inside, other=0.0).to(tl.float32)
            at = edited_ptr + rows[:, None].to(tl.int64) * D + d[None, :]
            tl.store(at, edited, mask=inside)


@jit
def _fused_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, distance_ptr, found_ptr, edited_ptr, sure_ptr,
    n, m, temperature, largest, error,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    values, indices = _candidates(
        q_ptr, b_ptr, square_ptr, rows, n, 0, m, D, C, BLOCK_N, BLOCK_M, BLOCK_D
    )
    best, found, reach = _empty(BLOCK_N, K, KP)
    best, found, reach = _measure(
        q_ptr, b_ptr, rows, n, values, indices, best, found, reach, D, C, BLOCK_N, BLOCK_D
    )
    _finish(
        q_ptr, b_ptr, distance_ptr, found_ptr, edited_ptr, sure_ptr, rows, n, best, found, reach,
        temperature, largest, error, D, K, KP, MIX, BLOCK_N, BLOCK_D,
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
    q_ptr, b_ptr, value_ptr, index_ptr, distance_ptr, found_ptr, edited_ptr, sure_ptr,
    n, splits, temperature, largest, error,
    D: tl.constexpr, C: tl.constexpr, K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    best, found, reach = _empty(BLOCK_N, K, KP)
    for split in range(0, splits):
        at = (rows[:, None].to(tl.int64) * splits + split) * C + tl.arange(0, C)[None, :]
        values = tl.load(value_ptr + at, mask=rows[:, None] < n, other=float("inf"))
        indices = tl.load(index_ptr + at, mask=rows[:, None] < n, other=-1)
        best, found, reach = _measure(
            q_ptr, b_ptr, rows, n, values, indices, best, found, reach, D, C, BLOCK_N, BLOCK_D
        )
    _finish(
        q_ptr, b_ptr, distance_ptr, found_ptr, edited_ptr, sure_ptr, rows, n, best, found, reach,
        temperature, largest, error, D, K, KP, MIX, BLOCK_N, BLOCK_D,
    )  # fmt: skip


def search_gpu(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (distances_NK, indices_NK, edited_ND, sure_N); edited only with a weighting."""
    dtype = torch.promote_types(queries_ND.dtype, bank_MD.dtype)
    queries_ND, bank_MD = queries_ND.to(dtype).contiguous(), bank_MD.to(dtype).contiguous()
    (n, d), m = queries_ND.shape, len(bank_MD)
    kept = max(16, 2 * _power(k))
    blocks = -(-n // BLOCK_N)
    splits = max(1, min(PROGRAMS // max(1, blocks), -(-m // (4 * kept)), MOST_SPLITS))
    make: dict[str, Any] = {"device": queries_ND.device}
    distances, found = torch.empty(n, k, **make), torch.empty(n, k, dtype=torch.int64, **make)
    edited = torch.empty(n if weighting else 0, d, **make)
    sure = torch.empty(n, dtype=torch.int8, **make)
    squares = torch.cat([p.float().square().sum(1) for p in torch.split(bank_MD, 1 << 14)])
    outputs = distances, found, edited, sure
    bounds = temperature, float(squares.max()), ERROR + 2.0**-22 * d
    mix = {"K": k, "KP": _power(k), "MIX": WEIGHTING[weighting] if weighting else -1}
    sizes = {"D": d, "C": kept, "BLOCK_D": BLOCK_D, "num_warps": WARPS}
    tile = {"BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M}
    if splits == 1 and n:
        _fused_kernel[(blocks,)](
            queries_ND, bank_MD, squares, *outputs, n, m, *bounds, **sizes, **mix, **tile
        )
    elif n:
        values = torch.empty(n, splits, kept, **make)
        indices = torch.empty(n, splits, kept, dtype=torch.int32, **make)
        _split_kernel[(blocks, splits)](
            queries_ND, bank_MD, squares, values, indices, n, m, -(-m // splits), splits,
            **sizes, **tile,
        )  # fmt: skip
        _merge_kernel[(-(-n // MERGED),)](
            queries_ND, bank_MD, values, indices, *outputs, n, splits, *bounds,
            **sizes, **mix, BLOCK_N=MERGED,
        )  # fmt: skip
    return distances, found, edited, sure.bool()


def compiled(arch: int) -> list[Compiled]:
    """Compile the kernels for the sizes in use: D 192, 272, 1024, K 1, 5, 32, float32 and half."""
    made: list[Compiled] = []
    sizes = ((192, 5, "fp32"), (272, 5, "fp32"), (272, 32, "fp32"), (272, 5, "bf16"))
    for d, k, kind in (*sizes, (1024, 1, "fp32")):
        kept = max(16, 2 * _power(k))
        types = {"q_ptr": f"*{kind}", "b_ptr": f"*{kind}", "square_ptr": "*fp32"}
        types |= {"value_ptr": "*fp32", "index_ptr": "*i32", "distance_ptr": "*fp32"}
        types |= {"found_ptr": "*i64", "edited_ptr": "*fp32", "sure_ptr": "*i8"}
        types |= dict.fromkeys(("n", "m", "part", "splits"), "i32")
        types |= dict.fromkeys(("temperature", "largest", "error"), "fp32")
        screen = {"D": d, "C": kept, "BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M, "BLOCK_D": BLOCK_D}
        mix = {"K": k, "KP": _power(k), "MIX": 0}
        merge = {"D": d, "C": kept, "BLOCK_N": MERGED, "BLOCK_D": BLOCK_D}
        for kernel, constants in (
            (_fused_kernel, screen | mix),
            (_split_kernel, screen),
            (_merge_kernel, merge | mix),
        ):
            made.append(compile_for(kernel, arch, types, constants, WARPS))
    return made


def _power(x: int) -> int:
    return 1 << max(0, x - 1).bit_length()
