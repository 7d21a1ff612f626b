"""Greedy k-center on the CPU, in waves: the picks are those of the plain algorithm.

``nearest_N1`` holds each point's squared distance to its nearest pick; it only falls as picks are
added. A wave takes the points farthest from all picks and runs the plain algorithm on them alone.
While the farthest of them lies above the bound that the wave was cut at, no other point can be the
next pick. Then all points meet the new picks at once: one matrix product screens the pairs
(kernels/_screen.py), and a pair that passes is measured as the plain algorithm does.

Shape suffixes: N points, S in the wave, C in a part, P picks, D coordinates, W numbers of a code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels import _numba
from kernels._numba import njit, prange
from kernels._scan import FAR, squared
from kernels._screen import screen_of

WAVE = 2048  # points of a wave
PENDING = 2048  # picks that may wait for all points to meet them
ALONE = 1024  # points of a wave that one thread handles faster than several
PARTS = 8  # pieces of a wave that the threads share


class Waves:
    """A selection under way: distances to the picks, picks that wait, the current wave."""

    def __init__(self, points_ND: Tensor, nearest_N: Tensor | None = None) -> None:
        self.points_ND = points_ND.float().contiguous()
        n, d = self.points_ND.shape
        self.screen = screen_of(self.points_ND)
        self.coded = self.screen.codes(self.points_ND)
        self.nearest_N1 = np.full((n, 1), FAR, dtype=np.float32)
        if nearest_N is not None:
            self.nearest_N1[:, 0] = nearest_N.clamp(max=float(FAR)).numpy()
        self.pick_N1 = np.zeros((n, 1), dtype=np.int64)  # the nearest pick; ``scan`` writes it
        self.centers_PD = np.empty((PENDING, d), dtype=np.float32)
        self.waiting = 0
        self.index_S: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.wave_SD = np.empty((0, d), dtype=np.float32)
        self.near_S = np.empty(0, dtype=np.float32)
        self.bound = FAR
        self.top = -1  # the wave's farthest point

    def farthest(self) -> tuple[float, int]:
        """Return (squared distance, index) of the farthest point; (-1, 0) when all are picked."""
        if self.top < 0 or self.near_S[self.top] <= self.bound:
            self._next_wave()
        if self.top < 0:
            return -1.0, 0
        return float(self.near_S[self.top]), int(self.index_S[self.top])

    def add(self, center_D: NDArray[np.float32], index: int | None) -> None:
        """Add a pick: one of these points (index) or a point that lies elsewhere (None)."""
        if self.waiting == PENDING:
            self._catch_up()
        self.centers_PD[self.waiting] = center_D
        if index is not None:
            self.nearest_N1[index] = -1
            slot = int(np.searchsorted(self.index_S, index))
            if slot < len(self.index_S) and self.index_S[slot] == index:
                self.near_S[slot] = -1
        if len(self.index_S):
            self.top = _step(self.wave_SD, self.near_S, self.centers_PD, self.waiting, self.bound)
        self.waiting += 1

    def run(self, order: NDArray[np.int64], done: int, last: int) -> None:
        """Pick from number ``done`` to number ``last``, writing the indices into ``order``."""
        while done < last:
            self.farthest()
            room = min(last - done, PENDING - self.waiting)
            wave = self.wave_SD, self.near_S, self.index_S
            picks = order[done : done + room]
            count, self.top = _run(wave, self.centers_PD, self.waiting, picks, self.top, self.bound)
            self.nearest_N1[picks[:count]] = -1
            self.waiting += count
            done += count
            if self.waiting == PENDING:
                self._catch_up()

    def _next_wave(self) -> None:
        self._catch_up()
        nearest_N = self.nearest_N1[:, 0]
        n = len(nearest_N)
        self.bound = np.float32(-0.5)
        if n > WAVE:
            self.bound = np.partition(nearest_N, n - WAVE)[n - WAVE]
        self.index_S = np.flatnonzero(nearest_N > self.bound)
        if not len(self.index_S) and self.bound >= 0:
            # A crowd at one distance: its first points, as ties go to the lower index.
            self.index_S = np.flatnonzero(nearest_N == self.bound)[:WAVE]
            self.bound = np.nextafter(self.bound, np.float32(-1))
        self.wave_SD = self.points_ND.numpy()[self.index_S]
        self.near_S = nearest_N[self.index_S]
        self.top = int(self.near_S.argmax()) if len(self.index_S) else -1

    def _catch_up(self) -> None:
        """Let all points meet the picks that wait."""
        if not self.waiting:
            return
        new_PD = torch.from_numpy(self.centers_PD[: self.waiting])
        picks = self.screen.as_bank(*self.screen.codes(new_PD))
        best = self.nearest_N1, self.pick_N1
        self.screen.search(self.points_ND, self.coded, new_PD, picks, best, PENDING)
        self.waiting = 0


def order_cpu(points_ND: Tensor, count: int, start: int, nearest_N: Tensor, report: Any) -> Tensor:
    """Return ``kcenter_order``'s picks, given the first one and squared distances before it."""
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
def _meet(
    wave_SD: Any, near_S: Any, centers_PD: Any, pick: Any, bound: Any, first: Any, last: Any
) -> Any:
    """Let points first to last meet a pick; return the farthest of them, the first of equals."""
    top = first
    for x in range(first, last):
        # A point that has fallen to the bound is out of this wave: it meets the picks later.
        if near_S[x] > bound:
            near_S[x] = min(near_S[x], squared(wave_SD, x, centers_PD, pick))
        if near_S[x] > near_S[top]:
            top = x
    return top


@njit(parallel=True)
def _meet_together(wave_SD: Any, near_S: Any, centers_PD: Any, pick: Any, bound: Any) -> Any:
    tops = np.empty(PARTS, dtype=np.int64)
    for part in prange(PARTS):
        low, high = len(wave_SD) * part // PARTS, len(wave_SD) * (part + 1) // PARTS
        tops[part] = _meet(wave_SD, near_S, centers_PD, pick, bound, low, high)
    best = tops[0]
    for part in range(1, PARTS):
        if near_S[tops[part]] > near_S[best]:
            best = tops[part]
    return best


@njit()
def _step(wave_SD: Any, near_S: Any, centers_PD: Any, pick: Any, bound: Any) -> Any:
    # Waking the threads costs more than a small wave does.
    if len(wave_SD) < ALONE:
        return _meet(wave_SD, near_S, centers_PD, pick, bound, 0, len(wave_SD))
    return _meet_together(wave_SD, near_S, centers_PD, pick, bound)


@njit()
def _run(wave: Any, centers_PD: Any, waiting: Any, order: Any, top: Any, bound: Any) -> Any:
    """Pick from the wave until it is used up or ``order`` is full; return how many, and the top."""
    wave_SD, near_S, index_S = wave
    done = 0
    while done < len(order) and near_S[top] > bound:
        order[done] = index_S[top]
        for d in range(wave_SD.shape[1]):
            centers_PD[waiting + done, d] = wave_SD[top, d]
        near_S[top] = -1
        top = _step(wave_SD, near_S, centers_PD, waiting + done, bound)
        done += 1
    return done, top
