"""Ids of all methods and presets stay as they are: results of earlier versions are found again.

`ids.json` was written by `python tests/test_harness_identity.py`, run on the version before a
change. An id that changes on purpose (another default, another published value) is written anew,
and the changelog says so. A new method needs no entry until its results are to be kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from harness.plan.cell import Cell, Data, Held
from harness.plan.registry import load, names
from harness.search.study import choice_key

FILE = Path(__file__).with_name("ids.json")
DATA = {
    "whole": Data(
        name="parts",
        benchmark="made",
        categories=("a", "b"),
        train_fingerprint="0" * 16,
        test_fingerprint="1" * 16,
        train_images=96,
        test_images=80,
    ),
    "held out": Data(
        name="parts",
        benchmark="made",
        categories=("a",),
        train_fingerprint="2" * 16,
        test_fingerprint="3" * 16,
        train_images=88,
        test_images=16,
        held=Held(),
    ),
}
"""Two data sets: what a cell is, not how data are hashed."""


def ids() -> dict[str, list[str]]:
    """cell_id, fit_id and the key of a choice, by method, preset, variant and data set."""
    rows = {}
    for name in names("methods"):
        declared = load("methods", name)
        for preset, settings in declared.presets.items():
            variants = {"": settings} | dict(declared.ablation(*settings))
            for (variant, (config, knobs)), data in (
                (variant, data) for variant in variants.items() for data in DATA
            ):
                cell = Cell(
                    data=DATA[data],
                    mode="multi-class",
                    method=name,
                    preset=preset,
                    config=config,
                    knobs=knobs,
                    seed=3,
                    weights_sha256="4" * 64,
                )
                key = choice_key(cell, "5" * 16)
                row = ", ".join(filter(None, (name, preset, variant, data)))
                rows[row] = [cell.cell_id, cell.fit_id, key]
    return rows


def test_no_id_changed() -> None:
    before, now = json.loads(FILE.read_text()), ids()
    changed = [row for row in before if now.get(row) != before[row]]
    assert not changed, "stored results of these would not be found again"


if __name__ == "__main__":
    FILE.write_text(json.dumps(ids(), indent=0) + "\n")
