"""The search for knobs: stages to settings, settings to trials, trials to a choice. No Ray here.

What was tried is read back from the store, never from what ran it: a search that was cut off goes
on from the trials that are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

import polars as pl

from harness.cell import Cell
from harness.place import Place
from harness.search.space import reachable, settings
from harness.search.study import Study
from harness.search.trials import LoadedModel, Shares, search_bank, train
from harness.store.store import Store
from harness.task import Task
from methods.base import Stage
from results.analysis.selection import objective, without_signal
from results.table import read_part

Trials = Callable[[Study, Iterator[Sequence[Any]], Place], None]
"""Scores settings (Knobs) of a study, stage by stage, and publishes their rows.

Taking the next stage says that the last one is done, and is where it is decided. Trials may leave
settings out, as hopeless, and stages to the next call.
"""


class Tried(NamedTuple):
    """A setting, and the objective of each seed; none where it was stopped early."""

    knobs: Any
    values: tuple[float, ...]


class StageResult(NamedTuple):
    """What a stage tried; `best` is the index of what it chose, `silent` are the categories that
    had no vote, as no setting tells their pseudo-anomalies from normal images."""

    stage: Stage
    tried: list[Tried]
    best: int
    silent: list[str]


class NothingToChoose(RuntimeError):
    """No setting of a stage has a value of the objective."""


def search(study: Study, place: Place, trials: Trials) -> tuple[Any, list[StageResult]]:
    """The knobs that the stages choose one after the other, and what each of them tried.

    The highest mean over seeds wins, of equal ones the earlier. Settings whose trials are in the
    store are not tried again.
    """
    results: list[StageResult] = []
    stages = _missing_settings(study, place.store, results)
    for first in stages:
        trials(study, chain([first], stages), place)
    return _after(study.first.knobs, results), results


def _missing_settings(
    study: Study, store: Store, results: list[StageResult]
) -> Iterator[Sequence[Any]]:
    """The settings that a stage lacks, then, once they are tried, those of the next."""
    images = held_images(study.first)
    for stage in study.stages:
        every = settings(stage, _after(study.first.knobs, results))
        missing = [knobs for knobs in every if not all(map(store.done, study.at(knobs)))]
        if missing:
            yield missing
        results.append(_decided(study, stage, every, store, images))


def _decided(
    study: Study,
    stage: Stage,
    every: Sequence[Any],
    store: Store,
    images: Mapping[str, tuple[int, int]],
) -> StageResult:
    silent = _without_signal(study, every, store, images)
    tried = [Tried(knobs, values(study, knobs, store, silent)) for knobs in every]
    if not any(setting.values for setting in tried):
        raise NothingToChoose(
            f"{study.label}: no setting of {', '.join(stage.grid)} has a value of "
            f"{' + '.join(study.objective)} on the pseudo-validation"
        )
    best = max(range(len(tried)), key=lambda i: fmean(tried[i].values or [-1.0]))
    return StageResult(stage, tried, best, silent)


def _after(knobs: Any, results: Sequence[StageResult]) -> Any:
    """The knobs with what each stage chose in place of their own."""
    for stage, tried, best, _ in results:
        knobs = replace(knobs, **{name: getattr(tried[best].knobs, name) for name in stage.grid})
    return knobs


def held_images(cell: Cell) -> dict[str, tuple[int, int]]:
    """Normal and pseudo-anomalous images of each category."""
    counts: dict[str, tuple[int, int]] = {}
    for sample in cell.data.open_held().validation(cell.data.categories):
        normal, anomalous = counts.get(sample.category, (0, 0))
        counts[sample.category] = normal + (not sample.anomalous), anomalous + sample.anomalous
    return counts


def _without_signal(
    study: Study, every: Sequence[Any], store: Store, images: Mapping[str, tuple[int, int]]
) -> list[str]:
    cells = [cell for knobs in every for cell in study.at(knobs) if store.done(cell)]
    if not cells:
        return []
    return without_signal(pl.concat(read_part(store.part(cell)) for cell in cells), images)


def values(study: Study, knobs: Any, store: Store, silent: Sequence[str] = ()) -> tuple[float, ...]:
    """The objective of a setting, seed by seed, as its trials left it; empty if one is missing."""
    cells = study.at(knobs)
    if not all(map(store.done, cells)):
        return ()
    measured = [objective(read_part(store.part(cell)), study.objective, silent) for cell in cells]
    known = tuple(value for value in measured if value is not None)
    return known if len(known) == len(measured) else ()


def training_tasks(study: Study, store: Store) -> list[Task]:
    """The trainings, one a seed, whose model the store lacks."""
    missing = [cell for cell in study.cells if not store.model(cell).is_dir()]
    return [Task(cell.label, partial(train, cell), fits=cell) for cell in missing]


def search_tasks(study: Study, store: Store) -> list[Task]:
    """The searches in banks that settings of the study share and the store lacks."""
    shared = {
        (cell.fit_id, search): (cell, search)
        for knobs in reachable(study.stages, study.first.knobs)
        for cell in study.cells
        if (search := study.bank_search(knobs))
    }
    return [
        Task(f"{cell.label} coreset={search.coreset}", partial(search_bank, cell, search))
        for cell, search in shared.values()
        if not store.neighbours(cell, search).is_dir()
    ]


class Trial:
    """One setting after the other on the models of all seeds, share by share of the images."""

    def __init__(self, study: Study, place: Place, shares: Shares = (1.0,)) -> None:
        self.study, self.shares = study, shares
        self.models = [LoadedModel(cell, place) for cell in study.cells]

    def take(self, knobs: Mapping[str, Any]) -> None:
        """Take up a setting: these knobs, the others as the study starts with them."""
        setting = replace(self.study.first.knobs, **knobs)
        self.cells, self.taken = self.study.at(setting), 0
        search, growing = self.study.bank_search(setting), len(self.shares) > 1
        self.scorers = [model.scorer_of(search, growing) for model in self.models]

    def step(self) -> tuple[float, bool]:
        """Score the next share: the objective on it, mean over seeds, and whether it was all."""
        share = self.shares[self.taken]
        self.taken += 1
        measured = [
            objective(model.run_share(cell, scorer, share), self.study.objective)
            for model, cell, scorer in zip(self.models, self.cells, self.scorers, strict=True)
        ]
        # 0 where a seed has no value: Tune needs a number, and the choice reads the rows.
        known = [value for value in measured if value is not None]
        value = fmean(known) if len(known) == len(measured) else 0.0
        return value, self.taken == len(self.shares)


def one_by_one(study: Study, stages: Iterator[Sequence[Any]], place: Place) -> None:
    """The simplest `Trials`: in this process, one after the other."""
    trial = Trial(study, place)
    for knobs in chain.from_iterable(stages):
        trial.take(dataclasses.asdict(knobs))
        trial.step()


def tried_before(study: Study, store: Store) -> tuple[tuple[Any, float], ...]:
    """Settings of the first stage that were tried, and their objective."""
    every = settings(study.stages[0], study.first.knobs)
    with_values = ((knobs, values(study, knobs, store)) for knobs in every)
    return tuple((knobs, fmean(seeds)) for knobs, seeds in with_values if seeds)


def record(results: Sequence[StageResult]) -> list[dict[str, Any]]:
    """The stages as plain values: what was tried, what it gave, what was chosen."""
    return [
        {
            "knobs": list(stage.grid),
            "fixed": dict(stage.fixed),
            "tried": [
                {"knobs": dataclasses.asdict(knobs), "values": list(seeds)}
                for knobs, seeds in tried
            ],
            "best": best,
            "silent": silent,
        }
        for stage, tried, best, silent in results
    ]
