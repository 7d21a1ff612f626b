"""Ray Train: one fit on many workers.

The result store is the truth; Ray's own state is disposable.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from harness.cluster.relay import own_folder
from harness.cluster.session import RETRIES, demand, late, settle
from harness.cluster.telling import Telling
from harness.plan.cell import Cell
from harness.work.execute import learn
from harness.work.place import Place
from methods.base import Diverged, Progress


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
        trainer.fit()
    except TrainingFailedError as error:
        if "startup timed out" in str(error):
            raise late(resources) from None
        last = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"{last} (on {resources.workers} workers)\n{error}") from None
    if diverged := place.store.diverged(cell):
        raise Diverged(diverged)


def _state(place: Place) -> Path:
    """The folder of Ray Train's own state, on whichever node it runs its controller.

    Workers would have to see it only if they gave checkpoints to Ray; ours go to the store.
    """
    out = own_folder(place.home.mark) if place.home else place.store.out
    return out / "ray"


def _fit_worker(settings: dict[str, Any]) -> None:
    """The function that each Ray Train worker runs."""
    cell, place, telling, number = (settings[k] for k in ("cell", "place", "telling", "number"))
    place = settle(place)

    def tell(progress: Progress) -> None:
        if dist.get_rank() == 0:
            telling.tell(number, progress)

    try:
        learn(cell, cell.data.open_kept(), place, tell)
    except Diverged as error:
        # Raised, Ray would start it again; it would only diverge again.
        place.store.note_diverged(cell, str(error))
