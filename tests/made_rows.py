"""Frames of the result table, made from values alone."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl

from results import table
from results.identity import told_apart

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def made_row(**changes):
    """A row of a finished cell of the method lafite."""
    return dict.fromkeys(table.SCHEMA.names) | {
        "mode": "multi-class", "preset": "quick", "profile": "default", "benchmark": "mixed",
        "method": "lafite", "variant": "", "seed": 0, "split": "test", "metric": "image_auroc",
        "reason": "", "status": "done", "finished_at": NOON,
    } | changes  # fmt: skip


def framed(rows):
    """Rows as `results.table.read` gives them."""
    schema = pl.DataFrame(table.SCHEMA.empty_table()).schema
    return told_apart(pl.DataFrame(list(rows), schema=schema))


def made_frame(values, metric="image_auroc", **changes):
    """The frame of {(method, seed, category): value}; one cell for each method and seed."""
    return framed(
        made_row(method=method, seed=seed, category=category, value=value, metric=metric)
        | {"cell_id": f"{method}-{seed}"}
        | changes
        for (method, seed, category), value in values.items()
    )
