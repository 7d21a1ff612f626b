"""The only file that says "ray": a cluster, a plan mapped over it, one fit on many workers, trials.

The result store is the truth; Ray's own state is disposable.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import ray
import torch
import torch.distributed as dist
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.schedulers import ASHAScheduler
from ray.util.queue import Empty, Queue

from harness.execute import Outcome, Piece, Scorer, Spread, learn, run_job
from harness.place import Place
from harness.registry import UsageError, load
from harness.spec import Cell
from harness.study import Study
from harness.trials import Shares, prepare
from harness.tune import Benches, How
from methods.base import Diverged, Progress, quiet

Show = Callable[[int, Progress | None], None]
"""Told of progress of item i; None when it ends."""
POLL_SECONDS = 0.5
RETRIES = 2
FITTING = (run_job, prepare)
"""Work that begins with a fit; its items begin with a cell."""
SHARES: Shares = (0.25, 0.5, 1.0)
"""Of the pseudo-validation, after which a hopeless trial may be stopped."""
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
    slots = _slots(place)
    if slots < place.workers:
        why = f"the cluster has room for {slots} of them"
        raise UsageError(place.no_room(ray.cluster_resources(), why))


def _slots(place: Place) -> int:
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
    start(max(1, _slots(place) // place.workers) if many else len(items))
    while waiting:
        ended, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
        _show_all(queue, show)
        for reference in ended:
            number = waiting.pop(reference)
            show(number, None)
            yield items[number], _error(reference)
        start(len(ended))
    queue.shutdown(force=True)


def _task(
    function: Callable[..., None], item: Any, place: Place, queue: Queue, number: int
) -> None:
    """Runs in a worker process."""
    torch.set_num_threads(place.cpus)

    def tell(progress: Progress) -> None:
        # Not `queue.put`: it waits for the answer, and Ray lends a waiting task's CPU to the next
        # task, so that more of them would run than there are cores.
        queue.actor.put_nowait.remote((number, progress))

    if place.workers > 1 and function in FITTING:
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
    except Empty:
        return


def _error(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, BaseException) else Exception(str(error))
    except ray.exceptions.RayError as error:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return None


def fit_on_workers(cell: Cell, place: Place, queue: Queue, number: int) -> None:
    """Fit one model as a Ray Train job; the workers leave it in the store.

    Each worker runs `harness.execute.learn`, the same code as alone: it knows torch.distributed
    and nothing of Ray. A worker that dies, or leaves the others waiting for longer than
    `place.patience` seconds, restarts all from the last checkpoint, RETRIES times at most. Workers
    that the cluster does not give within as many seconds fail the cell.
    """
    if place.store.model(cell).is_dir():
        return
    # Ray Train has no argument for it.
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(place.patience)
    resources = {"CPU": float(place.cpus)} | ({"GPU": place.gpus} if place.gpus else {})
    trainer = TorchTrainer(
        _fit_worker,
        train_loop_config={"cell": cell, "place": place, "queue": queue, "number": number},
        torch_config=TorchConfig(
            backend="nccl" if place.gpus else "gloo", timeout_s=place.patience
        ),
        scaling_config=ScalingConfig(
            num_workers=place.workers, use_gpu=place.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(
            # A name of its own for each attempt: what counts is in the store, not in Ray's state.
            name=f"{cell.fit_id}-{uuid.uuid4().hex[:8]}",
            storage_path=str(place.store.out / "ray"),
            failure_config=FailureConfig(max_failures=RETRIES, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        if "startup timed out" in str(error):
            raise _late(place) from None
        last = str(error).strip().splitlines()[-1]
        raise RuntimeError(f"{last} (on {place.workers} workers)\n{error}") from None
    if diverged := place.store.diverged(cell):
        raise Diverged(diverged)


def _fit_worker(settings: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    cell, place, queue, number = (settings[k] for k in ("cell", "place", "queue", "number"))
    torch.set_num_threads(place.cpus)

    def tell(progress: Progress) -> None:
        if dist.get_rank() == 0:
            queue.actor.put_nowait.remote((number, progress))

    try:
        learn(cell, cell.data.open_kept(), place, tell)
    except Diverged as error:
        # Raised, Ray would start it again; it would only diverge again.
        place.store.note_diverged(cell, str(error))


class Trial(tune.Trainable):  # type: ignore[misc]
    """A setting of a study in a Ray Tune process, which takes up the next one when it is done.

    Its rows are in the store before Tune hears of them.
    """

    def setup(self, config: dict[str, Any], *, study: Study, place: Place, shares: Shares) -> None:
        """Called once a process: loads the models."""
        torch.set_num_threads(place.cpus)
        self.benches = Benches(study, place, shares)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next setting."""
        self.benches.take(new_config["setting"])
        return True

    def step(self) -> dict[str, Any]:
        """Score the next larger share of the images."""
        value, done = self.benches.step()
        return {"objective": value, "done": done}


