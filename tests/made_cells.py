"""Cells of the made data set `shapes`, planned as `run` plans them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.plan.cell import Cell, Held
from harness.plan.options import Selection
from harness.plan.plan import plan


def smoke_cells(
    *methods: str,
    benchmark: str = "shapes",
    seeds: int = 1,
    preset: str = "smoke",
    overrides: Sequence[str] = (),
    held: Held | None = None,
    **others: Any,
) -> list[Cell]:
    selection = Selection(
        benchmarks=[benchmark],
        methods=list(methods),
        seeds=seeds,
        preset=preset,
        overrides=list(overrides),
        **others,
    )
    return plan(selection, held=held)
