"""Greedy k-center on the CPU, lazily: a point is looked at only while it may be the farthest.

``nearest`` (squared) only falls as picks are added, so a value that missed some picks is an upper
bound. A wave takes the points whose bound exceeds a threshold, lets them catch up with the picks
that they missed, and runs the plain algorithm on those still above it; until the farthest of them
falls to the threshold, no other point can be the pick. Catching up goes through a screen
(kernels/_screen.py), and what passes is measured as the plain algorithm does: the picks are its.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kernels import _numba
from kernels._numba import njit, prange
from kernels._screen import FAR, LANES, TOGETHER, products, screen_of, squared

LEADING = 63
SOUGHT = 1 << 13  # points whose bounds are brought up to date to start a wave
WAVE = 256  # points that a wave needs at least, or it seeks further
ALONE = 1 << 15  # points that one thread handles faster than several
CHUNK = 1 << 14  # points that catch up at once: bounds the memory
STRIDE = 32  # picks between two looks at which points of a tile are still needed


class LazyGreedy:
    """One selection under way: bounds, how many picks each point has met, the current wave."""

    def __init__(self, points_ND: Tensor, count: int) -> None:
        self.points = points_ND.float().contiguous().numpy()
        n, d = self.points.shape
        self.screen = screen_of(points_ND, LEADING)
        self.centers = np.empty((count, d), dtype=np.float32)
        width = self.screen.width
        self.screens = np.zeros((count + TOGETHER, width), dtype=np.float32)
        self.squares = np.zeros(count, dtype=np.float32)
        self.screened = 0
        self.nearest = np.full(n, FAR, dtype=np.float32)
        self.met = np.zeros(n, dtype=np.int64)
        self.done = 0
        self.wave: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self.rows = np.empty((0, d), dtype=np.float32)
        self.near = np.empty(0, dtype=np.float32)
        self.bound = FAR
        self.top = -1

    def farthest(self) -> tuple[float, int]:
        """Return (squared distance, index) of the farthest point; (-1, 0) when all are picked."""
        while self.top < 0 or self.near[self.top] <= self.bound:
            if self.bound < 0:
                return -1.0, 0
            self._next_wave()
        return float(self.near[self.top]), int(self.wave[self.top])

    def add(self, center_D: NDArray[np.float32], index: int | None) -> None:
        """Add a pick: a point of its own (index) or one that lies elsewhere (None)."""
        self.centers[self.done] = center_D
        self.done += 1
        if self.done == 1:
            _meet_together(self.points, self.nearest, self.centers, 0)
            self.met[:] = 1
        elif len(self.wave):
            self.top = _step(self.rows, self.near, self.centers, self.done - 1)
        if index is not None:
            self._mark(index)

    def run(self, order: NDArray[np.int64], last: int) -> None:
        """Pick until ``last`` picks are done, writing their indices into ``order``."""
        while self.done < last:
            self.farthest()
            self.done, self.top = _run(
                (self.rows, self.near, self.wave), self.centers, order, self.done, last, self.bound
            )

    def _mark(self, index: int) -> None:
        self.nearest[index] = -1
        place = int(np.searchsorted(self.wave, index))
        if place < len(self.wave) and self.wave[place] == index:
            self.near[place] = -1
            self.top = int(self.near.argmax())

    def _next_wave(self) -> None:
        self.nearest[self.wave] = self.near
        self.met[self.wave] = self.done
        self._screen_centers()
        n = len(self.points)
        wanted = SOUGHT if n > 2 * SOUGHT else n
        while True:
            self.bound = np.float32(-0.5)
            if wanted < n:
                self.bound = np.partition(self.nearest, n - wanted)[n - wanted]
            candidates = np.flatnonzero(self.nearest > self.bound)
            live = self._catch_up(candidates)
            if len(live) >= WAVE or wanted == n:
                break
            # The candidates fell below the bound, so the next bound is lower; equal bounds leave
            # no candidate, and then everything is looked at.
            wanted = min(2 * wanted, n // 2) if len(candidates) else n
        self.wave, self.rows, self.near = live, self.points[live], self.nearest[live]
        self.top = int(self.near.argmax()) if len(live) else -1

    def _screen_centers(self) -> None:
        new = slice(self.screened, self.done)
        self.screens[new], self.squares[new] = self.screen.embed(self.centers[new])
        self.screened = self.done

    def _catch_up(self, live: NDArray[np.int64]) -> NDArray[np.int64]:
        behind = live[self.met[live] < self.done]
        while len(behind):
            behind = behind[np.argsort(self.met[behind], kind="stable")]
            for first in range(0, len(behind), CHUNK):
                names = behind[first : first + CHUNK]
                screens, squares = self.screen.embed(self.points[names])
                _march(
                    (self.points, names, screens, squares, self.nearest, self.met),
                    (self.centers, self.screens, self.squares),
                    self.done,
                    self.bound,
                    self.screen.slack,
                )
            behind = behind[(self.nearest[behind] > self.bound) & (self.met[behind] < self.done)]
        return live[self.nearest[live] > self.bound]


def order_cpu(points_ND: Tensor, count: int, start: int, report: Any) -> Tensor:
    """Return the picks of ``kcenter_order`` on the CPU."""
    order = np.empty(count, dtype=np.int64)
    order[0] = start
    with _numba.threads():
        state = LazyGreedy(points_ND, count)
        state.add(state.points[start], start)
        for last in range(256, count + 256, 256):
            state.run(order, min(last, count))
            report(state.done, count)
    return torch.from_numpy(order)


@njit(fastmath=True)
def _meet(rows: Any, near: Any, centers: Any, pick: Any, first: Any, last: Any) -> Any:
    """Let rows first to last meet one pick; return the farthest of them, the first of equals."""
    top = first
    for x in range(first, last):
        if near[x] > 0:
            near[x] = min(near[x], squared(rows, x, centers, pick))
        if near[x] > near[top]:
            top = x
    return top


@njit(parallel=True)
def _meet_together(rows: Any, near: Any, centers: Any, pick: Any) -> Any:
    parts = 16
    tops = np.empty(parts, dtype=np.int64)
    for part in prange(parts):
        low, high = len(rows) * part // parts, len(rows) * (part + 1) // parts
        tops[part] = _meet(rows, near, centers, pick, low, high)
    best = tops[0]
    for part in range(1, parts):
        if near[tops[part]] > near[best]:
            best = tops[part]
    return best


@njit()
def _step(rows: Any, near: Any, centers: Any, pick: Any) -> Any:
    # Waking the threads costs more than a small wave does.
    if len(rows) < ALONE:
        return _meet(rows, near, centers, pick, 0, len(rows))
    return _meet_together(rows, near, centers, pick)


@njit()
def _run(wave: Any, centers: Any, order: Any, done: Any, last: Any, bound: Any) -> Any:
    rows, near, names = wave
    top = np.argmax(near)
    while done < last and near[top] > bound:
        order[done] = names[top]
        for d in range(rows.shape[1]):
            centers[done, d] = rows[top, d]
        near[top] = -1
        top = _step(rows, near, centers, done)
        done += 1
    return done, top


@njit(parallel=True, fastmath=True)
def _march(live: Any, centers: Any, done: Any, bound: Any, slack: Any) -> None:
    tiles = (len(live[1]) + LANES - 1) // LANES
    parts = 4
    for part in prange(parts):
        for t in range(part, tiles, parts):
            _march_tile(live, centers, done, bound, slack, t * LANES)


@njit(fastmath=True)
def _march_tile(live: Any, centers: Any, done: Any, bound: Any, slack: Any, first: Any) -> None:
    """Let a tile of points meet the picks in turn, until half of them need no more."""
    points, names, screens, squares, nearest, met = live
    picks, pick_screens, pick_squares = centers
    lanes = min(LANES, len(names) - first)
    tile = np.zeros((screens.shape[1], LANES), dtype=np.float32)
    floor = np.full(LANES, FAR)
    pick = done
    for lane in range(lanes):
        for d in range(screens.shape[1]):
            tile[d, lane] = 2 * screens[first + lane, d]
        floor[lane] = _floor(squares[first + lane], nearest[names[first + lane]], slack)
        pick = min(pick, met[names[first + lane]])
    out = np.empty((TOGETHER, LANES), dtype=np.float32)
    alive = lanes
    while pick < done and 2 * alive > lanes:
        for group in range(pick, min(pick + STRIDE, done), TOGETHER):
            products(tile, pick_screens, group, out)
            for i in range(min(TOGETHER, done - group)):
                need = pick_squares[group + i] * (1 - slack)
                hits = 0
                for lane in range(LANES):
                    hits += out[i, lane] - floor[lane] > need
                if hits:
                    for lane in range(LANES):
                        if out[i, lane] - floor[lane] > need:
                            x = names[first + lane]
                            distance = squared(points, x, picks, group + i)
                            if distance < nearest[x]:
                                nearest[x] = distance
                                floor[lane] = _floor(squares[first + lane], distance, slack)
        pick = min(pick + STRIDE, done)
        alive = 0
        for lane in range(lanes):
            alive += nearest[names[first + lane]] > bound
    for lane in range(lanes):
        met[names[first + lane]] = pick


@njit(fastmath=True)
def _floor(square: Any, near: Any, slack: Any) -> Any:
    return square * (1 - slack) - near * (1 + slack)
