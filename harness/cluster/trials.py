"""Trials by Ray Tune: a setting each, on models that stay loaded, stage after stage in one session.

The result store is the truth; Tune's own state is disposable.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import uuid
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from harness.cluster.session import RETRIES, demand, largest_memory, room, settle
from harness.cost import memory_of
from harness.place import Place
from harness.search import stages as search
from harness.search.study import Study
from harness.search.trials import Shares
from harness.task import Show
from methods.base import Progress

PAUSE = 1.0, 5.0
"""The fewest and the most seconds of a pause; between them, a quarter of those of a setting."""
SHARES: Shares = (0.25, 0.5, 1.0)
"""Of the pseudo-validation, after which a hopeless trial may be stopped."""
Stages = Iterator[tuple[Sequence[Any], Show]]
"""Settings (Knobs) to score, and what is told of the number of each; the next follow when these are
done."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """A searcher draws so many settings from all, told of those whose value is known."""

    count: int
    known: tuple[tuple[Any, float], ...] = ()


class Trial(tune.Trainable):  # type: ignore[misc]
    """A setting of a study in a Ray Tune process, which takes up the next one when it is done.

    Its rows are in the store before Tune hears of them.
    """

    def setup(self, config: dict[str, Any], *, study: Study, place: Place, shares: Shares) -> None:
        """Called once a process: loads the models."""
        place = settle(place)
        self.seconds = 0.0
        self.trial = search.Trial(study, place, shares)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up the next setting, or a pause."""
        self.setting = new_config["setting"]
        if self.setting is not None:
            self.trial.take(self.setting)
        return True

    def step(self) -> dict[str, Any]:
        """Score the next larger share of the images."""
        if self.setting is None:
            least, most = PAUSE
            time.sleep(min(most, max(least, self.seconds / 4)))
            return {"objective": 0.0, "done": True}
        started = time.perf_counter()
        value, done = self.trial.step()
        self.seconds = time.perf_counter() - started
        return {"objective": value, "done": done}


class Bars(tune.Callback):  # type: ignore[misc]
    """Tells the progress bars of a stage how its trials go on."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.show: Show = lambda number, progress: None
        self.numbers: dict[str, int] = {}
        """Which of the stage's settings a trial is."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and a bar on a terminal can't be written."""
        return {}

    def begin(self, show: Show) -> None:
        """Another stage."""
        self.show = show
        self.numbers.clear()

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial has a process."""
        if trial.config["setting"] is None:
            return
        number = self.numbers.setdefault(trial.trial_id, len(self.numbers))
        self.show(number, Progress(stage="score", step=0, steps=self.steps))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A trial is done or was stopped."""
        if trial.config["setting"] is not None:
            self.show(self.numbers[trial.trial_id], None)


class Staged(Searcher):  # type: ignore[misc]
    """Hands out the settings of a stage, and those of the next one when all of them are done.

    So one session of Tune, whose processes have loaded the models, serves a whole search. Between
    stages Tune would end all of them but one; those without a setting therefore get a pause, if
    `pauses`, and then another one.
    """

    def __init__(self, stages: Stages, bars: Bars, *, pauses: bool) -> None:
        super().__init__(metric="objective", mode="max")
        self.stages, self.bars, self.pauses = stages, bars, pauses
        self.waiting: deque[tuple[int, Any]] = deque()
        self.running: set[str] = set()
        self.paused: set[str] = set()
        self.widest = 0
        """How many settings were scored side by side, so that no process is started to pause."""
        self.failed = False
        self.error: Exception | None = None
        """Why no next stage could be had."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as for the bars."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        """The next setting, a pause, or None, while a stage must be waited for."""
        if not self.waiting and self.running:
            return self._pause(trial_id)
        if not self.waiting and not self._next_stage():
            return Searcher.FINISHED
        number, knobs = self.waiting.popleft()
        self.bars.numbers[trial_id] = number
        self.running.add(trial_id)
        self.widest = max(self.widest, len(self.running))
        return {"setting": dataclasses.asdict(knobs)}

    def _pause(self, trial_id: str) -> Any:
        if self.failed or not self.pauses or len(self.running) + len(self.paused) >= self.widest:
            return None
        self.paused.add(trial_id)
        return {"setting": None}

    def _next_stage(self) -> bool:
        if self.failed:
            return False
        try:
            tried, show = next(self.stages)
        except StopIteration:
            return False
        except Exception as error:  # raised here, Tune would wrap it in advice of its own
            self.error = error
            return False
        self.bars.begin(show)
        self.waiting.extend(enumerate(tried))
        return True

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """A trial ended; after one that failed there is no next stage."""
        self.running.discard(trial_id)
        if trial_id in self.paused:
            self.paused.remove(trial_id)
            self.pauses &= not error
        else:
            self.failed |= error

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search goes on from the store."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was saved."""


