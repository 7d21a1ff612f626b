"""A cheap lower bound of ||q - b||², for the exact searches on the CPU: most pairs end here.

Coordinates are centred and turned so that the first L hold most of the energy; one more holds the
norm of the rest. By Cauchy-Schwarz the rest's product is at most the product of the norms, so

    ||q - b||² >= ||q||² + ||b||² - 2 e_q · e_b,    e = (leading coordinates, norm of the rest)

holds for any orthonormal directions; good ones only make it tight. ``slack`` bounds every rounding
on the way, relative to ||q||² + ||b||²: a pair is dropped only if it cannot matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels._numba import njit, prange

UNIT = 2.0**-24  # float32 rounding
LANES = 64  # rows of a tile: their coordinates lie side by side, one vector operation for all
TOGETHER = 4  # rows that meet a tile at once, so that a loaded coordinate is used four times
SAMPLE = 2048
ENOUGH = 0.8  # share of the energy that the leading coordinates must hold to be worth it
FAR = np.float32(1e38)  # stands for infinity, which fast arithmetic may not see

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Screen:
    """Where the coordinates are centred and turned to, and the bound of all rounding.

    ``whole``: nothing is gained by turning, e is the centred row itself.
    """

    mean_D: Floats
    basis_DL: Floats
    slack: np.float32
    whole: bool

    @property
    def width(self) -> int:
        """Columns of e: the leading coordinates and the norm, padded to a multiple of four."""
        columns: int = self.basis_DL.shape[1] + 1
        return -(-columns // TOGETHER) * TOGETHER

    def embed(self, rows_ND: Floats) -> tuple[Floats, Floats]:
        """Return e (N, width) and ||row||² (N,), both float32; inside ``_numba.threads()``."""
        out = np.zeros((len(rows_ND), self.width), dtype=np.float32)
        squares = np.empty(len(rows_ND), dtype=np.float32)
        _embed(rows_ND, self.mean_D, self.basis_DL, self.slack, self.whole, out, squares)
        return out, squares


def screen_of(rows_MD: Tensor, leading: int) -> Screen:
    """Return the screen of these rows; ``leading`` coordinates, or all if few hold little."""
    # On one thread: small factorisations meet at hundreds of barriers, slow when busy.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _directions(rows_MD, leading)
    finally:
        torch.set_num_threads(threads)


def _directions(rows_MD: Tensor, leading: int) -> Screen:
    """Find the directions by subspace iteration on an evenly drawn sample of the rows."""
    m, d = rows_MD.shape
    draw = torch.Generator().manual_seed(0)
    sample = rows_MD[torch.randint(m, (min(m, SAMPLE),), generator=draw)].double()
    mean_D = sample.mean(dim=0)
    sample -= mean_D
    basis = torch.randn(d, min(d, leading), generator=draw, dtype=torch.float64)
    covariance_DD = sample.T @ sample
    for _ in range(3):
        basis = torch.linalg.qr(covariance_DD @ basis).Q
    kept = torch.linalg.norm(sample @ basis) ** 2 / torch.linalg.norm(sample).clamp_min(1e-30) ** 2
    whole = d <= leading or float(kept) < ENOUGH
    if whole:
        basis = torch.eye(d, dtype=torch.float64)
    slack = UNIT * (4 * d * (len(basis.T) + 1) ** 0.5 + 32 * d + 64)
    basis_DL = basis.float().contiguous().numpy()
    return Screen(mean_D.float().numpy(), basis_DL, np.float32(slack), whole)


@njit(parallel=True, fastmath=True)
def _embed(rows: Any, mean: Any, basis: Any, slack: Any, whole: Any, out: Any, squares: Any) -> Any:
    # One parallel region for all: on a busy machine every further one may wait for a turn.
    width = basis.shape[1]
    for x in prange(len(rows)):
        square, lead = np.float32(0), np.float32(0)
        for d in range(rows.shape[1]):
            step = rows[x, d] - mean[d]
            square += step * step
            if whole:
                out[x, d] = step
            else:
                for j in range(width):
                    out[x, j] += step * basis[d, j]
        squares[x] = square
        if not whole:
            for j in range(width):
                lead += out[x, j] * out[x, j]
            out[x, width] = np.sqrt(max(square * (1 + slack) - lead, np.float32(0)))


@njit(fastmath=True)
def products(tile: Any, rows: Any, first: Any, out: Any) -> None:
    """out[i, lane] = rows[first + i] · tile[:, lane] for four rows; tile is (width, LANES)."""
    for lane in range(LANES):
        out[0, lane] = np.float32(0)
        out[1, lane] = np.float32(0)
        out[2, lane] = np.float32(0)
        out[3, lane] = np.float32(0)
    for d in range(0, tile.shape[0], 4):
        a0, a1, a2, a3 = (
            rows[first, d],
            rows[first, d + 1],
            rows[first, d + 2],
            rows[first, d + 3],
        )
        b0, b1, b2, b3 = (
            rows[first + 1, d],
            rows[first + 1, d + 1],
            rows[first + 1, d + 2],
            rows[first + 1, d + 3],
        )
        c0, c1, c2, c3 = (
            rows[first + 2, d],
            rows[first + 2, d + 1],
            rows[first + 2, d + 2],
            rows[first + 2, d + 3],
        )
        e0, e1, e2, e3 = (
            rows[first + 3, d],
            rows[first + 3, d + 1],
            rows[first + 3, d + 2],
            rows[first + 3, d + 3],
        )
        for lane in range(LANES):
            x0, x1, x2, x3 = tile[d, lane], tile[d + 1, lane], tile[d + 2, lane], tile[d + 3, lane]
            out[0, lane] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
            out[1, lane] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
            out[2, lane] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
            out[3, lane] += e0 * x0 + e1 * x1 + e2 * x2 + e3 * x3


@njit(fastmath=True)
def squared(a: Any, x: Any, b: Any, y: Any) -> Any:
    """||a[x] - b[y]||² in float32, by differences."""
    # No early stop: one plain loop is compiled to full vectors, a loop cut in pieces is not.
    total = np.float32(0)
    for d in range(a.shape[1]):
        step = a[x, d] - b[y, d]
        total += step * step
    return total
