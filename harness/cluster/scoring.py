"""One model that many workers score with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import ray

from harness.cluster.session import RETRIES, demand, late, settle
from harness.plan.cell import Cell
from harness.work.execute import Scorer, built
from harness.work.place import Piece, Place, Spread
from methods.base import quiet

AHEAD = 2
"""Pieces that wait at each worker that scores, so that none is idle and memory stays bounded."""


class _ScoringWorker:
    """Holds the trained model in a process of its own."""

    def __init__(self, cell: Cell, place: Place) -> None:
        place = settle(place)
        method = built(cell, place)
        if place.store.load_model(cell, method) is None:
            raise RuntimeError(f"{place.store.model(cell)}: the trained model is gone")
        self.scorer = Scorer(cell, method, place, quiet)

    def piece(self, indices: range, knobs: Any) -> Piece:
        return self.scorer.piece(indices, knobs)


@contextmanager
def scoring_workers(cell: Cell, place: Place) -> Iterator[Spread]:
    """A `Spread` over as many processes as fit a model, which load the cell's from the store.

    One that dies is started again, RETRIES times at most; one that is silent for longer than the
    patience fails the cell.
    """
    resources, needs = place.resources, demand(place.resources)
    start = ray.remote(
        num_cpus=needs.get("CPU", 0),
        num_gpus=needs.get("GPU", 0),
        max_restarts=RETRIES,
        max_task_retries=RETRIES,
    )(_ScoringWorker)
    workers = [start.remote(cell, place) for _ in range(resources.workers)]
    ready = [worker.__ray_ready__.remote() for worker in workers]
    try:
        if ray.wait(ready, num_returns=len(ready), timeout=resources.patience)[1]:
            raise late(resources)
        ray.get(ready)
        yield partial(_spread, workers, resources.patience)
    finally:
        for worker in workers:
            ray.kill(worker)


def _spread(
    workers: Sequence[Any], patience: int, ranges: Sequence[range], knobs: Any
) -> Iterator[Piece]:
    waiting: deque[Any] = deque()
    for number, indices in enumerate(ranges):
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
