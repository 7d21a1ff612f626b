"""Greedy k-center on the CPU, in waves: the plain algorithm on few points, the others catch up.

``nearest`` (squared) only falls as picks are added. A wave takes the points farthest from all picks
and runs the plain algorithm on them alone; until the farthest of them falls to the value that the
wave was cut at, no other point can be the pick. Then all points meet the new picks at once: one
matrix product screens the pairs (kernels/_screen.py), and what passes is measured as the plain
algorithm does. So the picks are those of the plain algorithm.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels import _numba
from kernels._numba import njit, prange
from kernels._screen import FAR, scan, screen_of, squared

WAVE = 2048  # points of a wave
PENDING = 2048  # picks that may wait for the others to meet them
POINTS = 2048  # points that meet them at once
ALONE = 1024  # points of a wave that one thread handles faster than several
PARTS = 8  # pieces of a wave that the threads share


class Waves:
    """One selection under way: distances to the picks, picks that wait, the current wave."""

    def __init__(self, points_ND: Tensor, nearest_N: Tensor | None = None) -> None:
        self.points_ND = points_ND.float().contiguous()
        n, d = self.points_ND.shape
        self.screen = screen_of(self.points_ND)
        self.codes_NW, self.squares_N = self.screen.codes(self.points_ND)
        self.nearest = np.full((n, 1), FAR, dtype=np.float32)
        if nearest_N is not None:
            self.nearest[:, 0] = nearest_N.clamp(max=float(FAR)).numpy()
        self.picked = np.zeros((n, 1), dtype=np.int64)  # which pick is nearest; not looked at
        self.centers = np.empty((PENDING, d), dtype=np.float32)
        self.waiting = 0
        self.names: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.rows = np.empty((0, d), dtype=np.float32)
        self.near = np.empty(0, dtype=np.float32)
        self.bound = FAR
        self.top = -1

    def farthest(self) -> tuple[float, int]:
        """Return (squared distance, index) of the farthest point; (-1, 0) when all are picked."""
        if self.top < 0 or self.near[self.top] <= self.bound:
            self._next_wave()
        if self.top < 0:
            return -1.0, 0
        return float(self.near[self.top]), int(self.names[self.top])

    def add(self, center_D: NDArray[np.float32], index: int | None) -> None:
        """Add a pick: a point of its own (index) or one that lies elsewhere (None)."""
        if self.waiting == PENDING:
            self._catch_up()
        self.centers[self.waiting] = center_D
        if index is not None:
            self.nearest[index] = -1
            place = int(np.searchsorted(self.names, index))
            if place < len(self.names) and self.names[place] == index:
                self.near[place] = -1
        if len(self.names):
            self.top = _step(self.rows, self.near, self.centers, self.waiting, self.bound)
        self.waiting += 1

    def run(self, order: NDArray[np.int64], done: int, last: int) -> None:
        """Pick from number ``done`` to number ``last``, writing the indices into ``order``."""
        while done < last:
            self.farthest()
            room = min(last - done, PENDING - self.waiting)
            wave = self.rows, self.near, self.names
            found, self.top = _run(
                wave, self.centers, self.waiting, order[done : done + room], self.top, self.bound
            )
            self.nearest[order[done : done + found]] = -1
            self.waiting += found
            done += found
            if self.waiting == PENDING:
                self._catch_up()

    def _next_wave(self) -> None:
        self._catch_up()
        nearest = self.nearest[:, 0]
        n = len(nearest)
        self.bound = np.float32(-0.5)
        if n > WAVE:
            self.bound = np.partition(nearest, n - WAVE)[n - WAVE]
        self.names = np.flatnonzero(nearest > self.bound)
        if not len(self.names) and self.bound >= 0:
            # A crowd at one distance: its first points, as ties go to the lower index.
            self.names = np.flatnonzero(nearest == self.bound)[:WAVE]
            self.bound = np.nextafter(self.bound, np.float32(-1))
        self.rows = self.points_ND.numpy()[self.names]
        self.near = nearest[self.names]
        self.top = int(self.near.argmax()) if len(self.names) else -1

    def _catch_up(self) -> None:
        """Let all points meet the picks that wait."""
        if not self.waiting:
            return
        new_PD = torch.from_numpy(self.centers[: self.waiting])
        codes_PW = self.screen.as_bank(*self.screen.codes(new_PD))
        kind = torch.int16 if self.screen.dtype == torch.bfloat16 else torch.int32
        products_CP = torch.empty(POINTS, len(codes_PW), dtype=self.screen.dtype)
        with _numba.threads() as threads:
            limits = np.float32(self.screen.slack), np.float32(self.screen.fine), threads
            for first in range(0, len(self.points_ND), POINTS):
                part = slice(first, first + POINTS)
                codes_CW = self.codes_NW[part]
                products = products_CP[: len(codes_CW)]
                torch.mm(codes_CW, codes_PW.T, out=products)
                block = self.points_ND[part].numpy(), self.squares_N[part].numpy()
                best, index = self.nearest[part], self.picked[part]
                scan(products.view(kind).numpy(), 0, block, self.centers, best, index, limits)
        self.waiting = 0


def order_cpu(points_ND: Tensor, count: int, start: int, nearest_N: Tensor, report: Any) -> Tensor:
    """Return the picks of ``kcenter_order`` on the CPU, where points lie this near already."""
    order = np.empty(count, dtype=np.int64)
    order[0] = start
    with _numba.threads():
        waves = Waves(points_ND, nearest_N)
        waves.add(waves.points_ND[start].numpy(), start)
        for first in range(1, count, 256):
            last = min(first + 256, count)
            waves.run(order, first, last)
            report(last, count)
    return torch.from_numpy(order)


@njit(fastmath=True)
def _meet(rows: Any, near: Any, centers: Any, pick: Any, bound: Any, first: Any, last: Any) -> Any:
    """Let rows first to last meet one pick; return the farthest of them, the first of equals."""
    top = first
    for x in range(first, last):
        # One that has fallen to the bound is out of this wave, and meets all picks after it.
        if near[x] > bound:
            near[x] = min(near[x], squared(rows, x, centers, pick))
        if near[x] > near[top]:
            top = x
    return top


@njit(parallel=True)
def _meet_together(rows: Any, near: Any, centers: Any, pick: Any, bound: Any) -> Any:
    tops = np.empty(PARTS, dtype=np.int64)
    for part in prange(PARTS):
        low, high = len(rows) * part // PARTS, len(rows) * (part + 1) // PARTS
        tops[part] = _meet(rows, near, centers, pick, bound, low, high)
    best = tops[0]
    for part in range(1, PARTS):
        if near[tops[part]] > near[best]:
            best = tops[part]
    return best


@njit()
def _step(rows: Any, near: Any, centers: Any, pick: Any, bound: Any) -> Any:
    # Waking the threads costs more than a small wave does.
    if len(rows) < ALONE:
        return _meet(rows, near, centers, pick, bound, 0, len(rows))
    return _meet_together(rows, near, centers, pick, bound)


@njit()
def _run(wave: Any, centers: Any, waiting: Any, order: Any, top: Any, bound: Any) -> Any:
    """Pick from the wave until it is used up or ``order`` is full; how many, and the next."""
    rows, near, names = wave
    done = 0
    while done < len(order) and near[top] > bound:
        order[done] = names[top]
        for d in range(rows.shape[1]):
            centers[waiting + done, d] = rows[top, d]
        near[top] = -1
        top = _step(rows, near, centers, waiting + done, bound)
        done += 1
    return done, top
