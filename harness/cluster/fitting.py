"""Many workers that fit one model as a Ray Train job, and many that score with it.

The result store is the truth; Ray's own state is disposable.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util import ActorPool

from harness.cluster.relay import own_folder
from harness.cluster.session import RETRIES, demand, late, settle
from harness.cluster.telling import Telling
from harness.plan.cell import Cell
from harness.work.execute import Scorer, built, learn
from harness.work.place import Piece, Place, Spread
from methods.base import Diverged, Progress, quiet


def fit_on_workers(cell: Cell, place: Place, telling: Telling, number: int) -> None:
    """Fit one model as a Ray Train job; the workers leave it in the store.

    Each worker runs `harness.work.execute.learn`, the same code as alone: it knows
    torch.distributed and nothing of Ray. A worker that dies, or leaves the others waiting for
    longer than the patience, restarts all from the last checkpoint, RETRIES times at most. Workers
    that the cluster does not give within as many seconds fail the cell.
    """
    if place.store.trained(cell):
        return
    resources = place.resources
    # Ray Train has no argument for it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(resources.patience)
    trainer = TorchTrainer(
        _fit_worker,
        train_loop_config={"cell": cell, "place": place, "telling": telling, "number": number},
        torch_config=TorchConfig(
            backend="nccl" if resources.gpus else "gloo", timeout_s=resources.patience
        ),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=bool(resources.gpus),
            resources_per_worker=demand(resources),
        ),
        run_config=RunConfig(
            # A name of its own for each attempt: what counts is in the store, not in Ray's state.
            name=f"{cell.fit_id}-{uuid.uuid4().hex[:8]}",
            storage_path=str(_state(place)),
            failure_config=FailureConfig(max_failures=RETRIES, controller_failure_limit=0),
        ),
    )
    try:
        diverged = trainer.fit().return_value
    except TrainingFailedError as error:
        if "startup timed out" in str(error):
            raise late(resources) from None
        last = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"{last} (on {resources.workers} workers)\n{error}") from None
    if diverged:
        raise Diverged(diverged)


def _state(place: Place) -> Path:
    """The folder of Ray Train's own state, on whichever node it runs its controller.

    Workers would have to see it only if they gave checkpoints to Ray; ours go to the store.
    """
    out = own_folder(place.home.mark) if place.home else place.store.out
    return out / "ray"


def _fit_worker(settings: dict[str, Any]) -> str:
    """The function that each Ray Train worker runs; why the training diverged, if it did."""
    cell, place, telling, number = (settings[k] for k in ("cell", "place", "telling", "number"))

    def tell(progress: Progress) -> None:
        if dist.get_rank() == 0:
            telling.tell(number, progress)

    try:
        learn(cell, cell.data.open_kept(), settle(place), tell)
    except Diverged as error:
        return str(error)  # raised, Ray would start it again, to diverge again
    return ""


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


def _spread(
    workers: Sequence[Any], patience: int, ranges: Sequence[range], knobs: Any
) -> Iterator[Piece]:
    pool = ActorPool(workers)
    for indices in ranges:
        pool.submit(lambda worker, indices: worker.piece.remote(indices, knobs), indices)
    for _ in ranges:
        try:
            yield pool.get_next(timeout=patience)
        except TimeoutError:
            raise RuntimeError(f"a scoring worker was silent for {patience} s") from None
