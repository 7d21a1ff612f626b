"""How a stage decides between the settings that it tried, from their rows in the store."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from harness.plan.cell import Cell
from harness.plan.registry import load
from harness.search.study import Study, bank_search
from harness.store.store import Store
from methods.base import Stage
from results.analysis.election import Election, Image, anomalous, paired_differences
from results.analysis.selection import image_auroc
from results.table import read_part


class Tried(NamedTuple):
    """A setting, and the image AUROC of each seed; no values where a seed has none."""

    knobs: Any
    values: tuple[float, ...]


class StageResult(NamedTuple):
    """The settings that a stage tried; `best` is the place of the chosen one among them."""

    stage: Stage
    tried: list[Tried]
    best: int
    election: Election | None
    """Why that one; None where the highest mean wins."""

    @property
    def chosen(self) -> Any:
        """The knobs of the setting that was chosen."""
        return self.tried[self.best].knobs


class NothingToChoose(RuntimeError):
    """No setting of a stage has a value."""


def decide(study: Study, stage: Stage, proposed: Sequence[Any], store: Store) -> StageResult:
    """The election's winner, or with the paper's selector the highest mean over seeds, of equal
    ones the earlier.

    NothingToChoose where no setting has a value.
    """
    tried = [Tried(knobs, values(study, knobs, store)) for knobs in proposed]
    known = [place for place, setting in enumerate(tried) if setting.values]
    if not known:
        raise NothingToChoose(
            f"{study.label}: no setting of {', '.join(stage.grid)} has an image AUROC on the "
            "pseudo-validation"
        )
    if study.published:
        best = max(known, key=lambda place: fmean(tried[place].values))
        return StageResult(stage, tried, best, None)
    election = elect(study, [proposed[place] for place in known], store)
    best = known[election.winner([_cost(study, proposed[place]) for place in known])]
    return StageResult(stage, tried, best, election)


def values(study: Study, knobs: Any, store: Store) -> tuple[float, ...]:
    """The image AUROC of a setting, seed by seed; empty if a seed has none."""
    own = study.at(knobs)[: len(study.cells)]
    measured = [image_auroc(read_part(store.part(cell))) for cell in own]
    known = tuple(value for value in measured if value is not None)
    return known if len(known) == len(measured) else ()


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
    """The images of the cell's pseudo-validation, sorted by key."""
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
    """The cost of scoring with a setting: passes of the network, rows of a bank, neighbours."""
    search = bank_search(study.first.method, knobs)
    passes = load("methods", study.first.method).passes(knobs)
    return (passes, search.coreset, search.k) if search else (passes, 0.0, 0.0)


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
