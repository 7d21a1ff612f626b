"""Training curves: the losses that models in a folder of results keep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from results.files import record_in
from results.reports.page.charts import Chart, losses
from results.reports.sections import Section

MOST_RUNS = 40
"""Lines of a chart; separate models of many categories have more."""


def kept_losses(out: Path) -> dict[str, list[float]]:
    """Cell id -> losses of the model that it used, one an epoch."""
    found: dict[str, list[float]] = {}
    for record in sorted((out / "models").glob("[!.]*/fit.json")):
        with suppress(OSError, ValueError):  # `verify` names damaged ones
            values = record_in(record.read_bytes(), "losses")["losses"]
            if values and all(_is_number(value) for value in values):
                found |= {use.stem: values for use in record.parent.glob("cells/*.json")}
    return found


def training(section: Section, kept: dict[str, list[float]]) -> Iterator[Chart]:
    """A chart for each method of a section that has losses."""
    cells = section.chosen.select("label", "seed", "cell_id", "category").unique("cell_id")
    separate = section.frame["mode"][0] == "separate"
    for name in section.present:
        runs = {}
        for row in cells.filter(label=name).sort("seed", "category").to_dicts()[:MOST_RUNS]:
            run = f"{name}, seed {row['seed']}"
            if row["cell_id"] in kept:
                runs[f"{run}, {row['category']}" if separate else run] = kept[row["cell_id"]]
        if runs:
            title = f"Training loss of {name}, {section.title}"
            yield losses(name, section.labels.index(name), runs, title)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
