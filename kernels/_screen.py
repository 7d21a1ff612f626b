"""A cheap lower bound of ||q - b||² for the exact searches on the CPU; most pairs need no more.

Rows are centred and turned so that the first coordinates hold most of the energy; one more holds
the norm of the rest. By Cauchy-Schwarz the product of two rests is at most the product of their
norms. So with e = (leading coordinates, norm of the rest)

    (||q||² - ||q - b||²) / 2 = q·b - ||b||²/2 <= e_q·e_b - ||b||²/2

for any orthonormal directions; good ones make it tight. The right side is the product of two
"codes": a query's is (e_q, 1, 1), a bank row's is (e_b, high, low) with high + low = -||b||²/2.
Blocks of codes are multiplied in bfloat16 where the CPU does that fast. A pair is measured in
float32 only if its product reaches (||q||² - worst)/2; worst is the K-th best ||q - b||² so far.

``slack`` bounds the rounding of a product as a share of (||q||² + ||b||²)/2: a pair is dropped only
if it cannot matter. A code holds its numbers to ``unit``, so e_q·e_b is off by at most
(2 unit + unit²) ||e_q|| ||e_b|| <= (2 unit + unit²) (||q||² + ||b||²)/2. ``fine`` is added for sums
in float32 and for directions that are orthonormal but for rounding.

Shape suffixes: N rows or queries, P in a piece, M bank rows, R in a block, S in the sample, D
coordinates, L leading ones, W numbers of a code, K neighbours.
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
SAMPLE = 2048  # rows from which the directions are computed
ENOUGH = 0.8  # share of the energy that makes the leading coordinates worth their cost
PIECE = 1 << 14  # rows that are centred and turned at once
GROUP = 8  # marks, of one byte each, that are looked at together
FAR = np.float32(1e38)  # stands for infinity, which fast arithmetic may not see
UNIT = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Screen:
    """The centre and the directions of the codes, their type, and the bounds of their rounding.

    ``basis_DL`` is None where nothing is gained by turning: e is the centred row itself.
    """

    mean_D: Tensor
    basis_DL: Tensor | None
    dtype: torch.dtype
    fine: float

    @property
    def slack(self) -> float:
        """The largest rounding of a product, as a share of (||q||² + ||b||²) / 2."""
        unit = UNIT[self.dtype]
        return 2 * unit + unit**2 + self.fine

    def codes(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows' codes as queries (N, W), and their squared norms (N,) float32."""
        leading = rows_ND.shape[1] if self.basis_DL is None else self.basis_DL.shape[1] + 1
        codes_NW = torch.ones(len(rows_ND), leading + 2, dtype=self.dtype)
        squares_N = torch.empty(len(rows_ND))
        for first in range(0, len(rows_ND), PIECE):
            part = slice(first, first + PIECE)
            centred_PD = rows_ND[part].float() - self.mean_D
            torch.linalg.vector_norm(centred_PD, dim=1, out=squares_N[part]).square_()
            if self.basis_DL is None:
                codes_NW[part, :leading] = centred_PD
                continue
            lead_PL = centred_PD @ self.basis_DL
            rest_P = squares_N[part] * (1 + self.fine) - lead_PL.square().sum(dim=1)
            codes_NW[part, : leading - 1] = lead_PL
            codes_NW[part, leading - 1] = rest_P.clamp_min_(0).sqrt_()
        return codes_NW, squares_N

    def as_bank(self, codes_NW: Tensor, squares_N: Tensor) -> Tensor:
        """Return the codes as bank rows', filled up to a whole group with codes out of reach."""
        bank_MW = codes_NW.new_zeros(-(-len(codes_NW) // GROUP) * GROUP, codes_NW.shape[1])
        bank_MW[: len(codes_NW)] = codes_NW
        # This holds ||b||²'s share of the slack, so that a query's threshold serves for all rows.
        half_N = squares_N * (self.slack - 1) / 2
        bank_MW[: len(codes_NW), -2] = half_N
        bank_MW[: len(codes_NW), -1] = half_N - bank_MW[: len(codes_NW), -2].float()
        bank_MW[len(codes_NW) :, -2] = -float(FAR)
        return bank_MW

    def multiply(self, codes_NW: Tensor, bank_RW: Tensor, space: Tensor) -> NDArray[Any]:
        """Return the products (N, R) of two blocks of codes, made in ``space``, as their bits."""
        products_NR = space[: len(codes_NW), : len(bank_RW)]
        torch.mm(codes_NW, bank_RW.T, out=products_NR)
        bits = torch.int16 if self.dtype == torch.bfloat16 else torch.int32
        return products_NR.view(bits).numpy()


def screen_of(rows_MD: Tensor) -> Screen:
    """Return the screen of these rows: by leading directions if they hold enough energy."""
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
    """Return mean and directions, by subspace iteration on a random sample of the rows."""
    m, d = rows_MD.shape
    draw = torch.Generator().manual_seed(0)
    sample_SD = rows_MD[torch.randint(m, (min(m, SAMPLE),), generator=draw)].double()
    mean_D = sample_SD.mean(dim=0)
    sample_SD -= mean_D
    if d <= LEADING:
        return mean_D.float(), None
    basis_DL = torch.randn(d, LEADING, generator=draw, dtype=torch.float64)
    covariance_DD = sample_SD.T @ sample_SD
    for _ in range(3):
        basis_DL = torch.linalg.qr(covariance_DD @ basis_DL).Q
    norm = torch.linalg.norm(sample_SD).clamp_min(1e-30)
    share = float(torch.linalg.norm(sample_SD @ basis_DL) / norm) ** 2
    return mean_D.float(), basis_DL.float() if share >= ENOUGH else None


@njit(parallel=True, fastmath=True)
def scan(
    bits_NR: Any, first: Any, queries: Any, bank_MD: Any, best_NK: Any, index_NK: Any, limits: Any
) -> None:
    """Measure the pairs whose product reaches its query's threshold; keep the nearest, in order.

    ``bits_NR`` are ``Screen.multiply``'s of a block of the bank that begins at row ``first``,
    ``queries`` (points (N, D), squared norms (N,)), ``limits`` (slack, fine, threads). The squared
    distances ``best_NK`` and the bank rows ``index_NK`` are changed in place.
    """
    threads = limits[2]
    # Many small parts in turn: images differ in how much has to be measured.
    parts = min(len(bits_NR), 16 * threads)
    for part in prange(parts):
        marks_R = np.zeros(bits_NR.shape[1], dtype=np.int8)
        for x in range(len(bits_NR) * part // parts, len(bits_NR) * (part + 1) // parts):
            _scan_row(bits_NR[x], first, queries, x, bank_MD, best_NK, index_NK, limits, marks_R)


@njit(fastmath=True)
def _scan_row(
    bits_R: Any, first: Any, queries: Any, x: Any, bank_MD: Any, best_NK: Any, index_NK: Any,
    limits: Any, marks_R: Any,
) -> None:  # fmt: skip
    points_ND, squares_N = queries
    last = best_NK.shape[1] - 1
    bound = _threshold(squares_N[x], best_NK[x, last], limits, bits_R)
    _mark(bits_R, bound, marks_R)
    groups = marks_R.view(np.int64)
    for group in range(len(groups)):
        if groups[group] != 0:
            for j in range(GROUP * group, GROUP * group + GROUP):
                if marks_R[j] != 0 and _reaches(bits_R[j], bound):
                    distance = squared(points_ND, x, bank_MD, first + j)
                    if distance < best_NK[x, last]:
                        _insert(best_NK, index_NK, x, distance, first + j)
                        bound = _threshold(squares_N[x], best_NK[x, last], limits, bits_R)


@njit(fastmath=True)
def _threshold(square: Any, worst: Any, limits: Any, bits_R: Any) -> Any:
    """What a product must reach to be measured, rounded down to the products' type, as bits."""
    slack, fine = limits[0], limits[1]
    bound = np.empty(1, dtype=np.float32)
    bound[0] = np.float32(0.5) * (square * (1 - slack) - worst * (1 + fine))
    whole = bound.view(np.int32)[0]
    if bits_R.itemsize == 4:
        return whole
    high = whole >> 16
    # Cutting off the low bits brings a negative number nearer to zero, so above the bound.
    return high + 1 if whole < 0 and whole & 0xFFFF else high


@njit(fastmath=True)
def _reaches(bits: Any, bound: Any) -> Any:
    # Bits of numbers above zero are ordered as the numbers are, those below zero the other way.
    return bits >= bound if bound > 0 else (bits >= 0) | (bits <= bound)


@njit(fastmath=True)
def _mark(bits_R: Any, bound: Any, marks_R: Any) -> None:
    """Mark every product that reaches the bound; loops without a branch compile to vectors."""
    bound = bits_R.dtype.type(bound)
    if bound > 0:
        for j in range(len(marks_R)):
            marks_R[j] = np.int8(bits_R[j] >= bound)
    else:
        for j in range(len(marks_R)):
            marks_R[j] = np.int8((bits_R[j] >= 0) | (bits_R[j] <= bound))


@njit(fastmath=True)
def _insert(best_NK: Any, index_NK: Any, x: Any, distance: Any, row: Any) -> None:
    """Put a bank row among the nearest of query x, behind those at the same distance."""
    slot = best_NK.shape[1] - 1
    while slot > 0 and best_NK[x, slot - 1] > distance:
        best_NK[x, slot] = best_NK[x, slot - 1]
        index_NK[x, slot] = index_NK[x, slot - 1]
        slot -= 1
    best_NK[x, slot] = distance
    index_NK[x, slot] = row


@njit(fastmath=True)
def squared(a_ND: Any, x: Any, b_MD: Any, y: Any) -> Any:
    """||a[x] - b[y]||² in float32, by differences."""
    # No early stop: one plain loop is compiled to full vectors, a loop cut in pieces is not.
    total = np.float32(0)
    for d in range(a_ND.shape[1]):
        step = a_ND[x, d] - b_MD[y, d]
        total += step * step
    return total
