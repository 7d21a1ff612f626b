"""Studies on the made data set `shapes`, and trials whose objective is made up, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.base import sealed
from harness.features import FeatureCache
from harness.place import Place
from harness.plan import plan
from harness.rows import FIT_FACTS, finished_rows
from harness.spec import Cell, Held
from harness.store import Store
from harness.study import Study, plan_studies
from harness.tune import Trials
from results.metrics import Measured
from results.table import SCHEMA, write_part

UNMEASURED = ("test_images", "score_seconds", "images_per_second")


def study(
    method: str,
    *space: str,
    objective: str = "image_auroc",
    joint: bool = False,
    overrides: Sequence[str] = (),
    seeds: int = 1,
) -> Study:
    """Planned while the test split is sealed, as `tune` does."""
    with sealed():
        cells = plan(
            ["shapes"], [method], seeds=seeds, preset="smoke", overrides=overrides, held=Held()
        )
        [found] = plan_studies(cells, space, objective, joint=joint, named=True)
    return found


def made_place(out: Path, cache: FeatureCache) -> Place:
    store = Store(out)
    store.prepare()
    return Place(store=store, cache=cache)


def made_trials(value_of: Callable[[Any], float], tried: list[Any]) -> Trials:
    """Trials that publish a made objective and remember what they were asked for."""

    def trials(study: Study, settings: Sequence[Any], place: Place) -> None:
        for cell in (cell for knobs in settings for cell in study.at(knobs)):
            tried.append(cell.knobs)
            publish_made(cell, place, value_of(cell.knobs))

    return trials


def publish_made(cell: Cell, place: Place, value: float) -> None:
    """A finished cell with one category of that image AUROC."""
    facts = dict.fromkeys((*FIT_FACTS, *UNMEASURED)) | {"started_at": datetime.now(UTC)}
    rows = finished_rows(cell, place, facts, {"disc": {"image_auroc": Measured(value)}})
    assert set(rows[0]) == set(SCHEMA.names)
    write_part(place.store.part(cell), rows)


def chosen(knobs: Any, *names: str) -> tuple[Any, ...]:
    return tuple(dataclasses.asdict(knobs)[name] for name in names)
