"""Choices without anomalies beside the test split: Figure 6 of each search that was revealed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from results.analysis.selection import AVERAGE, by_setting, swept
from results.files import ResultsError
from results.reports.page.charts import Chart, knob
from results.reports.tables import agreement, regrets
from results.table import read_part


def selectors(out: Path) -> list[dict[str, Any]]:
    """All frozen choices under an output folder as the template shows them.

    Those that were revealed have tables of regret and of agreement with the test split, and
    Figure 6.
    """
    paths = sorted((out / "choices").glob("*.json"))
    return [_selector(path, out) for path in paths if not path.stem.endswith(".revealed")]


def _selector(path: Path, out: Path) -> dict[str, Any]:
    try:
        choice = json.loads(path.read_text())
        revealed = path.with_suffix(".revealed.json")
        found = json.loads(revealed.read_text()) if revealed.exists() else None
        return {
            "name": f"{choice['benchmark']} {choice['method']}, {choice['preset']}",
            "chosen": ", ".join(f"{name} = {value}" for name, value in choice["knobs"].items()),
            "why": choice["verdict"]["why"],
            "frozen_at": choice["frozen_at"][:19].replace("T", " "),
            "tables": [regrets(found["regrets"]), agreement(found["agreement"])] if found else [],
            "charts": list(_charts(choice, out)) if found else [],
        }
    except (KeyError, ValueError) as error:
        raise ResultsError(f"{path}: no choice that can be read ({error}); remove it") from error


def _charts(choice: dict[str, Any], out: Path) -> Iterator[Chart]:
    """A chart a knob: the mean over categories on both sets, at the other knobs of its stage."""
    means = {
        "pseudo-validation": _means(out / "trials", choice),
        "test": _means(out / "revealed", choice),
    }
    for stage in choice["stages"]:
        best = stage["tried"][stage["best"]]["knobs"]
        for name in stage["knobs"]:
            line = swept(stage, name)
            heights = {
                split: [by_knobs.get(json.dumps(knobs)) for knobs in line]
                for split, by_knobs in means.items()
            }
            yield knob(name, [knobs[name] for knobs in line], heights, best[name])


def _means(folder: Path, choice: dict[str, Any]) -> dict[str, float]:
    """The mean over categories, %, of each setting of one study, by the JSON of its knobs."""
    parts = [read_part(path) for path in sorted(folder.glob("[!.]*.parquet"))]
    if not parts:
        return {}
    rows = pl.concat(parts).filter(
        pl.col("data_fingerprint").str.starts_with(choice["kept_fingerprint"]),
        method=choice["method"],
        config_json=json.dumps(choice["config"]),
    )
    means = by_setting(rows).filter(pl.col("category") == AVERAGE)
    return {row["knobs_json"]: 100 * row["value"] for row in means.to_dicts()}
