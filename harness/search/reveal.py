"""How good a frozen choice is: every setting that was tried, scored on the test split as well.

OUT/revealed/<cell>.parquet         its rows, which nothing that chooses reads
OUT/choices/<choice>.revealed.json  how pseudo-validation and test agree, by family and category
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import polars as pl

from harness.plan.datasets import pieces, with_held_out
from harness.plan.registry import load
from harness.search.choice import Choice
from harness.search.decision import elect
from harness.search.study import Study
from harness.search.tuning import Score
from harness.work.place import Place
from results.analysis.selection import agreement, opinions
from results.table import read_part


def reveal(study: Study, choice: Choice, place: Place, score: Score) -> pl.DataFrame:
    """Score what was tried on the test split; the table of `agreement`, which is written too."""
    revealed, tried = _revealed(study, choice), _tried(study, choice)
    if missing := revealed.missing(tried, place.store):
        score(revealed, missing, place)
    rows = pl.concat(
        read_part(place.store.part(cell)) for knobs in tried for cell in revealed.at(knobs)
    )
    names = [json.dumps(asdict(setting)) for setting in tried]
    thought = opinions(elect(study, tried, place.store), names, by_rank=not study.published)
    chosen = json.dumps(asdict(choice.knobs(study.first.method)))
    table = agreement(thought, rows, chosen)
    content = json.dumps({"agreement": table.to_dicts()}, indent=1).encode()
    name = f"choices/{choice.path.stem}.revealed.json"
    place.store.folder.put(name, content, replace=True)
    return table


def _revealed(study: Study, choice: Choice) -> Study:
    """The study's models with the test split in place of the pseudo-validation.

    Taking a frozen choice is what makes this safe: there is nothing left to choose.
    """
    data = study.first.data
    [whole] = pieces(data.benchmark, data.root, data.categories, "multi-class", data.limit)
    whole = with_held_out(whole, choice.held)
    cells = tuple(replace(cell, data=whole, purpose="reveal") for cell in study.cells)
    options = replace(study.options, folds=1, leave_out=False)
    return replace(study, cells=cells, options=options)


def _tried(study: Study, choice: Choice) -> list[Any]:
    """The settings with a value, each once, in the order of the search."""
    kind = load("methods", study.first.method).method.Knobs
    settings = (setting for stage in choice.record["stages"] for setting in stage["tried"])
    return list(dict.fromkeys(kind(**s["knobs"]) for s in settings if s["values"]))
