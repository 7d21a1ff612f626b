"""Trained models that tests share: each is made once a run, by the process that first asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from made_cells import smoke_cells
from made_studies import made_place

from harness.work.cache import FeatureCache
from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import quiet
from results.files import locked

SHARED = Path(os.environ["LAFITE_BENCH_CACHE"]).parent / "trained"
CACHE = FeatureCache.default()


def trained(method: str, **asked: Any) -> Place:
    """Where a calibrated smoke cell of the method is finished; who changes it makes a copy first.

    `asked` is what else `smoke_cells` takes.
    """
    [cell] = smoke_cells(method, calibrate=0.25, **asked)
    place = made_place(SHARED / cell.cell_id, CACHE)
    with locked(SHARED / f"{cell.cell_id}.lock", lambda: None):
        if not place.store.done(cell):
            run_job([cell], place, quiet)
    return place
