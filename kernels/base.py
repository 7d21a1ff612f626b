"""What a kernel file declares (``OP``), and the one check of its input.

Shape suffixes in this package: N queries or points, M bank rows, D coordinates, K neighbours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

CHUNK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Op:
    """A fast operation, the plain torch truth it is held against, and the cases that try it.

    ``cases`` maps a readable id to a function that makes the arguments for a dtype; ``error`` says
    how far an output lies from the reference's; ``compiled`` makes machine code for one GPU
    architecture (80, 90) and returns one record per kernel, without a GPU.
    """

    name: str
    fast: Callable[..., Any]
    reference: Callable[..., Any]
    cases: Mapping[str, Callable[[torch.dtype], tuple[Any, ...]]]
    error: Callable[[Any, Any, tuple[Any, ...]], float]
    tolerance: Mapping[torch.dtype, float]


def reference_only() -> bool:
    """True when LAFITE_KERNELS=reference asks for plain torch everywhere."""
    return os.environ.get("LAFITE_KERNELS") == "reference"


def check_matrix(name: str, x: Tensor) -> None:
    """Raise ValueError unless x is a 2-D floating-point tensor with finite values only."""
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be a 2-D floating-point tensor, got {_shape(x)} {x.dtype}")
    if not _all_finite(x):
        raise ValueError(f"{name} {_shape(x)} holds NaN or Inf; clean the features first")


def check_search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> None:
    """Raise ValueError, naming argument and shapes, unless (queries, bank, k) can be searched."""
    check_matrix("queries_ND", queries_ND)
    check_matrix("bank_MD", bank_MD)
    shapes = f"queries_ND {_shape(queries_ND)}, bank_MD {_shape(bank_MD)}"
    if len(bank_MD) == 0:
        raise ValueError(f"bank_MD is empty: {shapes}")
    if queries_ND.shape[1] != bank_MD.shape[1]:
        raise ValueError(f"queries_ND and bank_MD differ in D: {shapes}")
    if queries_ND.device != bank_MD.device:
        raise ValueError(
            f"queries_ND is on {queries_ND.device}, bank_MD on {bank_MD.device}: {shapes}"
        )
    if not 1 <= k <= len(bank_MD):
        raise ValueError(f"k must be from 1 to {len(bank_MD)} (bank rows), got {k}: {shapes}")


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) if x.ndim else "scalar"


def _all_finite(x: Tensor) -> bool:
    # One pass without an N×D mask; a sum that overflows is looked at again, piece by piece.
    if bool(torch.isfinite(x.sum(dtype=torch.float32))):
        return True
    rows = max(1, CHUNK // max(1, x.shape[1]))
    return all(bool(torch.isfinite(part).all()) for part in x.split(rows))
