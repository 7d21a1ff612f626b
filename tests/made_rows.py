"""Frames of the result table, made from values alone."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from results import table
from results.identity import told_apart

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def made_frame(values, metric="image_auroc", **changes):
    """The frame of {(method, seed, category): value}; one cell for each method and seed."""
    base = dict.fromkeys(table.SCHEMA.names) | {
        "mode": "multi-class", "preset": "quick", "profile": "default", "benchmark": "mixed",
        "split": "test", "variant": "", "status": "done", "finished_at": NOON, "metric": metric,
        "reason": "",
    }  # fmt: skip
    rows = [
        base
        | {"method": method, "seed": seed, "category": category, "value": value}
        | {"cell_id": f"{method}-{seed}"}
        | changes
        for (method, seed, category), value in values.items()
    ]
    frame = pl.DataFrame(rows, schema=pl.DataFrame(table.SCHEMA.empty_table()).schema)
    return told_apart(frame)
