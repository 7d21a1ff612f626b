"""How good a frozen choice is: every setting that was tried, scored on the test split as well.

OUT/revealed/<cell>.parquet         its rows, which nothing that chooses reads
OUT/choices/<choice>.revealed.json  how pseudo-validation and test agree, by family and category,
                                    and what the choice detects by level and size
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from typing import Any

import polars as pl

from benchmarks.parts.synthesis.families import LEVELS, PAPER
from harness.plan.datasets import whole, with_held_out
from harness.plan.registry import load
from harness.search.choice import Choice
from harness.search.decision import elect
from harness.search.study import Study
from harness.search.tuning import Score
from harness.work.place import Place
from results.analysis.election import Election
from results.analysis.selection import agreement, detected, opinions
from results.table import read_part

METRIC = "image_auroc"
SIZES = 5
"""Bins of the curve by size."""


def reveal(study: Study, choice: Choice, place: Place, score: Score) -> pl.DataFrame:
    """Score what was tried on the test split; the table of `agreement`, which is written too."""
    revealed, tried = _revealed(study, choice), _tried(study, choice)
    if missing := revealed.missing(tried, place.store):
        score(revealed, missing, place)
    rows = pl.concat(
        read_part(place.store.part(cell)) for knobs in tried for cell in revealed.at(knobs)
    )
    knobs = choice.knobs(study.first.method)
    election = elect(study, tried, place.store)
    names = [json.dumps(dataclasses.asdict(setting)) for setting in tried]
    thought = opinions(election, names, by_rank=study.selector != PAPER)
    table = agreement(thought, rows, json.dumps(dataclasses.asdict(knobs)), METRIC)
    found = _detected(study, election, tried.index(knobs))
    content = {"agreement": table.to_dicts(), "detected": found}
    name = f"choices/{choice.path.stem}.revealed.json"
    place.store.folder.put(name, json.dumps(content, indent=1).encode(), replace=True)
    return table


def _revealed(study: Study, choice: Choice) -> Study:
    """The study's models with the test split in place of the pseudo-validation.

    Taking a frozen choice is what makes this safe: there is nothing left to choose.
    """
    cells = [
        replace(cell, data=with_held_out(whole(cell.data), choice.held), purpose="reveal")
        for cell in study.cells
    ]
    return replace(study, cells=tuple(cells), extra=())


def _detected(study: Study, election: Election, chosen: int) -> dict[str, list[dict[str, Any]]]:
    """AUROC of made anomalies against normal images by the chosen setting, by level and by size."""
    pseudo = study.first.data.open_held()
    pseudo.unseen()  # draws all, side by side
    drawn = {
        sample.key: pseudo.drawn(sample)
        for sample in pseudo.validation(study.first.data.categories)
        if sample.anomalous and pseudo.target(sample)
    }
    pairs = [
        (value, drawn[image.key])
        for image, value in zip(
            election.images, election.differences[:, chosen].mean(0), strict=True
        )
        if image.key in drawn
    ]
    if not pairs:
        return {}
    values = [float(value) for value, _ in pairs]
    return {
        "level": detected(values, [draw.level for _, draw in pairs], len(LEVELS)),
        "size": detected(values, [draw.size for _, draw in pairs], SIZES),
    }


def _tried(study: Study, choice: Choice) -> list[Any]:
    """The settings with a value, each once, in the order of the search."""
    kind = load("methods", study.first.method).method.Knobs
    settings = (setting for stage in choice.record["stages"] for setting in stage["tried"])
    return list(dict.fromkeys(kind(**s["knobs"]) for s in settings if s["values"]))