def tune_trials(
    study: Study,
    stages: Stages,
    place: Place,
    *,
    early_stop: bool = False,
    draws: Draws | None = None,
) -> None:
    """Score settings with Ray Tune, stage after stage; RuntimeError, with the first reason, if
    trials failed.

    `early_stop` ends hopeless trials on a share of the images; `draws` are made from all settings
    instead of trying each. With either there may be one stage only: the values of a stage say
    nothing of what is hopeless in another.
    """
    if draws and draws.count == 0:
        return
    shares = SHARES if early_stop else SHARES[-1:]
    needs = demand(place.resources)
    memory = min(largest_memory(), memory_of(study.first, on_gpu=bool(needs.get("GPU"))))
    trainable = tune.with_resources(
        tune.with_parameters(Trial, study=study, place=place, shares=shares),
        {"cpu": needs.get("CPU", 0), "gpu": needs.get("GPU", 0), "memory": memory},
    )
    bars = Bars(len(shares))
    searcher = (
        _optuna(study, stages, bars, draws)
        if draws
        else Staged(stages, bars, pauses=not early_stop)
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"setting": _space(study)} if draws else None,
        tune_config=tune.TuneConfig(
            metric="objective",
            mode="max",
            num_samples=draws.count if draws else -1,
            max_concurrent_trials=max(1, room(place.resources)),
            # Processes that import torch and load the model once, not once a trial.
            reuse_actors=True,
            search_alg=searcher,
            scheduler=ASHAScheduler(max_t=len(shares), reduction_factor=2) if early_stop else None,
        ),
        run_config=tune.RunConfig(
            # As for a fit: what counts is in the store, not in Tune's state.
            name=f"tune-{study.key}-{uuid.uuid4().hex[:8]}",
            storage_path=str(place.store.out / "ray"),
            # A trial whose node is lost begins again elsewhere. Tune counts one such loss up to
            # three times: what ran, what was asked next, what is begun before Ray misses the node.
            failure_config=tune.FailureConfig(max_failures=3 * RETRIES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
            callbacks=[bars],
        ),
    )
    errors = tuner.fit().errors
    if isinstance(searcher, Staged):
        if searcher.error is not None:
            raise searcher.error
        if not searcher.failed:  # a pause that failed takes nothing from what is in the store
            return
    if errors:
        cause = getattr(errors[0], "cause", None) or errors[0]
        raise RuntimeError(f"{len(errors)} trials failed: {type(cause).__name__}: {cause}")


def _space(study: Study) -> dict[str, Any]:
    return {name: tune.choice(list(values)) for name, values in study.stages[0].grid.items()}


def _optuna(study: Study, stages: Stages, bars: Bars, draws: Draws) -> Searcher:
    """Draws from all settings of the first stage, told of those that are known."""
    from ray.tune.search.optuna import OptunaSearch

    logging.getLogger("optuna").setLevel(logging.WARNING)
    bars.begin(next(stages)[1])
    grid = study.stages[0].grid
    points = [
        {f"setting/{name}": getattr(knobs, name) for name in grid} for knobs, _ in draws.known
    ]
    return OptunaSearch(
        seed=0,
        points_to_evaluate=points or None,
        evaluated_rewards=[value for _, value in draws.known] or None,
    )
