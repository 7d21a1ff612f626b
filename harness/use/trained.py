"""Finished cells of a folder of results, found again with their images."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.base import DataError
from benchmarks.parts.content import fingerprint
from harness.plan.cell import DATA_PATHS, Cell
from harness.plan.options import is_address
from harness.plan.registry import UsageError, did_you_mean, first_line
from harness.store.store import Store
from harness.use.predict import cell_of, record_of, with_copies
from harness.work.features import open_split
from results.analysis.cells import labelled, row_named
from results.table import DONE, read


def find_cell(
    store: Store, method: str, seed: int, category: str, data: Path | None = None
) -> Cell:
    """The newest finished cell of a row of the report, as `row_named` takes its name.

    UsageError if there is none, and as `stored_cell`.
    """
    frame = labelled(read(store.out).filter(pl.col("status") == DONE))
    row = row_named(frame, method)
    for column, wanted in (("label", row), ("seed", seed), ("category", category)):
        present = [str(value) for value in frame[column].unique().sort()]
        frame = frame.filter(pl.col(column) == wanted)
        if frame.is_empty():
            hint = did_you_mean(str(wanted), present)
            raise UsageError(f"{store.out}: no finished cell with {column} '{wanted}'; {hint}")
    newest = frame.sort("finished_at").row(-1, named=True)
    return stored_cell(store, newest["cell_id"], data)


def stored_cell(store: Store, cell_id: str, data: Path | None = None) -> Cell:
    """A finished cell, with its test images; `data` is where they lie, if they were moved.

    UsageError if its model is gone, or its code or images changed.
    """
    uses = [Path(n) for n in store.folder.list("models") if n.endswith(f"/cells/{cell_id}.json")]
    models = [str(use.parents[1]) for use in uses if "." not in use.parents[1].name]
    if not models:
        raise UsageError(
            f"{store.out}: the model of cell {cell_id} is gone; run it again with --overwrite"
        )
    folder = store.folder.local(models[0])
    cell = cell_of(folder, record_of(folder, cell_id), partial(_placed, moved=data))
    if cell.cell_id != cell_id:
        raise UsageError(
            f"{store.out}: {cell.method} changed since cell {cell_id}; run it again with "
            "--overwrite"
        )
    why = ""
    try:
        if fingerprint(*open_split(cell.data, "test")) == cell.data.test_fingerprint:
            return cell
    except (UsageError, DataError) as error:
        why = f" ({first_line(error)})"
    raise UsageError(
        f"{store.out}: the images of cell {cell_id} are gone or changed since{why}; say where they "
        "lie now (--data DIR), or run it again with --overwrite"
    )


def _placed(data: dict[str, Any], moved: Path | None) -> dict[str, Any]:
    """The record of data, with its paths on this machine."""
    name = data["benchmark"]
    of_its_own = is_address(name) or Path(name).is_absolute()
    if moved is None or (of_its_own and Path(name).exists()):
        return with_copies(data, DATA_PATHS)
    return data | {"benchmark" if of_its_own else "root": str(moved)}
