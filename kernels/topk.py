"""Exact nearest neighbours: d(q, b) = ||q - b||, the K smallest per query, ties by lower index.

Shape suffixes: N queries, R in a part, M bank rows, C in a part, D coordinates, K neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kernels import _numba
from kernels._topk_cpu import search
from kernels._topk_gpu import compiled, search_gpu
from kernels._triton import usable
from kernels.base import HALF_TOLERANCE, LARGE, Op, check_search, reference_only, search_cases

CHUNK = 1 << 22  # distances that the reference holds at once
FEW = 16  # queries below which preparing a bank does not pay


def topk_l2(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest bank rows of every query: (distances_NK float32, indices_NK int64).

    Euclidean distances, ascending, ties by lower index; exact for float32, float16 and bfloat16
    inputs (halves are searched as float32). Raises ValueError on input that cannot be searched.
    """
    if torch.compiler.is_exporting():
        return _exportable(queries_ND, bank_MD, k)
    if queries_ND.is_cuda and usable(queries_ND):
        return topk_l2_gpu(queries_ND, bank_MD, k)
    largest = check_search(queries_ND, bank_MD, k)
    on_cpu = queries_ND.device.type == "cpu" and _numba.AVAILABLE and not reference_only()
    if on_cpu and len(queries_ND) >= FEW and largest < LARGE:
        squares_NK, indices_NK = search(queries_ND, bank_MD, k)
        return squares_NK.sqrt_(), indices_NK
    return topk_l2_reference(queries_ND, bank_MD, k)


def _exportable(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The search in operators that other runtimes have; of equal distances any comes first."""
    distances_NM = torch.cdist(queries_ND.float(), bank_MD.float())
    nearest = distances_NM.topk(k, largest=False, sorted=True)
    return nearest.values, nearest.indices


def topk_l2_reference(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The truth in plain torch, without an N×M matrix: blocks of the bank, merged as they come."""
    columns = min(len(bank_MD), 1 << 16)
    parts = torch.split(queries_ND, max(1, CHUNK // columns))
    keys_NK = torch.cat([_part_topk(part_RD.float(), bank_MD, k, columns) for part_RD in parts])
    distances_NK = (keys_NK >> 32).to(torch.int32).view(torch.float32)
    return distances_NK, keys_NK & 0xFFFFFFFF


def _part_topk(queries_RD: Tensor, bank_MD: Tensor, k: int, columns: int) -> Tensor:
    # A non-negative float orders like its bits: the int64 of (bits, index) sorts by distance first
    # and lower index second.
    best_RK = torch.empty(len(queries_RD), 0, dtype=torch.int64, device=bank_MD.device)
    for start in range(0, len(bank_MD), columns):
        part_CD = bank_MD[start : start + columns].float()
        distances_RC = torch.cdist(queries_RD, part_CD, compute_mode="donot_use_mm_for_euclid_dist")
        bits_RC = distances_RC.view(torch.int32).to(torch.int64) << 32
        keys_RC = bits_RC + torch.arange(start, start + len(part_CD), device=bank_MD.device)
        keys_RC = torch.cat([best_RK, keys_RC], dim=1)
        best_RK = keys_RC.topk(min(k, keys_RC.shape[1]), largest=False, sorted=True).values
    return best_RK


def topk_l2_gpu(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search by the Triton kernels; queries without a certificate by the reference."""
    largest = check_search(queries_ND, bank_MD, k)
    if largest >= LARGE:
        return topk_l2_reference(queries_ND, bank_MD, k)
    distances_NK, indices_NK, _, sure_N = search_gpu(queries_ND, bank_MD, k, largest)
    if not bool(sure_N.all()):
        again = topk_l2_reference(queries_ND[~sure_N], bank_MD, k)
        distances_NK[~sure_N], indices_NK[~sure_N] = again
    return distances_NK, indices_NK


def topk_error(
    got: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor], arguments: tuple[Tensor, Tensor, int]
) -> float:
    """RMS error over RMS of the truth: of the distances, and of those measured at the indices."""
    queries_ND, bank_MD, _ = arguments
    steps_NKD = queries_ND.float()[:, None] - bank_MD.float()[got[1]]
    if any(len(set(row)) != len(row) for row in got[1].tolist()):
        return float("inf")
    scale = float(truth[0].square().mean().sqrt()) + 1e-6 if len(queries_ND) else 1.0
    errors = [got[0] - truth[0], steps_NKD.norm(dim=2) - truth[0]]
    return max((float(e.square().mean().sqrt()) / scale for e in errors if e.numel()), default=0.0)


OP = Op(
    name="topk_l2",
    fast=topk_l2,
    reference=topk_l2_reference,
    gpu=topk_l2_gpu,
    cases=search_cases,
    error=topk_error,
    tolerance={torch.float32: 1e-4} | HALF_TOLERANCE,
    compiled=compiled,
)
