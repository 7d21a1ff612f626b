"""Studies on the made data set `shapes`, and trials whose objective is made up, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from made_cells import smoke_cells

from benchmarks.base import sealed
from harness.plan.cell import Cell
from harness.plan.options import Say, SearchOptions, Selection
from harness.plan.plan import plan
from harness.search.choice import freeze
from harness.search.models import LoadedModel, score_setting
from harness.search.study import Study, by_row, checked, grids_of, held_by
from harness.search.tuning import Score, search_stages
from harness.store.journal import entries
from harness.store.store import FitFacts, Store
from harness.work.cache import FeatureCache
from harness.work.place import Place
from harness.work.rows import finished_rows
from methods.parts.progress import quiet
from results.metrics import Measured
from results.table import SCHEMA, write_part

UNMEASURED = ("test_images", "score_seconds", "images_per_second")


def study(
    method: str,
    *space: str,
    selector: str = "paper",
    overrides: Sequence[str] = (),
    seeds: int = 1,
    categories: Sequence[str] = (),
    benchmark: str = "shapes",
    **options: Any,
) -> Study:
    """Planned while the test split is sealed, as `tune` does."""
    selection = Selection(
        benchmarks=[benchmark],
        methods=[method],
        seeds=seeds,
        preset="smoke",
        overrides=list(overrides),
        categories=list(categories),
    )
    options = {"anomalies": 1, "folds": 1} | options
    asked = SearchOptions(space=list(space), selector=selector, **options)
    [planned] = planned_studies(selection, asked)
    return planned


def planned_studies(selection: Selection, options: SearchOptions, say: Say = quiet) -> list[Study]:
    """The studies of a selection, planned while the test split is sealed, as `tune` does."""
    with sealed():
        cells = plan(selection, held=held_by(options))
        grids = grids_of(cells, options)
        planned = [
            Study(cells=seeds, options=options, grids=grids[seeds[0].method])
            for seeds in by_row(cells)
        ]
        return checked(planned, say)


def made_place(out: Path, cache: FeatureCache) -> Place:
    store = Store(out)
    store.prepare()
    return Place(store=store, cache=cache)


def score_here(study: Study, settings: Sequence[Any], place: Place) -> None:
    """The simplest `Score`: in this process, one after the other."""
    models = [LoadedModel(cell, place) for cell in study.every]
    for knobs in settings:
        score_setting(study, models, knobs)


def made_scores(value_of: Callable[[Any], float | None], tried: list[Any]) -> Score:
    """A `Score` that publishes a made objective and remembers what it was asked for."""

    def score(study: Study, settings: Sequence[Any], place: Place) -> None:
        for cell in (cell for knobs in settings for cell in study.at(knobs)):
            tried.append(cell.knobs)
            publish_made(cell, place, value_of(cell.knobs))

    return score


def publish_made(cell: Cell, place: Place, value: float | None) -> None:
    """A finished cell with one category of that image AUROC."""
    facts = dict.fromkeys((*FitFacts._fields, *UNMEASURED)) | {"started_at": datetime.now(UTC)}
    why = "made without" if value is None else ""
    rows = finished_rows(cell, place, facts, {"disc": {"image_auroc": Measured(value, why)}})
    assert set(rows[0]) == set(SCHEMA.names)
    write_part(place.store.part(cell), rows)


def chosen(knobs: Any, *names: str) -> tuple[Any, ...]:
    return tuple(dataclasses.asdict(knobs)[name] for name in names)


def plain(seeds: int = 1) -> list[Cell]:
    """LafitE's cells with its own knobs, as `run` plans them."""
    return smoke_cells("lafite", seeds=seeds)


def separable(knobs: Any) -> float:
    """Best at t = 150 with and without editing, at k = 7 and the middle coreset."""
    k = 0.1 * (knobs.k == 7) if knobs.k else 0.0
    return 0.5 - abs(knobs.t - 150) / 1000 + k - abs(knobs.coreset - 0.05)


class Sweep:
    """A whole anchored search of LafitE's knobs, and what it noted of its work."""

    def __init__(self, place: Place) -> None:
        self.place, self.study = place, study("lafite", selector="anchored")
        with sealed():
            self.found, self.results = search_stages(self.study, place, score_here)
        self.knobs = self.found.knobs
        self.choice = freeze(place.store, self.study, self.found, self.results, "test")
        self.logged = list(entries(place.store.out / "work.jsonl"))
