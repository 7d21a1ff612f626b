"""Provenance of numbers: every cell of a folder with its settings, versions and fingerprints."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import polars as pl

from results.analysis.cells import label
from results.reports.numbers import number
from results.table import DONE

_PER_ROW = {"category", "metric", "value", "reason"}  # of a number, not of its cell
_TITLE = {"cell_id", "method", "variant", "seed", "status", "benchmark"}


def cells(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """All cells of `table.read`'s frame, sorted by id, as the page numbers them.

    Each is its row of the frame, with its name, whether it is done, and facts: the columns that
    its title does not have, as text by name.
    """
    rows = frame.unique("cell_id", keep="first").sort("cell_id").drop(_PER_ROW, strict=False)
    return [
        row
        | {
            "name": label(row),
            "done": row["status"] == DONE,
            "facts": {
                name.removesuffix("_json").replace("_", " "): _text(value)
                for name, value in row.items()
                if name not in _TITLE and value not in (None, "")
            },
        }
        for row in rows.to_dicts()
    ]


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(value, (int, float)):
        return number(value, 2 if isinstance(value, float) else 0)
    if value.startswith("{"):
        return ", ".join(f"{name} = {setting}" for name, setting in json.loads(value).items())
    return str(value)
