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

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.parts.synthesis.families import PAPER
from harness.cell import Cell
from harness.cost import fit_flops, memory_of
from harness.place import Place
from harness.registry import load
from harness.search.space import reachable, settings
from harness.search.study import Study, bank_search
from harness.search.trials import SUMS, LoadedModel, Shares, search_bank, train
from harness.store.store import Store
from harness.task import Task
from methods.base import Stage
from results.analysis.election import Election, Image, anomalous, paired_differences
from results.analysis.selection import objective
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
    """What a stage tried; `best` is the index of what it chose, `election` says why."""

    stage: Stage
    tried: list[Tried]
    best: int
    election: Election | None
    """None where the highest mean wins."""


class NothingToChoose(RuntimeError):
    """No setting of a stage has a value of the objective."""


def search(study: Study, place: Place, trials: Trials) -> tuple[Any, list[StageResult]]:
    """The knobs that the stages choose one after the other, and what each of them tried.

    Of each stage the election's winner, or with the paper's selector the highest mean over seeds,
    of equal ones the earlier. Settings whose trials are in the store are not tried again.
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
    for stage in study.stages:
        every = settings(stage, _after(study.first.knobs, results))
        missing = [knobs for knobs in every if not all(map(store.done, study.at(knobs)))]
        if missing:
            yield missing
            _check_arrived(study, missing, store)
        results.append(_decided(study, stage, every, store))


def _check_arrived(study: Study, tried: Sequence[Any], store: Store) -> None:
    """RuntimeError where trials left no rows here: a part of them chooses nothing."""
    lost = [knobs for knobs in tried if not all(map(store.done, study.at(knobs)))]
    if lost and not study.partial and len(lost) < len(tried):
        raise RuntimeError(
            f"{len(lost)} of {len(tried)} settings left no rows in {store.out}; "
            "nothing is chosen from a part of them"
        )


def _decided(study: Study, stage: Stage, every: Sequence[Any], store: Store) -> StageResult:
    tried = [Tried(knobs, values(study, knobs, store)) for knobs in every]
    known = [place for place, setting in enumerate(tried) if setting.values]
    if not known:
        raise NothingToChoose(
            f"{study.label}: no setting of {', '.join(stage.grid)} has a value of "
            f"{' + '.join(study.objective)} on the pseudo-validation"
        )
    if study.selector == PAPER:
        best = max(known, key=lambda place: fmean(tried[place].values))
        return StageResult(stage, tried, best, None)
    election = elect(study, [every[place] for place in known], store)
    best = known[election.winner([_cost(study, every[place]) for place in known])]
    return StageResult(stage, tried, best, election)


def elect(study: Study, settings: Sequence[Any], store: Store) -> Election:
    """The settings before all anomalies of all cells of the study, from the scores in the store.

    Seeds see the same images, so that their differences are averaged; other folds add images.
    """
    groups: dict[str, list[int]] = {}
    for place, cell in enumerate(study.every):
        groups.setdefault(cell.data.test_fingerprint, []).append(place)
    parts, voters = [], []
    for places in groups.values():
        images = images_of(study.every[places[0]])
        parts.append(
            np.stack(
                [
                    [_differences(study.at(knobs)[place], images, store) for knobs in settings]
                    for place in places
                ]
            )
        )
        voters += anomalous(images)
    return Election(np.concatenate(parts, axis=2), voters)


def images_of(cell: Cell) -> list[Image]:
    """What the cell's pseudo-validation shows, sorted by key."""
    pseudo, images = cell.data.open_held(), []
    for sample in pseudo.validation(cell.data.categories):
        twin = pseudo.target(sample) if sample.anomalous else None
        family = sample.defect if sample.anomalous else ""
        images.append(Image(sample.key, sample.category, family, twin.key if twin else None))
    return images


def _differences(cell: Cell, images: Sequence[Image], store: Store) -> NDArray[np.float64]:
    scores = pl.read_parquet(store.trial_scores(cell), glob=False).sort("key")
    if scores["key"].to_list() != [image.key for image in images]:
        raise ValueError(f"{store.trial_scores(cell)}: holds scores of other images")
    return paired_differences(images, scores["score"].to_numpy())


def _cost(study: Study, knobs: Any) -> tuple[float, ...]:
    """What scoring with a setting costs: passes of the network, rows of a bank, neighbours."""
    search = bank_search(study.first.method, knobs)
    passes = load("methods", study.first.method).passes(knobs)
    return (passes, search.coreset, search.k) if search else (passes, 0.0, 0.0)


def _after(knobs: Any, results: Sequence[StageResult]) -> Any:
    """The knobs with what each stage chose in place of their own."""
    for stage, tried, best, _ in results:
        knobs = replace(knobs, **{name: getattr(tried[best].knobs, name) for name in stage.grid})
    return knobs


def values(study: Study, knobs: Any, store: Store) -> tuple[float, ...]:
    """The objective of a setting, seed by seed, as its trials left it; empty if one is missing."""
    cells = study.at(knobs)
    if not all(map(store.done, cells)):
        return ()
    own = cells[: len(study.cells)]
    measured = [objective(read_part(store.part(cell)), study.objective) for cell in own]
    known = tuple(value for value in measured if value is not None)
    return known if len(known) == len(measured) else ()


def training_tasks(study: Study, place: Place) -> list[Task]:
    """The trainings, one a seed, whose model the store lacks."""
    on_gpu = bool(place.resources.gpus)
    return [
        Task(
            cell.label,
            partial(train, cell),
            fits=cell,
            memory=memory_of(cell, on_gpu=on_gpu),
            work={"fit": fit_flops(cell)},
        )
        for cell in study.every
        if not place.store.trained(cell)
    ]


def search_tasks(study: Study, store: Store) -> list[Task]:
    """The searches in banks that settings of the study share and the store lacks."""
    shared = {
        (cell.fit_id, search): (cell, search)
        for knobs in reachable(study.stages, study.first.knobs)
        for cell in study.every
        if (search := study.bank_search(knobs))
    }
    return [
        Task(f"{cell.label} coreset={search.coreset}", partial(search_bank, cell, search))
        for cell, search in shared.values()
        if not store.folder.exists(f"{store.neighbours(cell, search)}/{SUMS}")
    ]


class Trial:
    """One setting after the other on the models of all seeds, share by share of the images."""

    def __init__(self, study: Study, place: Place, shares: Shares = (1.0,)) -> None:
        self.study, self.shares = study, shares
        self.models = [LoadedModel(cell, place) for cell in study.every]

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
    """The stages as plain values: what was tried, what it gave, what was chosen and why."""
    return [
        {
            "knobs": list(stage.grid),
            "fixed": dict(stage.fixed),
            "tried": [
                {"knobs": dataclasses.asdict(knobs), "values": list(seeds)}
                for knobs, seeds in tried
            ],
            "best": best,
            "votes": election and _votes(election, tried),
        }
        for stage, tried, best, election in results
    ]


def _votes(election: Election, tried: Sequence[Tried]) -> dict[str, Any]:
    """An election as plain values; of settings, in the order of those that have a value."""
    measured = [place for place, setting in enumerate(tried) if setting.values]
    return {
        "borda": election.scores.tolist(),
        "error": election.errors.tolist(),
        "tied": [measured[place] for place in election.tied],
        "weights": [
            {"category": group.category, "family": group.family, "weight": weight}
            for group, weight in zip(election.groups, election.weights.tolist(), strict=True)
        ],
    }
