"""Many workers that fit one model as a Ray Train job, and many that score with it.

The result store is the truth; Ray's own state is disposable.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Timer
from typing import Any

import ray
import torch.distributed as dist
from ray.train import (
    ControllerError,
    FailureConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
)
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2._internal.execution.callback import WorkerGroupCallback
from ray.util import ActorPool, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from harness.cluster.relay import own_folder
from harness.cluster.session import RETRIES, demand, late, settle
from harness.cluster.telling import Telling
from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.work.execute import Scorer, built, learn
from harness.work.place import Piece, Place, Spread
from methods.base import Diverged
from methods.parts.progress import Progress, quiet

AGAIN_SECONDS = 2.0
"""Seconds before a group that did not start is started anew."""
START_SECONDS = 30.0
"""Seconds for processes to start and to import, beside those in which they get a place."""
NOTICED_SECONDS = 70.0
"""Seconds in which Ray notices that a node is lost."""


class _Punctual(WorkerGroupCallback):  # type: ignore[misc]
    """Ends a group of workers that does not begin to train within so many seconds.

    By itself Ray would wait without end for the first word of a process that hangs.
    """

    def __init__(self, mark: int, seconds: float) -> None:
        self.mark, self.seconds = mark, seconds

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        # In this process it is read: a silent worker has else half a minute to say goodbye.
        os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
        self.timer = Timer(self.seconds, _free, [self.mark])
        self.timer.daemon = True  # where the group fails to start nobody cancels it
        self.timer.start()

    def after_worker_group_training_start(self, worker_group: Any) -> None:
        self.timer.cancel()


def _free(mark: int) -> None:
    """Give back the places of a group, which ends its workers.

    Ray keeps those of a group that failed to start for as long as the command runs. It names no
    group, but tells what each place has: `mark` bytes of memory beside its CPUs.
    """
    for name, group in placement_group_table().items():
        if any(place.get("memory") == mark for place in group["bundles"].values()):
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(name))))


def fit_on_workers(cell: Cell, place: Place, telling: Telling, number: int) -> None:
    """Fit one model as Ray Train jobs, one after the other until it is done; it is in the store.

    Each worker runs `harness.work.execute.learn`, the same code as alone: it knows
    torch.distributed and nothing of Ray. A worker that dies, or leaves the others waiting for
    longer than the patience, restarts all from the last checkpoint, RETRIES times at most. Workers
    that do not start, as where a lost node was still offered, are started anew within the patience,
    or NOTICED_SECONDS while no node is known to be lost. Those that the cluster does not give in
    that time fail the cell.
    """
    resources, nodes, losses, since = place.resources, _nodes(), 0, 0.0
    while not place.store.trained(cell):
        waited, mark = time.monotonic() - since if since else 0.0, 1 + secrets.randbelow(2**20)
        trainer = _trainer(cell, place, telling, number, mark, resources.patience - waited)
        try:
            diverged = trainer.fit().return_value
        except WorkerGroupError as error:
            losses, since = losses + 1, 0.0
            if losses > RETRIES:
                raise _ended(error, resources) from None
        except (ControllerError, ray.exceptions.RayActorError) as error:
            _free(mark)
            if "startup timed out" in str(error):
                raise late(resources) from None
            since = since or time.monotonic()
            limit = resources.patience if nodes - _nodes() else NOTICED_SECONDS
            if time.monotonic() - since >= min(limit, resources.patience):
                raise _ended(error, resources) from None
            time.sleep(AGAIN_SECONDS)
        else:
            if diverged:
                raise Diverged(diverged)
            return


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _ended(error: Exception, resources: Resources) -> RuntimeError:
    last = str(error).strip().splitlines()[-1]
    return RuntimeError(f"{last} (on {resources.workers} workers)\n{error}")


def _trainer(
    cell: Cell, place: Place, telling: Telling, number: int, mark: int, patience: float
) -> TorchTrainer:
    """A Ray Train job; its workers have to be placed within so many seconds, see `_free`."""
    resources = place.resources
    out = own_folder(place.home.mark) if place.home else place.store.out
    # Ray Train has no arguments for these: of a start, and of a worker that does not answer.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(patience)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(resources.patience)
    return TorchTrainer(
        _fit_worker,
        train_loop_config={"cell": cell, "place": place, "telling": telling, "number": number},
        torch_config=TorchConfig(
            backend="nccl" if resources.gpus else "gloo", timeout_s=resources.patience
        ),
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=bool(resources.gpus),
            resources_per_worker={**demand(resources), "memory": mark},
        ),
        run_config=RunConfig(
            # A name of its own for each attempt: what counts is in the store, not in Ray's state.
            name=f"{cell.fit_id}-{uuid.uuid4().hex[:8]}",
            # Workers would have to see it only if they gave checkpoints to Ray.
            storage_path=str(out / "ray"),
            # Starting again itself Ray would wait in vain for the places that it keeps.
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
            callbacks=[_Punctual(mark, resources.patience + START_SECONDS)],
        ),
    )


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
