"""Exact nearest neighbours on the CPU: a screened search (kernels/_screen.py), compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import _numba
from kernels._numba import njit, prange
from kernels._screen import FAR, LANES, TOGETHER, products, screen_of, squared

LEADING = 63
PENDING = 256  # pairs that wait to be measured together: their cache misses overlap
BANK_ROWS = 1 << 18  # rows whose screen is held at once


def search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return (squared distances_NK, indices_NK), ascending, ties by lower index."""
    queries = queries_ND.float().contiguous()
    best = np.full((len(queries), k), FAR, dtype=np.float32)
    index = np.zeros((len(queries), k), dtype=np.int64)
    screen = screen_of(bank_MD, LEADING)
    with _numba.threads() as threads:
        query_screen, query_squares = screen.embed(queries.numpy())
        for first in range(0, len(bank_MD), BANK_ROWS):
            part = bank_MD[first : first + BANK_ROWS].float().contiguous()
            part_screen, part_squares = screen.embed(part.numpy())
            _search(
                (queries.numpy(), query_screen, query_squares),
                (part.numpy(), part_screen, part_squares, first),
                (best, index),
                screen.slack,
                threads,
            )
    return torch.from_numpy(best), torch.from_numpy(index)


@njit(parallel=True, fastmath=True)
def _search(queries: Any, bank: Any, found: Any, slack: Any, threads: Any) -> None:
    tiles = (len(queries[0]) + LANES - 1) // LANES
    for thread in prange(threads):
        for t in range(thread, tiles, threads):
            _search_tile(queries, bank, found, slack, t * LANES)


@njit(fastmath=True)
def _search_tile(queries: Any, bank: Any, found: Any, slack: Any, first: Any) -> None:
    points, screens, squares = queries
    rows, row_screens, row_squares, offset = bank
    best, index = found
    k = best.shape[1]
    lanes = min(LANES, len(points) - first)
    tile = np.zeros((screens.shape[1], LANES), dtype=np.float32)
    # A pair is measured if 2 e·e > floor + ||row||²: floor falls out of reach for unused lanes.
    floor = np.full(LANES, FAR)
    for lane in range(lanes):
        for d in range(screens.shape[1]):
            tile[d, lane] = 2 * screens[first + lane, d]
        floor[lane] = _floor(squares[first + lane], best[first + lane, k - 1], slack)
    out = np.empty((TOGETHER, LANES), dtype=np.float32)
    hits = np.empty(PENDING + 2 * TOGETHER * LANES, dtype=np.int64)
    count = 0
    whole = len(rows) // TOGETHER * TOGETHER
    for row in range(0, whole, TOGETHER):
        products(tile, row_screens, row, out)
        for i in range(TOGETHER):
            need = row_squares[row + i] * (1 - slack)
            count = _collect(out, i, floor, need, (row + i) * LANES, hits, count)
        if count >= PENDING or row + TOGETHER == whole:
            _measure(points, rows, hits[:count], first, best, index, offset)
            for lane in range(lanes):
                floor[lane] = _floor(squares[first + lane], best[first + lane, k - 1], slack)
            count = 0
    for row in range(whole, len(rows)):
        for x in range(first, first + lanes):
            _offer(points, x, rows, row, best, index, offset)


@njit(fastmath=True)
def _collect(out: Any, i: Any, floor: Any, need: Any, code: Any, hits: Any, count: Any) -> Any:
    """Append code + lane of every lane that passes; no branch on a single lane."""
    for group in range(0, LANES, 16):
        found = 0
        for lane in range(group, group + 16):
            found += out[i, lane] - floor[lane] > need
        if found:
            for lane in range(group, group + 16):
                hits[count] = code + lane
                count += out[i, lane] - floor[lane] > need
    return count


@njit(fastmath=True)
def _measure(
    points: Any, rows: Any, hits: Any, first: Any, best: Any, index: Any, offset: Any
) -> None:
    for code in hits:
        _offer(points, first + code % LANES, rows, code // LANES, best, index, offset)


@njit(fastmath=True)
def _floor(square: Any, worst: Any, slack: Any) -> Any:
    return square * (1 - slack) - worst * (1 + slack)


@njit(fastmath=True)
def _offer(points: Any, x: Any, rows: Any, row: Any, best: Any, index: Any, offset: Any) -> bool:
    """Put the row among the best of x if it is nearer than the last; equal ones stay in order."""
    place = best.shape[1] - 1
    distance = squared(points, x, rows, row)
    if distance >= best[x, place]:
        return False
    while place > 0 and best[x, place - 1] > distance:
        best[x, place] = best[x, place - 1]
        index[x, place] = index[x, place - 1]
        place -= 1
    best[x, place] = distance
    index[x, place] = offset + row
    return True
