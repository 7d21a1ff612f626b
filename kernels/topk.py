"""Exact nearest neighbours: d(q, b) = ||q - b||, the K smallest per query, ties by lower index."""

from __future__ import annotations

import torch
from torch import Tensor

from kernels.base import CHUNK, check_search


def topk_l2(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k nearest bank rows of every query: (distances_NK float32, indices_NK int64).

    Euclidean distances, ascending, ties by lower index; exact for float32, float16 and bfloat16
    inputs (halves are searched as float32). Raises ValueError on input that cannot be searched.
    """
    check_search(queries_ND, bank_MD, k)
    return topk_l2_reference(queries_ND, bank_MD, k)


def topk_l2_reference(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The truth in plain torch, without an N×M matrix: blocks of the bank, merged as they come."""
    n, m = len(queries_ND), len(bank_MD)
    columns = min(m, 1 << 16)
    rows = max(1, CHUNK // columns)
    best_NK = [_rows_topk(part.float(), bank_MD, k, columns) for part in queries_ND.split(rows)]
    keys_NK = torch.cat(best_NK) if n else torch.empty(0, k, dtype=torch.int64)
    distances = (keys_NK >> 32).to(torch.int32).view(torch.float32)
    return distances, keys_NK & 0xFFFFFFFF


def _rows_topk(queries_RD: Tensor, bank_MD: Tensor, k: int, columns: int) -> Tensor:
    # A non-negative float orders like its bits, so (bits, index) is one int64 that sorts by
    # distance first and lower index second.
    best_RK = torch.empty(len(queries_RD), 0, dtype=torch.int64, device=bank_MD.device)
    for start in range(0, len(bank_MD), columns):
        part_CD = bank_MD[start : start + columns].float()
        distances_RC = torch.cdist(queries_RD, part_CD, compute_mode="donot_use_mm_for_euclid_dist")
        bits_RC = distances_RC.view(torch.int32).to(torch.int64) << 32
        keys_RC = bits_RC + torch.arange(start, start + len(part_CD), device=bank_MD.device)
        keys_RC = torch.cat([best_RK, keys_RC], dim=1)
        best_RK = keys_RC.topk(min(k, keys_RC.shape[1]), largest=False, sorted=True).values
    return best_RK
