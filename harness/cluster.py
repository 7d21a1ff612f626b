"""Ray: a cluster, a plan mapped over it, one model that many workers score with.

The result store is the truth; Ray's own state is disposable. One fit on many workers is in
`cluster_train`, trials are in `cluster_tune`; no other file says "ray".
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import ray
import torch
from ray.util.queue import Empty, Queue

from harness.execute import Outcome, Piece, Scorer, Spread, run_job
from harness.place import Place, Show
from harness.registry import UsageError, load
from harness.spec import Cell
from harness.trials import train
from methods.base import Progress, quiet
from methods.parts.backbone import SHAPES

POLL_SECONDS = 0.5
RETRIES = 2
FITTING = (run_job, train)
"""Work that begins with a fit; its items begin with a cell."""
AHEAD = 2
"""Pieces that wait at each worker that scores, so that none is idle and memory stays bounded."""


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """The cluster at `address` or RAY_ADDRESS, else an embedded one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's coming default; without it a FutureWarning stands on every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The store, not Tune, keeps results, and our bars, not Tune's tables, show them.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler ends a session as if it were done: half of it would make a choice.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    address = address or os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_fits(place: Place) -> None:
    """UsageError if the cluster can never give what one cell asks for."""
    slots = slots_of(place)
    if slots < place.workers:
        why = f"the cluster has room for {slots} of them"
        raise UsageError(place.no_room(ray.cluster_resources(), why))


def slots_of(place: Place) -> int:
    """How many cells, or workers of one, the cluster has room for at once."""
    return place.slots(node["Resources"] for node in ray.nodes() if node["Alive"])


def has_gpus() -> bool:
    """Whether the cluster has any GPU."""
    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def cluster_map(
    function: Callable[..., None], items: Sequence[Any], place: Place, *, show: Show
) -> Iterator[Outcome]:
    """`function(item, place, tell)` as a Ray task for each item; outcomes as they end.

    What a task raises, or the loss of its process, is the outcome's error.
    """
    if not items:
        return
    queue = Queue(actor_options={"num_cpus": 0})
    shared = ray.put(place)
    many = place.workers > 1 and function in FITTING
    task = ray.remote(
        # A task that fits with many workers only waits for them; they hold the resources.
        num_cpus=0 if many else place.cpus,
        num_gpus=0 if many else place.gpus,
        max_retries=0,
    )(_task)
    rest = enumerate(items)
    waiting: dict[Any, int] = {}

    def start(count: int) -> None:
        for number, item in islice(rest, count):
            waiting[task.remote(function, item, shared, queue, number)] = number

    # Fits that could not all be placed would take workers from one another.
    start(max(1, slots_of(place) // place.workers) if many else len(items))
    while waiting:
        ended, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
        _show_all(queue, show)
        for reference in ended:
            number = waiting.pop(reference)
            show(number, None)
            yield items[number], _error(reference)
        start(len(ended))
    queue.shutdown(force=True)


def settle(place: Place) -> None:
    """What each worker process begins with."""
    torch.set_num_threads(place.cpus)
    SHAPES.update(place.shapes)


def _task(
    function: Callable[..., None], item: Any, place: Place, queue: Queue, number: int
) -> None:
    """Runs in a worker process."""
    settle(place)

    def tell(progress: Progress) -> None:
        # Not `queue.put`: it waits for the answer, and Ray lends a waiting task's CPU to the next
        # task, so that more of them would run than there are cores.
        queue.actor.put_nowait.remote((number, progress))

    if place.workers > 1 and function in FITTING:
        from harness.cluster_train import fit_on_workers  # a second's import that few need

        fit_on_workers(item[0], place, queue, number)
    if place.workers > 1 and function is run_job:
        with scoring_workers(item[0], place) as spread:
            run_job(item, place, tell, spread)
    else:
        function(item, place, tell)


def _show_all(queue: Queue, show: Show) -> None:
    try:
        for number, progress in queue.get_nowait_batch(queue.qsize()):
            show(number, progress)
    except (Empty, ray.exceptions.RayActorError):
        # Without the process of the queue the bars stand still; what counts is how tasks end.
        return


def _error(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, BaseException) else Exception(str(error))
    except ray.exceptions.RayError as error:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return None


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


def late(place: Place) -> RuntimeError:
    """Workers did not come in time."""
    why = f"they did not start within {place.patience} s (--patience), this much is free"
    return RuntimeError(place.no_room(ray.available_resources(), why))
