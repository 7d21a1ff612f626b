"""The fused search of topk_l2 and topk_edit on a GPU: no N×M matrix, exact by certificate.

``_screen_kernel``: tiles of the product on the tensor cores, a running list of C candidates per
query in registers; few queries split the bank among programs. ``_finish_kernel`` merges the splits:
it measures every candidate in float32 by differences, keeps the K nearest, weighs and mixes.

The screen's value differs from the exact one by at most e = ERROR (||q||² + max ||b||²), so a row
that was never kept is at least (worst kept value - e) away. Where that does not reach the K-th
exact distance (crowds of near-equal rows), the query is searched again by the reference.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kernels._triton import Compiled, compile_for, jit, tl

BLOCK_N, BLOCK_M, BLOCK_D = 64, 64, 32
WARPS = 8
TILE = 8192  # candidates x coordinates that the second kernel holds at once
PROGRAMS = 264  # two for each multiprocessor of the largest GPU
# tf32 keeps 10 bits of a factor: |error of q·b| <= 2·2^-10 ||q|| ||b|| <= 2^-10 (||q||² + ||b||²)
# and it counts twice; the factor 2 more is for float32 sums.
ERROR = 2.0**-8
WEIGHTING = {"softmax": 0, "inverse": 1, "uniform": 2}


@jit
def _screen_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, square_ptr, value_ptr, index_ptr,
    n, m, part, splits,
    D: tl.constexpr, C: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_D: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    slots = tl.arange(0, C)
    columns = tl.arange(0, BLOCK_M)
    values = tl.full((BLOCK_N, C), float("inf"), tl.float32)
    indices = tl.full((BLOCK_N, C), -1, tl.int32)
    end = tl.minimum((split + 1) * part, m)
    for first in range(split * part, end, BLOCK_M):
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
    out = (rows[:, None].to(tl.int64) * splits + split) * C + slots[None, :]
    tl.store(value_ptr + out, values, mask=rows[:, None] < n)
    tl.store(index_ptr + out, indices, mask=rows[:, None] < n)


@jit
def _finish_kernel(  # type: ignore[no-untyped-def]
    q_ptr, b_ptr, value_ptr, index_ptr, distance_ptr, found_ptr,
    edited_ptr, sure_ptr, temperature, largest, error,
    D: tl.constexpr, C: tl.constexpr, SPLITS: tl.constexpr, SLOTS: tl.constexpr,
    K: tl.constexpr, KP: tl.constexpr, MIX: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    slots, ks = tl.arange(0, SLOTS), tl.arange(0, KP)
    given = slots < C * SPLITS
    value = tl.load(value_ptr + row * C * SPLITS + slots, mask=given, other=-float("inf"))
    index = tl.load(index_ptr + row * C * SPLITS + slots, mask=given, other=-1)
    exact = tl.zeros((SLOTS,), tl.float32)
    square = 0.0
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        q = tl.load(q_ptr + row * D + d, mask=d < D, other=0.0).to(tl.float32)
        at = b_ptr + index[:, None].to(tl.int64) * D + d[None, :]
        b = tl.load(at, mask=(index[:, None] >= 0) & (d[None, :] < D), other=0.0).to(tl.float32)
        exact += tl.sum((q[None, :] - b) * (q[None, :] - b), 1)
        square += tl.sum(q * q, 0)
    exact = tl.where(index >= 0, exact, float("inf"))
    distances = tl.zeros((KP,), tl.float32)
    found = tl.zeros((KP,), tl.int32)
    for k in range(K):
        low = tl.min(exact, 0)
        best = tl.min(tl.where(exact == low, index, 2147483647), 0)
        distances = tl.where(ks == k, tl.sqrt(low), distances)
        found = tl.where(ks == k, best, found)
        exact = tl.where(index == best, float("inf"), exact)
    # A full list may have turned rows away: all of them at least as far as its worst value.
    lists = tl.where(given & (index >= 0), slots // C, -1)
    reach = float("inf")
    for split in range(SPLITS):
        full = tl.sum((lists == split).to(tl.int32), 0) == C
        worst = tl.max(tl.where(lists == split, value, -float("inf")), 0)
        reach = tl.where(full, tl.minimum(reach, worst), reach)
    farthest = tl.max(tl.where(ks < K, distances, 0.0), 0)
    sure = reach + square - error * (square + largest) > farthest * farthest
    tl.store(sure_ptr + row, sure.to(tl.int8))
    tl.store(distance_ptr + row * K + ks, distances, mask=ks < K)
    tl.store(found_ptr + row * K + ks, found.to(tl.int64), mask=ks < K)
    if MIX >= 0:
        nearest = tl.min(tl.where(ks < K, distances, float("inf")), 0)
        weight = tl.full((KP,), 1.0, tl.float32)
        if MIX == 0:
            weight = tl.exp((nearest - distances) / temperature)
        if MIX == 1:
            beyond = distances > nearest
            weight = tl.where(beyond, nearest / tl.where(beyond, distances, 1.0), 1.0)
        weight = tl.where(ks < K, weight, 0.0)
        weight = weight / tl.sum(weight, 0)
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            at = b_ptr + found[:, None].to(tl.int64) * D + d[None, :]
            b = tl.load(at, mask=(ks[:, None] < K) & (d[None, :] < D), other=0.0).to(tl.float32)
            edited = tl.sum(weight[:, None] * b, 0)
            tl.store(edited_ptr + row * D + d, edited, mask=d < D)


def search_gpu(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str | None, temperature: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (distances_NK, indices_NK, edited_ND, sure_N); edited only with a weighting."""
    dtype = torch.promote_types(queries_ND.dtype, bank_MD.dtype)
    queries_ND, bank_MD = queries_ND.to(dtype).contiguous(), bank_MD.to(dtype).contiguous()
    (n, d), m = queries_ND.shape, len(bank_MD)
    kept = max(16, 2 * _power(k))
    blocks = -(-n // BLOCK_N)
    splits = max(1, min(PROGRAMS // max(1, blocks), -(-m // (4 * kept)), 1024 // kept))
    part = -(-m // splits)
    make: dict[str, Any] = {"device": queries_ND.device}
    values = torch.empty(n, splits, kept, **make)
    indices = torch.empty(n, splits, kept, dtype=torch.int32, **make)
    distances, found = torch.empty(n, k, **make), torch.empty(n, k, dtype=torch.int64, **make)
    edited = torch.empty(n if weighting else 0, d, **make)
    sure = torch.empty(n, dtype=torch.int8, **make)
    squares = torch.cat([p.float().square().sum(1) for p in torch.split(bank_MD, 1 << 14)])
    if n:
        _screen_kernel[(blocks, splits)](
            queries_ND, bank_MD, squares, values, indices, n, m, part, splits,
            D=d, C=kept, BLOCK_N=BLOCK_N, BLOCK_M=BLOCK_M, BLOCK_D=BLOCK_D,
            num_warps=WARPS,
        )  # fmt: skip
        _finish_kernel[(n,)](
            queries_ND, bank_MD, values, indices, distances, found, edited, sure,
            temperature, float(squares.max()), ERROR + 2.0**-22 * d,
            D=d, C=kept, SPLITS=splits, SLOTS=_power(kept * splits), K=k, KP=_power(k),
            MIX=WEIGHTING[weighting] if weighting else -1,
            BLOCK_D=min(64, TILE // _power(kept * splits)), num_warps=WARPS,
        )  # fmt: skip
    return distances, found, edited, sure.bool()


def compiled(arch: int) -> list[Compiled]:
    """Compile both kernels for the sizes in use: D 192 and 272, K 5 and 32, float32 and half."""
    made: list[Compiled] = []
    for d, k, kind in ((192, 5, "fp32"), (272, 5, "fp32"), (272, 32, "fp32"), (272, 5, "bf16")):
        kept = max(16, 2 * _power(k))
        blocks = {"BLOCK_N": BLOCK_N, "BLOCK_M": BLOCK_M, "BLOCK_D": BLOCK_D}
        pointers = {"q_ptr": f"*{kind}", "b_ptr": f"*{kind}", "value_ptr": "*fp32"}
        types = pointers | {"index_ptr": "*i32"}
        screen = {"square_ptr": "*fp32", "n": "i32", "m": "i32", "part": "i32", "splits": "i32"}
        made.append(
            compile_for(_screen_kernel, arch, types | screen, {"D": d, "C": kept} | blocks, WARPS)
        )
        finish = {"distance_ptr": "*fp32", "found_ptr": "*i64", "edited_ptr": "*fp32"}
        finish |= {"sure_ptr": "*i8", "temperature": "fp32", "largest": "fp32", "error": "fp32"}
        for slots in (kept, 1024):
            constants = {"D": d, "C": kept, "SPLITS": slots // kept, "SLOTS": slots, "K": k}
            constants |= {"KP": _power(k), "MIX": 0, "BLOCK_D": min(64, TILE // slots)}
            made.append(compile_for(_finish_kernel, arch, types | finish, constants, WARPS))
    return made


def _power(x: int) -> int:
    return 1 << max(0, x - 1).bit_length()
