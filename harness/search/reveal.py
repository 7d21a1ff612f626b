"""How good a frozen choice is: every setting that was tried, scored on the test split as well.

OUT/revealed/<cell>.parquet         its rows, which nothing that chooses reads
OUT/choices/<choice>.revealed.json  how pseudo-validation and test agree, by family and category,
                                    and what the choice detects by level and size
OUT/choices/<choice>.png            Figure 6: both against each knob
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.parts.synthesis.families import LEVELS, PAPER
from harness.pieces import pieces, with_held_out
from harness.place import Place
from harness.registry import load
from harness.search.choice import Choice
from harness.search.stages import Trials, elect
from harness.search.study import Study
from harness.store.store import Store
from results.analysis.election import Election
from results.analysis.selection import AVERAGE, agreement, by_setting, detected, opinions, swept
from results.table import read_part

METRIC = "image_auroc"
SIZES = 5
"""Bins of the curve by size."""


def revealed_study(study: Study, choice: Choice) -> Study:
    """The study's models with the test split in place of the pseudo-validation.

    Taking a frozen choice is what makes this safe: there is nothing left to choose.
    """
    cells = []
    for cell in study.cells:
        [data] = pieces(
            cell.data.benchmark,
            cell.data.root,
            cell.data.categories,
            mode="multi-class",
            limit=cell.data.limit,
        )
        cells.append(replace(cell, data=with_held_out(data, choice.held), purpose="reveal"))
    return replace(study, cells=tuple(cells), extra=())


def reveal(study: Study, choice: Choice, place: Place, trials: Trials) -> pl.DataFrame:
    """Score what was tried on the test split; the table of `agreement`."""
    revealed = revealed_study(study, choice)
    tried = _tried(study, choice)
    missing = [knobs for knobs in tried if not all(map(place.store.done, revealed.at(knobs)))]
    if missing:
        trials(revealed, iter([missing]), place)
    knobs = choice.knobs(study.first.method)
    election = elect(study, tried, place.store)
    names = [json.dumps(dataclasses.asdict(setting)) for setting in tried]
    thought = opinions(election, names, by_rank=study.selector != PAPER)
    on_pseudo, on_test = _rows(study, tried, place.store), _rows(revealed, tried, place.store)
    table = agreement(thought, on_test, json.dumps(dataclasses.asdict(knobs)), METRIC)
    found = _detected(study, election, tried.index(knobs))
    content = {"agreement": table.to_dicts(), "detected": found}
    name = f"choices/{choice.path.stem}.revealed.json"
    place.store.folder.put(name, json.dumps(content, indent=1).encode(), replace=True)
    _figure(study, choice, on_pseudo, on_test).savefig(picture_path(choice), dpi=110)
    return table


def _detected(study: Study, election: Election, chosen: int) -> dict[str, list[dict[str, Any]]]:
    """By level and by size: how well the chosen setting tells made anomalies from normal images."""
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


def picture_path(choice: Choice) -> Path:
    """Where Figure 6 is."""
    return choice.path.with_suffix(".png")


def _tried(study: Study, choice: Choice) -> list[Any]:
    """The settings with a value, each once, in the order of the search."""
    kind = load("methods", study.first.method).method.Knobs
    settings = (setting for stage in choice.record["stages"] for setting in stage["tried"])
    return list(dict.fromkeys(kind(**s["knobs"]) for s in settings if s["values"]))


def _rows(study: Study, tried: list[Any], store: Store) -> pl.DataFrame:
    return pl.concat(
        read_part(store.part(cell))
        for knobs in tried
        for cell in study.at(knobs)[: len(study.cells)]
    )


def _figure(study: Study, choice: Choice, pseudo: pl.DataFrame, test: pl.DataFrame) -> Figure:
    """A panel a knob: the mean over categories on both sets, at the other knobs of its stage."""
    panels = [(stage, name) for stage in choice.record["stages"] for name in stage["knobs"]]
    figure = Figure(figsize=(3.6 * len(panels), 3.2), layout="constrained")
    figure.suptitle(f"{study.label}, {study.first.preset}", fontsize=10)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    curves = {
        "pseudo-validation": _averages(pseudo),
        "test": _averages(test),
    }
    for axis, (stage, name) in zip(axes, panels, strict=True):
        _panel(axis, stage, name, curves)
    axes[0].set_ylabel(f"{METRIC}, %")
    axes[0].legend(fontsize=8)
    return figure


def _averages(rows: pl.DataFrame) -> dict[str, float]:
    mean = by_setting(rows, METRIC).filter(pl.col("category") == AVERAGE)
    return {row["knobs_json"]: 100 * row["value"] for row in mean.to_dicts()}


def _panel(
    axis: Axes, stage: dict[str, Any], name: str, curves: dict[str, dict[str, float]]
) -> None:
    best = stage["tried"][stage["best"]]["knobs"]
    line = swept(stage, name)
    for (label, curve), colour in zip(curves.items(), ("tab:blue", "tab:orange"), strict=True):
        heights = [curve[json.dumps(knobs)] for knobs in line]
        axis.plot([knobs[name] for knobs in line], heights, "o-", color=colour, label=label)
    axis.axvline(best[name], color="grey", linestyle=":", linewidth=1)
    axis.set_xlabel(f"{name} (dotted: chosen)")
    axis.tick_params(labelsize=8)
