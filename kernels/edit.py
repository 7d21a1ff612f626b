"""Feature editing (LafitE, eq. 10): replace a feature by a weighted mean of its K neighbours.

edited = sum_i w_i b_i,  b_i the K nearest bank rows of q at distance d_i
softmax: w_i = softmax(-d_i / T)    inverse: w_i = (1 / d_i) / sum_j (1 / d_j)    uniform: 1 / K

Shape suffixes: N queries, M bank rows, D coordinates, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from kernels._topk_gpu import compiled, search_gpu
from kernels._triton import usable
from kernels.base import HALF_TOLERANCE, LARGE, Op, check_search, search_cases
from kernels.topk import topk_l2, topk_l2_reference

WEIGHTINGS = ("softmax", "inverse", "uniform")


def topk_edit(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str = "softmax", temperature: float = 1
) -> Tensor:
    """Return edited_ND float32: every query replaced by the weighted mean of its k neighbours.

    ``inverse`` with a neighbour at distance 0 returns the mean of the neighbours at distance 0.
    Raises ValueError as ``topk_l2`` does, and on an unknown weighting or temperature <= 0.
    """
    if weighting not in WEIGHTINGS:
        raise ValueError(f"weighting must be one of {', '.join(WEIGHTINGS)}, got {weighting!r}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if queries_ND.is_cuda and usable(queries_ND):
        return topk_edit_gpu(queries_ND, bank_MD, k, weighting, temperature)
    distances_NK, indices_NK = topk_l2(queries_ND, bank_MD, k)
    return mix(bank_MD, indices_NK, weights(distances_NK, weighting, temperature))


def topk_edit_reference(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str = "softmax", temperature: float = 1
) -> Tensor:
    """The truth in plain torch: search, weigh, gather and mix."""
    distances_NK, indices_NK = topk_l2_reference(queries_ND, bank_MD, k)
    return mix(bank_MD, indices_NK, weights(distances_NK, weighting, temperature))


def weights(distances_NK: Tensor, weighting: str, temperature: float) -> Tensor:
    """Weights of the K neighbours, rows summing to 1."""
    if weighting == "softmax":
        return torch.softmax(-distances_NK / temperature, dim=1)
    if weighting == "uniform":
        return torch.full_like(distances_NK, 1 / max(1, distances_NK.shape[1]))
    # Relative to the nearest, so that nothing overflows; 0 / 0 is a neighbour at distance 0.
    nearness_NK = torch.nan_to_num(distances_NK[:, :1] / distances_NK, nan=1.0)
    return nearness_NK / nearness_NK.sum(dim=1, keepdim=True)


def mix(bank_MD: Tensor, indices_NK: Tensor, weights_NK: Tensor) -> Tensor:
    """Weighted mean of gathered bank rows, neighbour by neighbour: memory stays O(N·D)."""
    shape = (len(indices_NK), bank_MD.shape[1])
    edited_ND = torch.zeros(shape, dtype=torch.float32, device=bank_MD.device)
    for weight_N, index_N in zip(weights_NK.T, indices_NK.T, strict=True):
        edited_ND.addcmul_(weight_N[:, None], bank_MD[index_N].float())
    return edited_ND


def topk_edit_gpu(
    queries_ND: Tensor, bank_MD: Tensor, k: int, weighting: str, temperature: float
) -> Tensor:
    """Edit by the Triton kernels; queries without a certificate by the reference."""
    largest = check_search(queries_ND, bank_MD, k)
    if largest >= LARGE:
        return topk_edit_reference(queries_ND, bank_MD, k, weighting, temperature)
    *_, edited_ND, sure_N = search_gpu(queries_ND, bank_MD, k, largest, weighting, temperature)
    if not bool(sure_N.all()):
        unsure = queries_ND[~sure_N]
        edited_ND[~sure_N] = topk_edit_reference(unsure, bank_MD, k, weighting, temperature)
    return edited_ND


def edit_error(edited_ND: Tensor, truth_ND: Tensor, arguments: tuple[object, ...]) -> float:
    """RMS of the difference over RMS of the truth."""
    if not truth_ND.numel():
        return 0.0
    scale = float(truth_ND.square().mean().sqrt()) + 1e-6
    return float((edited_ND - truth_ND).square().mean().sqrt()) / scale


def edit_cases(dtype: torch.dtype) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The search's cases, each with one of the weightings in turn."""
    for number, (name, arguments) in enumerate(search_cases(dtype)):
        weighting = WEIGHTINGS[number % len(WEIGHTINGS)]
        yield f"{name}-{weighting}", (*arguments, weighting, 0.5)


OP = Op(
    name="topk_edit",
    fast=topk_edit,
    reference=topk_edit_reference,
    gpu=topk_edit_gpu,
    cases=edit_cases,
    error=edit_error,
    tolerance={torch.float32: 1e-4} | HALF_TOLERANCE,
    compiled=compiled,
)
