"""Every image of a plan decoded once, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import check, duplicates
from benchmarks.parts.images import load_masks, vanished
from harness.cell import Cell, Data
from harness.commands._progress import counter
from harness.features import FeatureCache
from harness.registry import load

MOST_PROBLEMS = 20
MOST_NOTES = 3


def check_data(cells: Sequence[Cell], cache: FeatureCache, console: Console) -> None:
    """Decode every image once per content, before anything is trained; DataError names all.

    For a search for knobs the training images alone.
    """
    data: dict[str, tuple[Data, set[tuple[int, int | None]]]] = {}
    for cell in cells:
        if cell.purpose == "tuned":
            continue  # the same images as those of the row beside it
        mark = f"checked-{cell.data.train_fingerprint}-{cell.data.test_fingerprint}"
        view = load("methods", cell.method).inputs(cell.config)
        data.setdefault(mark, (cell.data, set()))[1].add((view.resize, view.crop))
    for mark, (of, views) in data.items():
        if (cache.root / mark).exists():
            continue
        benchmark = of.open()
        train = benchmark.train(of.categories)
        test = [] if of.held else benchmark.test(of.categories)
        with counter(f"checking {of.label}", len(train + test), console) as count:
            problems = check(benchmark, [*train, *test], count)
        if problems:
            more = len(problems) - MOST_PROBLEMS
            tail = [f"... and {more} more"] if more > 0 else []
            raise DataError("\n".join([*problems[:MOST_PROBLEMS], *tail]))
        notes = [*benchmark.count_problems(), *duplicates(benchmark, train, test)]
        notes += _lost_defects(benchmark, test, views)
        more = len(notes) - MOST_NOTES
        for note in [*notes[:MOST_NOTES], *([f"... and {more} more"] if more > 0 else [])]:
            console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
        cache.root.mkdir(parents=True, exist_ok=True)
        (cache.root / mark).touch()


def _lost_defects(
    benchmark: Benchmark, test: Sequence[Sample], views: set[tuple[int, int | None]]
) -> list[str]:
    """Defects that a view of the image no longer shows: their image stays defective."""
    defective = [sample for sample in test if sample.anomalous]
    notes = []
    for resize, crop in sorted(views, key=str):
        masks = load_masks(benchmark, defective, resize, crop)
        lost = vanished(defective, masks) if masks is not None else []
        shape = f"{resize} pixels" + (f", cropped to {crop}" if crop else "")
        notes += [f"{key}: its defect vanishes at {shape}; pixel metrics miss it" for key in lost]
    return notes
