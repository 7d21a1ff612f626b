"""Every image of a plan decoded once, before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import check, duplicates, losses
from benchmarks.parts.images import load_masks, vanished
from harness.cache import FeatureCache
from harness.cell import Cell, Data, digest
from harness.commands._progress import counter, noting
from harness.options import first_few
from harness.pieces import MOST_PROBLEMS
from harness.registry import load
from results.files import write_whole

MOST_NOTES = 2
"""Of a kind."""
RULES = 2
"""Raised when the check finds more than it did."""
View = tuple[int, int | None]
"""How an image is seen: the side of its resize, and of the crop."""


def check_data(
    cells: Sequence[Cell], cache: FeatureCache, console: Console, *, trust_masks: bool
) -> None:
    """Decode every image once per content, before anything is trained; DataError names all.

    For a search for knobs the training images alone. What there is to know is said each time.
    """
    views: dict[str, tuple[Data, set[View]]] = {}
    for cell in cells:
        if cell.purpose == "tuned":
            continue  # the same images as those of the row beside it
        content = cell.data.train_fingerprint + cell.data.test_fingerprint
        view = load("methods", cell.method).method.inputs(cell.config)
        views.setdefault(content, (cell.data, set()))[1].add((view.resize, view.crop))
    for content, (data, of_data) in views.items():
        rules = {"content": content, "views": sorted(map(str, of_data)), "rules": RULES}
        mark = cache.root / f"checked-{digest(rules | {'trust_masks': trust_masks})}"
        if (notes := _noted(mark)) is None:
            notes = _check(data, of_data, console, trust_masks)
            write_whole(mark, json.dumps(notes).encode(), replace=True)
        for note in notes:
            noting(console)(note)


def _noted(mark: Path) -> list[str] | None:
    """What an earlier check of the same content by the same rules found; None without one."""
    try:
        notes = json.loads(mark.read_bytes())
    except (OSError, ValueError):
        return None
    return notes if isinstance(notes, list) else None


def _check(data: Data, views: set[View], console: Console, trust_masks: bool) -> list[str]:
    """What is to be known of the data; DataError for what can't be used."""
    benchmark = data.open()
    train = benchmark.train(data.categories)
    test = [] if data.held else benchmark.test(data.categories)
    with counter(f"checking {data.label}", len(train + test), console) as count:
        if problems := check(benchmark, [*train, *test], count, trust_masks=trust_masks):
            raise DataError("\n".join(first_few(problems, MOST_PROBLEMS)))
    notes = [*benchmark.count_problems(), *losses(benchmark, [*train, *test])]
    notes += first_few(duplicates(benchmark, train, test), MOST_NOTES)
    return notes + first_few(lost_defects(benchmark, test, views), MOST_NOTES)


def lost_defects(benchmark: Benchmark, test: Sequence[Sample], views: set[View]) -> list[str]:
    """Defects that a view of the image no longer shows: their image stays defective."""
    defective = [sample for sample in test if sample.anomalous]
    notes = []
    for resize, crop in sorted(views, key=str):
        masks = load_masks(benchmark, defective, resize, crop)
        lost = vanished(defective, masks) if masks is not None else []
        shape = f"{resize} pixels" + (f", cropped to {crop}" if crop else "")
        notes += [f"{key}: its defect vanishes at {shape}; pixel metrics miss it" for key in lost]
    return notes
