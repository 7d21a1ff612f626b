"""The search for knobs from top to bottom: propose, score on Ray Tune, judge, freeze.

What was tried is read back from the store, never from Ray, whose own state is disposable: a search
that was cut off goes on from the trials that are there.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from ray import tune

from harness.cluster.session import RETRIES, demand, largest_memory, room, settle
from harness.search import space
from harness.search.choice import Choice, check_meaning, freeze
from harness.search.decision import StageResult, Verdict, decide, verdict
from harness.search.models import LoadedModel, bank_search_tasks, score_setting, training_tasks
from harness.search.study import Study
from harness.work.cost import memory_of
from harness.work.jobs import feature_tasks
from harness.work.place import Place
from harness.work.task import Driver, Show, finish
from methods.parts.progress import Progress

Score = Callable[[Study, Sequence[Any], Place], None]
"""Scores settings (Knobs) of a study and publishes their rows."""
FAILED = "failed"
"""The entry of a trial's result that says why it has no rows."""
Shown = Callable[[Study, Sequence[Any]], AbstractContextManager[Show]]
"""Shows settings of a study while they are scored, told of each by its place in the sequence."""


def choose(study: Study, place: Place, score: Score) -> Choice:
    """Search, and freeze what was found; NothingToChoose where that would mean nothing."""
    found, results = search_stages(study, place, score)
    check_meaning(study, results)
    return freeze(place.store, study, found, results, place.code_version)


def search_stages(study: Study, place: Place, score: Score) -> tuple[Verdict, list[StageResult]]:
    """The choice among all that the stages tried, one after the other, and what each of them tried.

    Settings that are in the store are not tried again. NothingToChoose where no setting of a stage
    has a value; RuntimeError where rows did not arrive, as a part of them chooses nothing.
    """
    start = knobs = study.first.knobs
    results, store = list[StageResult](), place.store
    for stage in study.stages:
        proposed = (space.settings if study.published else space.with_anchor)(stage, knobs)
        _have(study, proposed, place, score)
        result = decide(study, stage, proposed, replace(knobs, **stage.fixed), store)
        results.append(result)
        knobs = replace(knobs, **{name: getattr(result.next_start, name) for name in stage.grid})
    if study.published:
        return Verdict(knobs, "the highest mean wins, as published"), results
    _have(study, [start, knobs], place, score)
    tried = (one.knobs for result in results for one in result.tried if one.values)
    return verdict(study, list(dict.fromkeys([start, *tried, knobs])), start, store), results


def _have(study: Study, settings: Sequence[Any], place: Place, score: Score) -> None:
    """Score the settings that the store lacks; RuntimeError where some are lacking still."""
    if missing := study.missing(settings, place.store):
        score(study, missing, place)
    if lost := study.missing(missing, place.store):
        raise RuntimeError(
            f"{len(lost)} of {len(missing)} settings left no rows in {place.store.out}; "
            "nothing is chosen from a part of them"
        )


def score_on_tune(
    study: Study, settings: Sequence[Any], place: Place, *, drive: Driver, shown: Shown
) -> None:
    """Score settings with Ray Tune, after what they share was made by the driver's tasks.

    RuntimeError, with the first reason, where trials failed.
    """
    finish(drive, "features", feature_tasks(study.every, place), place)
    finish(drive, "training", training_tasks(study, place), place)
    finish(drive, "searching banks", bank_search_tasks(study, place.store), place)
    needs = demand(place.resources)
    memory = min(largest_memory(), memory_of(study.first, on_gpu=bool(needs.get("GPU"))))
    with shown(study, settings) as show:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(Trial, study=study, settings=settings, place=place),
                {"cpu": needs.get("CPU", 0), "gpu": needs.get("GPU", 0), "memory": memory},
            ),
            param_space={"number": tune.grid_search(list(range(len(settings))))},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=max(1, room(place.resources)),
                # Processes that import torch and load the models once, not once a trial.
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name=f"tune-{study.key}-{uuid.uuid4().hex[:8]}",
                storage_path=str(place.store.out / "ray"),
                # A trial whose node is lost begins again elsewhere. Tune counts one such loss up to
                # three times: what ran, what was asked next, what is begun before Ray misses it.
                failure_config=tune.FailureConfig(max_failures=3 * RETRIES),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                verbose=0,
                callbacks=[_Telling(show)],
            ),
        )
        results = tuner.fit()
    failed = [result.metrics[FAILED] for result in results if FAILED in (result.metrics or {})]
    if failed := failed + [str(error) for error in results.errors]:
        raise RuntimeError(f"{len(failed)} trials failed: {failed[0]}")


class Trial(tune.Trainable):  # type: ignore[misc]
    """A setting in a process that has loaded the study's models, which takes up the next one when
    it is done. Its rows are in the store before Tune hears of it."""

    def setup(
        self, config: dict[str, Any], *, study: Study, settings: Sequence[Any], place: Place
    ) -> None:
        """Called once a process: loads the models."""
        place = settle(place)
        self.study, self.settings = study, settings
        self.models = [LoadedModel(cell, place) for cell in study.every]
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take up another setting."""
        self.number = new_config["number"]
        return True

    def step(self) -> dict[str, Any]:
        """Score the setting; what it raises is a result, as Tune would try it again, in vain."""
        try:
            score_setting(self.study, self.models, self.settings[self.number])
        except Exception as error:
            return {"done": True, FAILED: f"{type(error).__name__}: {error}"}
        return {"done": True}


class _Telling(tune.Callback):  # type: ignore[misc]
    """Tells a `Show` which trials began and ended."""

    def __init__(self, show: Show) -> None:
        self.show = show

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune writes its callbacks to disk, and a bar on a terminal can't be written."""
        return {}

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.show(trial.config["number"], Progress(stage="score", step=0, steps=1))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        self.show(trial.config["number"], None)
