"""A cheap lower bound of ||q - b||² for the exact searches on the CPU: most pairs end here.

Rows are centred and turned so that the first coordinates hold most of the energy; one more holds
the norm of the rest. By Cauchy-Schwarz the rest's product is at most the product of the norms, so
with e = (leading coordinates, norm of the rest)

    (||q||² - ||q - b||²) / 2 = q·b - ||b||²/2 <= e_q·e_b - ||b||²/2

for any orthonormal directions; good ones only make it tight. The right side is one matrix product
of "codes": a query's is (e_q, 1, 1), a row's is (e_b, high, low), where high + low = -||b||²/2. It
runs in bfloat16 where the CPU multiplies that fast, block by block, and a pair is measured in
float32 only if its product reaches (||q||² - worst)/2, worst being the K-th best so far.

``slack`` bounds every rounding on the way, relative to ||q||² + ||b||²: a pair is dropped only if
it cannot matter. A code holds its numbers to ``unit``, so e_q·e_b is off by at most
(2 unit + unit²) ||e_q|| ||e_b|| <= (unit + unit²/2) (||q||² + ||b||²), and once more half of
``fine`` for sums in float32 and directions that are orthonormal but for rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._numba import njit, prange

LEADING = 93  # with the norm of the rest and -||b||²/2 in two parts: 96 columns
SAMPLE = 2048  # rows that the directions are found on
ENOUGH = 0.8  # share of the energy that the leading coordinates must hold to be worth it
PIECE = 1 << 14  # rows that are centred and turned at once
GROUP = 8  # marks of one byte that are looked at together
FAR = np.float32(1e38)  # stands for infinity, which fast arithmetic may not see
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Screen:
    """Where rows are centred and turned to, and the bounds of all rounding.

    ``basis_DL`` is None where nothing is gained by turning: e is the centred row itself.
    """

    mean_D: Tensor
    basis_DL: Tensor | None
    dtype: torch.dtype
    fine: float

    @property
    def slack(self) -> float:
        """Bound of all rounding of a product, relative to (||q||² + ||b||²) / 2."""
        unit = UNIT[self.dtype]
        return 2 * unit + unit**2 + self.fine

    def codes(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the codes (N, W) of rows as queries, and their squared norms (N,) float32."""
        leading = rows_ND.shape[1] if self.basis_DL is None else self.basis_DL.shape[1] + 1
        codes_NW = torch.ones(len(rows_ND), leading + 2, dtype=self.dtype)
        squares_N = torch.empty(len(rows_ND))
        for first in range(0, len(rows_ND), PIECE):
            part = slice(first, first + PIECE)
            step_PD = rows_ND[part].float() - self.mean_D
            torch.linalg.vector_norm(step_PD, dim=1, out=squares_N[part]).square_()
            if self.basis_DL is None:
                codes_NW[part, :leading] = step_PD
                continue
            lead_PL = step_PD @ self.basis_DL
            rest_P = squares_N[part] * (1 + self.fine) - lead_PL.square().sum(dim=1)
            codes_NW[part, : leading - 1] = lead_PL
            codes_NW[part, leading - 1] = rest_P.clamp_min_(0).sqrt_()
        return codes_NW, squares_N

    def as_bank(self, codes_NW: Tensor, squares_N: Tensor) -> Tensor:
        """Return the codes as those of bank rows, with some out of reach up to a whole group."""
        bank_MW = codes_NW.new_zeros(-(-len(codes_NW) // GROUP) * GROUP, codes_NW.shape[1])
        bank_MW[: len(codes_NW)] = codes_NW
        # Here stands ||b||²'s share of the slack, so that a query's threshold holds for all rows.
        half_N = squares_N * (self.slack - 1) / 2
        bank_MW[: len(codes_NW), -2] = half_N
        bank_MW[: len(codes_NW), -1] = half_N - bank_MW[: len(codes_NW), -2].float()
        bank_MW[len(codes_NW) :, -2] = -float(FAR)
        return bank_MW


def screen_of(rows_MD: Tensor) -> Screen:
    """Return the screen of these rows: leading directions if they hold enough, else all."""
    # On one thread: small factorisations meet at hundreds of barriers, slow when busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        mean_D, basis_DL = _directions(rows_MD)
    finally:
        torch.set_num_threads(threads)
    d = rows_MD.shape[1]
    width = d if basis_DL is None else basis_DL.shape[1] + 1
    fine = UNIT[torch.float32] * (4 * d * width**0.5 + 32 * d + 64)
    return Screen(mean_D, basis_DL, torch.bfloat16 if fast_bfloat16() else torch.float32, fine)


def fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _directions(rows_MD: Tensor) -> tuple[Tensor, Tensor | None]:
    """Find mean and directions by subspace iteration on an evenly drawn sample of the rows."""
    m, d = rows_MD.shape
    draw = torch.Generator().manual_seed(0)
    sample = rows_MD[torch.randint(m, (min(m, SAMPLE),), generator=draw)].double()
    mean_D = sample.mean(dim=0)
    sample -= mean_D
    if d <= LEADING:
        return mean_D.float(), None
    basis_DL = torch.randn(d, LEADING, generator=draw, dtype=torch.float64)
    covariance_DD = sample.T @ sample
    for _ in range(3):
        basis_DL = torch.linalg.qr(covariance_DD @ basis_DL).Q
    kept = torch.linalg.norm(sample @ basis_DL) / torch.linalg.norm(sample).clamp_min(1e-30)
    return mean_D.float(), basis_DL.float() if float(kept) ** 2 >= ENOUGH else None


@njit(parallel=True, fastmath=True)
def scan(
    products: Any, first: Any, queries: Any, bank: Any, best: Any, index: Any, limits: Any
) -> None:
    """Measure the pairs whose product reaches its query's threshold; keep the nearest, in order.

    ``products`` are the bits of a block of products, (N, R) int16 or int32, for bank[first:];
    ``queries`` are (points (N, D), squared norms (N,)), ``limits`` (slack, fine, threads).
    """
    threads = limits[2]
    # Many small parts in turn: images differ in how much has to be measured.
    parts = min(len(products), 16 * threads)
    for part in prange(parts):
        marks = np.zeros(products.shape[1], dtype=np.int8)
        for x in range(len(products) * part // parts, len(products) * (part + 1) // parts):
            _scan_row(products[x], first, queries, x, bank, best, index, limits, marks)


@njit(fastmath=True)
def _scan_row(
    bits: Any, first: Any, queries: Any, x: Any, bank: Any, best: Any, index: Any, limits: Any,
    marks: Any,
) -> None:  # fmt: skip
    points, squares = queries
    last = best.shape[1] - 1
    bound = _threshold(squares[x], best[x, last], limits, bits)
    _mark(bits, bound, marks)
    words = marks.view(np.int64)
    for group in range(len(words)):
        if words[group] != 0:
            for j in range(GROUP * group, GROUP * group + GROUP):
                if marks[j] != 0 and _reaches(bits[j], bound):
                    distance = squared(points, x, bank, first + j)
                    if distance < best[x, last]:
                        _insert(best, index, x, distance, first + j)
                        bound = _threshold(squares[x], best[x, last], limits, bits)


@njit(fastmath=True)
def _threshold(square: Any, worst: Any, limits: Any, bits: Any) -> Any:
    """The bits of the largest number not above what a product must reach."""
    slack, fine = limits[0], limits[1]
    bound = np.empty(1, dtype=np.float32)
    bound[0] = np.float32(0.5) * (square * (1 - slack) - worst * (1 + fine))
    whole = bound.view(np.int32)[0]
    if bits.itemsize == 4:
        return whole
    high = whole >> 16
    # Cutting off the low bits brings a negative number nearer to zero, so above the bound.
    return high + 1 if whole < 0 and whole & 0xFFFF else high


@njit(fastmath=True)
def _reaches(bits: Any, bound: Any) -> Any:
    # Bits of numbers above zero are ordered as the numbers are, those below zero the other way.
    return bits >= bound if bound > 0 else (bits >= 0) | (bits <= bound)


@njit(fastmath=True)
def _mark(bits: Any, bound: Any, marks: Any) -> None:
    """A mark for every product that reaches the bound, without a branch on a single one."""
    bound = bits.dtype.type(bound)
    if bound > 0:
        for j in range(len(marks)):
            marks[j] = np.int8(bits[j] >= bound)
    else:
        for j in range(len(marks)):
            marks[j] = np.int8((bits[j] >= 0) | (bits[j] <= bound))


@njit(fastmath=True)
def _insert(best: Any, index: Any, x: Any, distance: Any, row: Any) -> None:
    """Put the row among the best of x; equal ones stay in order."""
    place = best.shape[1] - 1
    while place > 0 and best[x, place - 1] > distance:
        best[x, place] = best[x, place - 1]
        index[x, place] = index[x, place - 1]
        place -= 1
    best[x, place] = distance
    index[x, place] = row


@njit(fastmath=True)
def squared(a: Any, x: Any, b: Any, y: Any) -> Any:
    """||a[x] - b[y]||² in float32, by differences."""
    # No early stop: one plain loop is compiled to full vectors, a loop cut in pieces is not.
    total = np.float32(0)
    for d in range(a.shape[1]):
        step = a[x, d] - b[y, d]
        total += step * step
    return total
