"""How good a frozen choice is: every setting that was tried, scored on the test split as well.

OUT/revealed/<cell>.parquet         its rows, which nothing that chooses reads
OUT/choices/<choice>.revealed.json  its regret, and how pseudo-validation and test agree
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import polars as pl

from harness.plan.datasets import whole, with_held_out
from harness.plan.registry import load
from harness.search.choice import Choice
from harness.search.decision import compare
from harness.search.study import Study
from harness.search.tuning import Score
from harness.store.store import Store
from harness.work.place import Place
from results.analysis.selection import ALL, agreement, by_setting, opinions, regrets
from results.table import read_part


class Revealed(NamedTuple):
    """Tables of a revealed choice, as rows: see `selection.regrets` and `selection.agreement`."""

    regrets: list[dict[str, Any]]
    agreement: list[dict[str, Any]]


def reveal(study: Study, choice: Choice, place: Place, score: Score) -> Revealed:
    """Score what was tried, and the preset's own setting, on the test split; written too."""
    revealed, tried, own = _revealed(study, choice), _tried(study, choice), study.first.knobs
    every = list(dict.fromkeys([*tried, own]))
    if missing := revealed.missing(every, place.store):
        score(revealed, missing, place)
    rows = _rows(revealed, every, place.store)
    if study.published:
        thought = by_setting(_rows(study, tried, place.store)).with_columns(family=pl.lit(ALL))
    else:
        names = [json.dumps(asdict(setting)) for setting in every]
        thought = opinions(compare(study, every, own, place.store), names)
    chosen = json.dumps(asdict(choice.knobs(study.first.method)))
    named = {"chosen": chosen, "the preset's": json.dumps(asdict(own))}
    found = Revealed(regrets(rows, named), agreement(thought, rows, chosen).to_dicts())
    content = json.dumps(found._asdict(), indent=1).encode()
    name = f"choices/{choice.path.stem}.revealed.json"
    place.store.folder.put(name, content, replace=True)
    return found


def _rows(study: Study, settings: Sequence[Any], store: Store) -> pl.DataFrame:
    return pl.concat(read_part(store.part(c)) for knobs in settings for c in study.at(knobs))


def _revealed(study: Study, choice: Choice) -> Study:
    """The study's models with the test split in place of the pseudo-validation.

    Taking a frozen choice is what makes this safe: there is nothing left to choose.
    """
    cells = [
        replace(cell, data=with_held_out(whole(cell.data), choice.held), purpose="reveal")
        for cell in study.cells
    ]
    options = replace(study.options, folds=1, leave_out=False)
    return replace(study, cells=tuple(cells), options=options)


def _tried(study: Study, choice: Choice) -> list[Any]:
    """The settings with a value, each once, in the order of the search."""
    kind = load("methods", study.first.method).method.Knobs
    settings = (setting for stage in choice.record["stages"] for setting in stage["tried"])
    return list(dict.fromkeys(kind(**s["knobs"]) for s in settings if s["values"]))
