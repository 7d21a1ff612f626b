"""The declaration of a kernel file (``OP``), cases, and the only check of its input.

Shape suffixes: N queries or points, M bank rows, D coordinates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LARGE = 1e16  # beyond it the squares of a row's numbers may leave float32


@dataclass(frozen=True, kw_only=True)
class Op:
    """A fast operation, the plain torch truth that it is held against, and the cases that try it.

    ``gpu`` is the Triton path alone, for the interpreter. ``cases(dtype)`` yields a readable id and
    the arguments. ``error(got, expected, arguments)`` is the distance of an output from the truth.
    ``compiled(arch)`` makes machine code for sm_<arch> without a GPU, a record per kernel.
    """

    name: str
    fast: Callable[..., Any]
    reference: Callable[..., Any]
    gpu: Callable[..., Any]
    cases: Callable[[torch.dtype], Iterator[tuple[str, tuple[Any, ...]]]]
    error: Callable[[Any, Any, Any], float]
    tolerance: Mapping[torch.dtype, float]
    compiled: Callable[[int], list[Any]]


HALF_TOLERANCE = {torch.float16: 1e-5, torch.bfloat16: 1e-5}
"""Both sides widen halves to float32 before they search."""


def search_cases(dtype: torch.dtype) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Awkward (queries, bank, k): sizes 1, primes, K = M, ties, odd strides, an offset."""
    normal = _normal(0, dtype)
    yield "one-query", (normal(1, 5), normal(7, 5), 3)
    yield "one-row", (normal(3, 8), normal(1, 8), 1)
    yield "primes", (normal(53, 17), normal(211, 17), 7)
    yield "k-is-m", (normal(37, 12), normal(13, 12), 13)
    yield "duplicates", (normal(35, 6), normal(5, 6).repeat(40, 1), 9)
    yield "on-the-bank", ((bank := normal(150, 33))[:41], bank, 5)
    yield "strided", (normal(45, 40)[::1, ::2], normal(40, 130).T[:, :20], 4)
    yield "one-coordinate", (normal(33, 1), normal(97, 1), 2)
    yield "offset", (normal(34, 24) + 8, normal(140, 24) + 8, 3)
    yield "k-32", (normal(20, 36), normal(110, 36), 32)
    yield "no-query", (normal(0, 4), normal(9, 4), 2)


def coreset_cases(dtype: torch.dtype) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Awkward (points, count, start): one point, all points, primes, duplicates, odd strides."""
    normal = _normal(1, dtype)
    yield "one-point", (normal(1, 3), 1, 0)
    yield "all-points", (normal(31, 5), 31, 7)
    yield "primes", (normal(211, 17), 53, 101)
    yield "duplicates", (normal(7, 4).repeat(9, 1), 40, 3)
    yield "strided", (normal(24, 130).T[:, ::2], 30, 0)
    yield "one-coordinate", (normal(97, 1), 12, 5)


def _normal(seed: int, dtype: torch.dtype) -> Callable[..., Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=draw).to(dtype)


def reference_only() -> bool:
    """True when LAFITE_KERNELS=reference asks for plain torch everywhere."""
    return os.environ.get("LAFITE_KERNELS") == "reference"


def check_matrix(name: str, x: Tensor) -> float:
    """Return the largest magnitude; ValueError unless x is 2-D, floating-point and finite."""
    _check_kind(name, x)
    if not x.numel():
        return 0.0
    low, high = torch.aminmax(x)  # one pass, without an N×D mask; NaN comes through
    largest = max(-float(low), float(high))
    if not math.isfinite(largest) or not math.isfinite(float(low)):
        raise ValueError(f"{name} {_shape(x)} holds NaN or Inf; clean the features first")
    return largest


def check_search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> float:
    """Return the largest magnitude of both; ValueError, with shapes, if they cannot be searched."""
    _check_kind("queries_ND", queries_ND)
    _check_kind("bank_MD", bank_MD)
    shapes = f"queries_ND {_shape(queries_ND)}, bank_MD {_shape(bank_MD)}"
    if len(bank_MD) == 0:
        raise ValueError(f"bank_MD is empty: {shapes}")
    if queries_ND.shape[1] != bank_MD.shape[1]:
        raise ValueError(f"queries_ND and bank_MD differ in D: {shapes}")
    if queries_ND.device != bank_MD.device:
        devices = f"queries_ND is on {queries_ND.device}, bank_MD on {bank_MD.device}"
        raise ValueError(f"{devices}: {shapes}")
    if not 1 <= k <= len(bank_MD):
        raise ValueError(f"k must be from 1 to {len(bank_MD)} (bank rows), got {k}: {shapes}")
    return max(check_matrix("queries_ND", queries_ND), check_matrix("bank_MD", bank_MD))


def _check_kind(name: str, x: Tensor) -> None:
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"{name} must be a 2-D floating-point tensor, got {_shape(x)} {x.dtype}")


def _shape(x: Tensor) -> str:
    return "x".join(map(str, x.shape)) if x.ndim else "scalar"
