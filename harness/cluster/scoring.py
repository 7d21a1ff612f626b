"""One model that many workers score with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from harness.cell import Cell
from harness.cluster.session import RETRIES, late, settle
from harness.execute import Piece, Scorer, Spread
from harness.place import Place
from harness.registry import load
from methods.base import quiet

AHEAD = 2
"""Pieces that wait at each worker that scores, so that none is idle and memory stays bounded."""


class _ScoringWorker:
    """Holds the trained model in a process of its own."""

    def __init__(self, cell: Cell, place: Place) -> None:
        settle(place)
        method = load("methods", cell.method)(cell.config, seed=cell.seed).to(place.device)
        if place.store.load_model(cell, method) is None:
            raise RuntimeError(f"{place.store.model(cell)}: the trained model is gone")
        self.scorer = Scorer(cell, method, place, quiet)

    def piece(self, indices: range, knobs: Any) -> Piece:
        return self.scorer.piece(indices, knobs)


@contextmanager
def scoring_workers(cell: Cell, place: Place) -> Iterator[Spread]:
    """A `Spread` over `place.workers` processes, which load the cell's model from the store.

    One that dies is started again, RETRIES times at most; one that is silent for longer than
    `place.patience` seconds fails the cell.
    """
    limits = {"max_restarts": RETRIES, "max_task_retries": RETRIES}
    start = ray.remote(num_cpus=place.cpus, num_gpus=place.gpus, **limits)(_ScoringWorker)
    workers = [start.remote(cell, place) for _ in range(place.workers)]
    ready = [worker.__ray_ready__.remote() for worker in workers]
    try:
        if ray.wait(ready, num_returns=len(ready), timeout=place.patience)[1]:
            raise late(place)
        ray.get(ready)
        yield partial(_spread, workers, place.patience)
    finally:
        for worker in workers:
            ray.kill(worker)


def _spread(
    workers: Sequence[Any], patience: int, pieces: Sequence[range], knobs: Any
) -> Iterator[Piece]:
    waiting: deque[Any] = deque()
    for number, indices in enumerate(pieces):
        waiting.append(workers[number % len(workers)].piece.remote(indices, knobs))
        if len(waiting) == AHEAD * len(workers):
            yield _patiently(waiting.popleft(), patience)
    for reference in waiting:
        yield _patiently(reference, patience)


def _patiently(reference: Any, patience: int) -> Any:
    try:
        return ray.get(reference, timeout=patience)
    except ray.exceptions.GetTimeoutError:
        raise RuntimeError(f"a scoring worker was silent for {patience} s") from None