class Shown(tune.Callback):  # type: ignore[misc]
    """Tells our progress bars how trials go on."""

    def __init__(self, show: Show, steps: int) -> None:
        self.show, self.steps = show, steps
        self.numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and a bar on a terminal can't be written."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has a process."""
        number = self.numbers.setdefault(trial.trial_id, len(self.numbers))
        self.show(number, Progress(stage="score", step=0, steps=self.steps))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial is done or was stopped."""
        self.show(self.numbers[trial.trial_id], None)


def tune_trials(study: Study, tried: Sequence[Any], place: Place, how: How, show: Show) -> None:
    """Score settings with Ray Tune; RuntimeError, with the first reason, if trials failed."""
    shares = SHARES if how.early_stop else SHARES[-1:]
    trainable = tune.with_resources(
        tune.with_parameters(Trial, study=study, place=place, shares=shares),
        {"cpu": place.cpus, "gpu": place.gpus},
    )
    space, searcher, count = _sampled(study, tried, how)
    if count == 0:
        return
    tuner = tune.Tuner(
        trainable,
        param_space={"setting": space},
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=count,
            max_concurrent_trials=max(1, _slots(place)),
            # Processes that import torch and load the model once, not once a trial.
            reuse_actors=True,
            search_alg=searcher,
            scheduler=ASHAScheduler(max_t=len(shares), reduction_factor=2)
            if how.early_stop
            else None,
        ),
        run_config=tune.RunConfig(
            # As for a fit: what counts is in the store, not in Tune's state.
            name=f"tune-{study.key}-{uuid.uuid4().hex[:8]}",
            storage_path=str(place.store.out / "ray"),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            callbacks=[Shown(show, len(shares))],
        ),
    )
    if errors := tuner.fit().errors:
        cause = getattr(errors[0], "cause", None) or errors[0]
        raise RuntimeError(f"{len(errors)} trials failed: {type(cause).__name__}: {cause}")


def _sampled(study: Study, tried: Sequence[Any], how: How) -> tuple[Any, Any, int]:
    """What Tune draws settings from, the searcher and how many it draws."""
    if how.searcher is None:
        return tune.grid_search([dataclasses.asdict(knobs) for knobs in tried]), None, 1
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.WARNING)
    grid = study.stages[0].grid
    space = {name: tune.choice(list(values)) for name, values in grid.items()}
    points = [{f"setting/{name}": getattr(knobs, name) for name in grid} for knobs, _ in how.known]
    searcher = OptunaSearch(
        seed=0,
        points_to_evaluate=points or None,
        evaluated_rewards=[value for _, value in how.known] or None,
    )
    return space, searcher, how.draws


class _ScoringWorker:
    """Holds the trained model in a process of its own."""

    def __init__(self, cell: Cell, place: Place) -> None:
        torch.set_num_threads(place.cpus)
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
            raise _late(place)
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


def _late(place: Place) -> RuntimeError:
    why = f"they did not start within {place.patience} s (--patience), this much is free"
    return RuntimeError(place.no_room(ray.available_resources(), why))
