"""A cheap lower bound of ||q - b||² for the exact searches on the CPU; most pairs need no more.

Rows are centred and turned so that the first coordinates hold most of the energy; one more holds
the norm of the rest. By Cauchy-Schwarz the product of two rests is at most the product of their
norms. So with e = (leading coordinates, norm of the rest)

    (||q||² - ||q - b||²) / 2 = q·b - ||b||²/2 <= e_q·e_b - ||b||²/2

for any orthonormal directions; good ones make it tight. The right side is the product of two
"codes": a query's is (e_q, 1), a bank row's is (e_b, -||b||²/2). They are multiplied as int16 where
the CPU has AVX2, else in float32. A pair is measured in float32 only if its product reaches
(||q||² - worst)/2; worst is the K-th best ||q - b||² so far.

``slack`` bounds the rounding of a product as a share of (||q||² + ||b||²)/2: a pair is dropped only
if it cannot matter. A code holds its numbers to ``unit``, so e_q·e_b is off by at most
(2 unit + unit²) ||e_q|| ||e_b|| <= (2 unit + unit²) (||q||² + ||b||²)/2. ``fine`` is added for sums
in float32 and for directions that are orthonormal but for rounding.

int16 codes are e times 32767 / ||e||, rounded: each number is off by half of one, a code of W
numbers by at most sqrt(W)/2, so unit = sqrt(W) 2⁻¹⁶ (a hundredth more for the factor's own
rounding). No number exceeds 32767, and by Cauchy-Schwarz no sum of products
(32767 + sqrt(W)/2)² < 2³¹: int32 holds every one exactly. Factor and -||b||²/2 are kept beside the
code and enter in float32.

Shape suffixes: N rows or queries, P in a piece, M bank rows, R in a block, S in the sample, D
coordinates, L leading ones, W numbers of a code, K neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import _numba
from kernels._scan import FAR, LANES, MARKS, QUAD, scan, scan_int16

LEADING = 94  # with the norm of the rest and -||b||²/2: 96 columns
LEADING_INT16 = 79  # with the norm of the rest: 80 columns
SAMPLE = 2048  # rows from which the directions are computed
ENOUGH = 0.8  # share of the energy that makes the leading coordinates worth their cost
PIECE = 1 << 14  # rows that are centred and turned at once
POINTS = 2048  # points whose codes are multiplied at once
LARGEST = 32767  # of the numbers of an int16 code
UNIT = 2.0**-24  # of float32


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
    def width(self) -> int:
        """Numbers of e: the leading coordinates and the norm of the rest."""
        return len(self.mean_D) if self.basis_DL is None else self.basis_DL.shape[1] + 1

    @property
    def slack(self) -> float:
        """The largest rounding of a product, as a share of (||q||² + ||b||²) / 2."""
        unit = UNIT
        if self.dtype == torch.int16:
            unit = 1.01 * (1 + self.fine) * math.sqrt(self.width) * 2.0**-16
        return 2 * unit + unit**2 + self.fine

    def codes(self, rows_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows' codes as queries (N, W), and their squared norms (N,) float32.

        int16 codes are filled up to an even W and to whole quads of rows.
        """
        n = len(rows_ND)
        squares_N = torch.empty(n)
        if self.dtype == torch.int16:
            codes_NW = torch.zeros(
                -(-n // QUAD) * QUAD, self.width + self.width % 2, dtype=torch.int16
            )
        else:
            codes_NW = torch.ones(n, self.width + 1)
        for first in range(0, n, PIECE):
            part = slice(first, min(first + PIECE, n))
            e_PL = self._turned(rows_ND[part], squares_N[part])
            if self.dtype == torch.int16:
                e_PL = e_PL.div_(self._scales(squares_N[part])[:, None]).round_()
            codes_NW[part, : self.width] = e_PL
        return codes_NW, squares_N

    def _turned(self, rows_PD: Tensor, squares_P: Tensor) -> Tensor:
        """Return e of the rows, (P, L); their squared norms are written into ``squares_P``."""
        centred_PD = rows_PD.float() - self.mean_D
        torch.linalg.vector_norm(centred_PD, dim=1, out=squares_P).square_()
        if self.basis_DL is None:
            return centred_PD
        e_PL = torch.empty(len(rows_PD), self.width)
        lead_PL = torch.mm(centred_PD, self.basis_DL, out=e_PL[:, :-1])
        rest_P = squares_P * (1 + self.fine) - lead_PL.square().sum(dim=1)
        e_PL[:, -1] = rest_P.clamp_min_(0).sqrt_()
        return e_PL

    def _scales(self, squares_N: Tensor) -> Tensor:
        """The size (N,) of an int16 code's unit; never 0."""
        return (squares_N * (1 + self.fine)).sqrt_().clamp_min_(1e-30).div_(LARGEST)

    def as_bank(self, codes_NW: Tensor, squares_N: Tensor) -> tuple[Tensor, ...]:
        """Return the codes as bank rows', filled up to whole groups with codes out of reach."""
        # This holds ||b||²'s share of the slack, so that a query's threshold serves for all rows.
        half_N = squares_N * (self.slack - 1) / 2
        m = len(squares_N)
        if self.dtype == torch.int16:
            bank_MW = codes_NW.new_zeros(-(-m // LANES) * LANES, codes_NW.shape[1])
            bank_MW[:m] = codes_NW[:m]
            scales_M, half_M = torch.zeros(len(bank_MW)), torch.full((len(bank_MW),), -float(FAR))
            scales_M[:m], half_M[:m] = self._scales(squares_N), half_N
            pairs = bank_MW.view(-1, LANES, bank_MW.shape[1] // 2, 2).transpose(1, 2).contiguous()
            return pairs, scales_M.view(-1, LANES), half_M.view(-1, LANES)
        bank_MW = codes_NW.new_zeros(-(-m // MARKS) * MARKS, codes_NW.shape[1])
        bank_MW[:m] = codes_NW
        bank_MW[:m, -1] = half_N
        bank_MW[m:, -1] = -float(FAR)
        return (bank_MW,)

    def search(
        self,
        points_ND: Tensor,
        coded: tuple[Tensor, Tensor],
        bank_MD: Tensor,
        bank: tuple[Tensor, ...],
        best: tuple[Any, Any],
        block: int,
    ) -> None:
        """Let points, with their ``codes``, meet bank rows, with theirs ``as_bank``.

        ``best`` (squared distances (N, K), bank rows (N, K)) is changed in place: whatever of the
        bank is nearer comes in. Float codes are multiplied by ``block`` of the bank at once.
        """
        codes_NW, squares_N = coded
        points, squares, rows = points_ND.numpy(), squares_N.numpy(), bank_MD.numpy()
        if self.dtype == torch.int16:
            scales = np.zeros(len(codes_NW), dtype=np.float32)
            scales[: len(squares)] = self._scales(squares_N)
            packed = tuple(part.numpy() for part in bank)
        else:
            size = min(POINTS, len(points)), min(block, len(bank[0]))
            space = torch.empty(size)
        with _numba.threads() as threads:
            limits = np.float32(self.slack), np.float32(self.fine), threads
            for start in range(0, len(points), POINTS):
                part = slice(start, start + POINTS)
                queries, nearest = (points[part], squares[part]), (best[0][part], best[1][part])
                if self.dtype == torch.int16:
                    codes = codes_NW[part].numpy(), scales[part]
                    scan_int16(codes, packed, queries, rows, *nearest, limits)
                    continue
                for first in range(0, len(bank[0]), block):
                    codes_RW = bank[0][first : first + block]
                    products_NR = space[: len(points[part]), : len(codes_RW)]
                    torch.mm(codes_NW[part], codes_RW.T, out=products_NR)
                    scan(products_NR.numpy(), first, queries, rows, *nearest, limits)


def screen_of(rows_MD: Tensor) -> Screen:
    """Return the screen of these rows: by leading directions if they hold enough energy."""
    # On one thread: small factorisations meet at hundreds of barriers, slow when busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    dtype = torch.int16 if _numba.avx2() else torch.float32
    try:
        leading = LEADING_INT16 if dtype == torch.int16 else LEADING
        mean_D, basis_DL = _directions(rows_MD, leading)
    finally:
        torch.set_num_threads(threads)
    d = rows_MD.shape[1]
    width = d if basis_DL is None else basis_DL.shape[1] + 1
    fine = UNIT * (4 * d * width**0.5 + 32 * d + 64)
    return Screen(mean_D, basis_DL, dtype, fine)


def _directions(rows_MD: Tensor, leading: int) -> tuple[Tensor, Tensor | None]:
    """Return mean and directions, by subspace iteration on a random sample of the rows."""
    m, d = rows_MD.shape
    draw = torch.Generator().manual_seed(0)
    sample_SD = rows_MD[torch.randint(m, (min(m, SAMPLE),), generator=draw)].double()
    mean_D = sample_SD.mean(dim=0)
    sample_SD -= mean_D
    if d <= leading:
        return mean_D.float(), None
    basis_DL = torch.randn(d, leading, generator=draw, dtype=torch.float64)
    covariance_DD = sample_SD.T @ sample_SD
    for _ in range(3):
        basis_DL = torch.linalg.qr(covariance_DD @ basis_DL).Q
    norm = torch.linalg.norm(sample_SD).clamp_min(1e-30)
    share = float(torch.linalg.norm(sample_SD @ basis_DL) / norm) ** 2
    return mean_D.float(), basis_DL.float() if share >= ENOUGH else None
