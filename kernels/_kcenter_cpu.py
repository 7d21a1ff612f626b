"""Greedy k-center on the CPU, lazily: a point is looked at only while it may be the farthest.

``nearest`` (squared) only falls as picks are added, so a value that missed some picks is an upper
bound. A wave takes the points whose bound exceeds a threshold, lets them catch up with the picks
that they missed, and runs the plain algorithm on those still above it; until the farthest of them
falls to the threshold, no other point can be the pick. Catching up is a matrix product used as a
screen: only pairs within its rounding error of an improvement are measured, with the same loop as
the plain algorithm, so the picks are the plain algorithm's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kernels import _numba
from kernels._numba import njit, prange

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]

SEGMENT = 64  # picks that are caught up with in one product
ROWS = 2048  # points of one product: its output stays in the second-level cache
ACTIVE = 4096  # points of a wave
UNIT = 2.0**-24  # float32 rounding


class LazyGreedy:
    """The state of one selection: bounds, what each point has seen, and the current wave."""

    def __init__(self, points_ND: Floats, count: int) -> None:
        n, d = points_ND.shape
        self.points = points_ND
        self.centers = np.empty((count, d), dtype=np.float32)
        self.nearest = np.full(n, np.inf, dtype=np.float32)
        self.seen = np.zeros(n, dtype=np.int32)  # segments that a point has caught up with
        self.segments: list[tuple[int, int]] = []
        self.mean = points_ND[:: max(1, n // 4096)].mean(axis=0)
        self.done = 0
        self.wave = np.empty(0, dtype=np.int64)
        self.rows = np.empty((0, d), dtype=np.float32)
        self.bound = np.float32(np.inf)

    def add(self, center_D: Floats) -> None:
        """Add one pick, which may be a point that lies elsewhere (another rank's)."""
        self.centers[self.done] = center_D
        self.done += 1
        _update(self.rows, self.near, center_D)


def _noop() -> None: ...
