"""The search for knobs: stages to settings, settings to trials, trials to a choice. No Ray here.

What was tried is read back from the store, never from what ran it: a search that was cut off goes
on from the trials that are there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from statistics import fmean
from typing import Any, NamedTuple

import polars as pl

from harness.cell import Cell
from harness.place import Place
from harness.search.space import reachable, settings
from harness.search.study import Study
from harness.search.trials import Bench, Shares
from harness.store.store import Store
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


class Searched(NamedTuple):
    """A stage that was searched; `best` is the index of what it chose, `silent` are the categories
    that had no vote, as no setting tells their pseudo-anomalies from normal images."""

    stage: Stage
    tried: list[Tried]
    best: int
    silent: list[str]


class NothingToChoose(RuntimeError):
    """No setting of a stage has a value of the objective."""


def search(study: Study, place: Place, trials: Trials) -> tuple[Any, list[Searched]]:
    """The knobs that the stages choose one after the other, and what each of them tried.

    The highest mean over seeds wins, of equal ones the earlier. Settings whose trials are in the
    store are not tried again.
    """
    searched: list[Searched] = []
    stages = _walk(study, place.store, searched)
    for first in stages:
        trials(study, chain([first], stages), place)
    return _after(study.first.knobs, searched), searched


def _walk(study: Study, store: Store, searched: list[Searched]) -> Iterator[Sequence[Any]]:
    """The settings that a stage lacks, then, once they are tried, those of the next."""
    images = held_images(study.first)
    for stage in study.stages:
        found = settings(stage, _after(study.first.knobs, searched))
        missing = [one for one in found if not all(map(store.done, study.at(one)))]
        if missing:
            yield missing
        silent = _without_signal(study, found, store, images)
        tried = [Tried(one, values(study, one, store, silent)) for one in found]
        if not any(one.values for one in tried):
            raise NothingToChoose(
                f"{study.label}: no setting of {', '.join(stage.grid)} has a value of "
                f"{' + '.join(study.objective)} on the pseudo-validation"
            )
        best = max(range(len(tried)), key=lambda i: fmean(tried[i].values or [-1.0]))
        searched.append(Searched(stage, tried, best, silent))


def _after(knobs: Any, searched: Sequence[Searched]) -> Any:
    """The knobs with what each stage chose in place of their own."""
    for stage, tried, best, _ in searched:
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
    study: Study, tried: Sequence[Any], store: Store, images: Mapping[str, tuple[int, int]]
) -> list[str]:
    cells = [cell for knobs in tried for cell in study.at(knobs) if store.done(cell)]
    if not cells:
        return []
    return without_signal(pl.concat(read_part(store.part(cell)) for cell in cells), images)


def values(study: Study, knobs: Any, store: Store, silent: Sequence[str] = ()) -> tuple[float, ...]:
    """The objective of a setting, seed by seed, as its trials left it; empty if one is missing."""
    cells = study.at(knobs)
    if not all(map(store.done, cells)):
        return ()
    found = [objective(read_part(store.part(cell)), study.objective, silent) for cell in cells]
    return tuple(value for value in found if value is not None) if None not in found else ()


def one_by_one(study: Study, stages: Iterator[Sequence[Any]], place: Place) -> None:
    """The simplest `Trials`: in this process, one after the other."""
    benches = Benches(study, place)
    for knobs in chain.from_iterable(stages):
        benches.take(dataclasses.asdict(knobs))
        benches.step()


@dataclass(frozen=True, kw_only=True)
class How:
    """How trials run: `early_stop` ends hopeless ones on a share of the images, `searcher` makes
    `draws` from all settings instead of trying each, with the values of those that are known."""

    early_stop: bool = False
    searcher: str | None = None
    draws: int = 0
    known: tuple[tuple[Any, float], ...] = ()


class Benches:
    """One setting after the other on the models of all seeds, share by share of the images."""

    def __init__(self, study: Study, place: Place, shares: Shares = (1.0,)) -> None:
        self.study, self.shares = study, shares
        self.benches = [Bench(cell, place, study.most_k) for cell in study.cells]

    def take(self, knobs: Mapping[str, Any]) -> None:
        """Take up a setting: these knobs, the others as the study starts with them."""
        self.cells = self.study.at(replace(self.study.first.knobs, **knobs))
        growing = len(self.shares) > 1
        both = zip(self.benches, self.cells, strict=True)
        self.settings = [bench.setting(cell, growing) for bench, cell in both]
        self.taken = 0

    def step(self) -> tuple[float, bool]:
        """Score the next share: the objective on it, mean over seeds, and whether it was all."""
        share = self.shares[self.taken]
        self.taken += 1
        found = [
            objective(bench.run_share(cell, setting, share), self.study.objective)
            for bench, cell, setting in zip(self.benches, self.cells, self.settings, strict=True)
        ]
        # 0 where a seed has no value: Tune needs a number, and the choice reads the rows.
        known = [value for value in found if value is not None]
        value = fmean(known) if len(known) == len(found) else 0.0
        return value, self.taken == len(self.shares)


def known(study: Study, store: Store) -> tuple[tuple[Any, float], ...]:
    """Settings of the first stage that were tried, and their objective."""
    every = settings(study.stages[0], study.first.knobs)
    return tuple((one, fmean(found)) for one in every if (found := values(study, one, store)))


def untrained(study: Study, store: Store) -> list[Cell]:
    """The cells, one a seed, whose model the store lacks."""
    return [cell for cell in study.cells if not store.model(cell).is_dir()]


def unsearched(study: Study, store: Store) -> list[Cell]:
    """A cell for each search in a bank that settings of the study share and the store lacks."""
    first: dict[Any, Cell] = {}
    for knobs in reachable(study.stages, study.first.knobs):
        if getattr(knobs, "k", 0):
            for cell in study.at(knobs):
                first.setdefault((cell.fit_id, cell.knobs.coreset), cell)
    return [cell for cell in first.values() if not store.searches(cell, study.most_k).is_dir()]


def table(searched: Sequence[Searched]) -> list[dict[str, Any]]:
    """The stages as plain values, for the record: what was tried, what it gave, what was chosen."""
    return [
        {
            "knobs": list(stage.grid),
            "fixed": dict(stage.fixed),
            "tried": [
                {"knobs": dataclasses.asdict(one.knobs), "values": list(one.values)}
                for one in tried
            ],
            "best": best,
            "silent": silent,
        }
        for stage, tried, best, silent in searched
    ]
