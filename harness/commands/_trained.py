"""Trained models of a folder of results, found again with their data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.base import DataError
from harness.cache import FeatureCache
from harness.cell import Cell, Held
from harness.options import is_address
from harness.pieces import pieces, with_held_out
from harness.predict import settings
from harness.registry import UsageError, did_you_mean, first_line, load
from harness.store.copies import input_of
from harness.store.store import Store
from methods.base import Method
from results.analysis.cells import labelled
from results.identity import POOLED
from results.table import DONE, read


def find_cell(
    store: Store, method: str, seed: int, category: str, data: Path | None = None
) -> Cell:
    """The newest finished cell of a row of the report, by its name or by its method alone.

    UsageError if there is none, its model is gone or its data changed. `data` is where the images
    lie, if they were moved.
    """
    frame = labelled(read(store.out).filter(pl.col("status") == DONE))
    by = "label" if method in frame["label"] else "method"
    for column, wanted in ((by, method), ("seed", seed), ("category", category)):
        present = [str(value) for value in frame[column].unique().sort()]
        frame = frame.filter(pl.col(column) == wanted)
        if frame.is_empty():
            hint = did_you_mean(str(wanted), present)
            raise UsageError(f"{store.out}: no finished cell with {column} '{wanted}'; {hint}")
    newest = frame.sort(pl.col("variant") == "", "finished_at").row(-1, named=True)
    return cell_of(store, newest, data)


def cell_of(store: Store, row: dict[str, Any], data: Path | None = None) -> Cell:
    """The cell of a row; UsageError where its model is gone or its data changed."""
    why = ""
    for model in store.models():
        others = model["method"] != row["method"] or model["seed"] != row["seed"]
        if others or row["category"] not in (*model["categories"], POOLED):
            continue
        try:
            cell = _rebuilt(row, model, data)
        except (UsageError, DataError) as error:  # perhaps of another data set than the row's
            why = f" ({first_line(error)})"
            continue
        if cell is not None and cell.cell_id == row["cell_id"]:
            return cell
    raise UsageError(
        f"{store.out}: the model of cell {row['cell_id']} is gone or its data changed since{why}; "
        "say where the images lie now (show --data DIR), or run it again with --overwrite"
    )


def load_trained(store: Store, cell: Cell) -> Method:
    """The cell's trained method; UsageError if it is damaged."""
    model: Method = load("methods", cell.method).method(cell.config, seed=cell.seed)
    if store.load_model(cell, model) is None:
        raise UsageError(
            f"{store.model(cell)}: the model is damaged, and was moved aside; "
            "run the cell again with --overwrite"
        )
    return model.eval()


def _rebuilt(row: dict[str, Any], model: dict[str, Any], moved: Path | None) -> Cell | None:
    """The cell of a row, from what its model's folder says about the data."""
    kind = load("methods", row["method"]).method
    root, weights = (_path(model[name]) for name in ("root", "weights"))
    held = model.get("held")
    name, mode, limit = str(_path(model["benchmark"])), row["mode"], model.get("limit")
    if moved is not None:
        name, root = (str(moved), root) if Path(name).is_absolute() else (name, moved)
    if Path(name).is_absolute() and not Path(name).exists():
        return None
    for data in pieces(name, root, model["categories"], mode, limit=limit):
        cell = Cell(
            data=with_held_out(data, Held.of(held)) if held else data,
            mode=row["mode"],
            method=row["method"],
            variant=row["variant"],
            preset=row["preset"],
            config=settings(kind.Config, json.loads(row["config_json"])),
            knobs=settings(kind.Knobs, json.loads(row["knobs_json"])),
            seed=row["seed"],
            profile=row["profile"],
            weights=weights,
            weights_sha256=row["weights_sha256"],
        )
        if cell.cell_id == row["cell_id"]:
            return cell
    return None


def _path(text: str | None) -> Path | None:
    """A path, or the copy of what lies in an object store."""
    if text and is_address(text):
        return input_of(FeatureCache.default().root / "inputs", text)
    return Path(text) if text else None
