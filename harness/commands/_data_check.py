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
View = tuple[int, int | None]
"""How an image is seen: the side of its resize, and of the crop."""


def check_data(cells: Sequence[Cell], cache: FeatureCache, console: Console) -> None:
    """Decode every image once per content, before anything is trained; DataError names all.

    For a search for knobs the training images alone.
    """
    views: dict[str, tuple[Data, set[View]]] = {}
    for cell in cells:
        if cell.purpose == "tuned":
            continue  # the same images as those of the row beside it
        mark = f"checked-{cell.data.train_fingerprint}-{cell.data.test_fingerprint}"
        view = load("methods", cell.method).method.inputs(cell.config)
        views.setdefault(mark, (cell.data, set()))[1].add((view.resize, view.crop))
    for mark, (data, of_data) in views.items():
        if not (cache.root / mark).exists():
            for note in first_few(_check(data, of_data, console), MOST_NOTES):
                console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
            cache.root.mkdir(parents=True, exist_ok=True)
            (cache.root / mark).touch()


def _check(data: Data, views: set[View], console: Console) -> list[str]:
    """What is to be known of the data; DataError for what can't be used."""
    benchmark = data.open()
    train = benchmark.train(data.categories)
    test = [] if data.held else benchmark.test(data.categories)
    with counter(f"checking {data.label}", len(train + test), console) as count:
        if problems := check(benchmark, [*train, *test], count):
            raise DataError("\n".join(first_few(problems, MOST_PROBLEMS)))
    notes = [*benchmark.count_problems(), *duplicates(benchmark, train, test)]
    return notes + _lost_defects(benchmark, test, views)


def first_few(lines: Sequence[str], most: int) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"... and {more} more"] if more > 0 else [])]


def _lost_defects(benchmark: Benchmark, test: Sequence[Sample], views: set[View]) -> list[str]:
    """Defects that a view of the image no longer shows: their image stays defective."""
    defective = [sample for sample in test if sample.anomalous]
    notes = []
    for resize, crop in sorted(views, key=str):
        masks = load_masks(benchmark, defective, resize, crop)
        lost = vanished(defective, masks) if masks is not None else []
        shape = f"{resize} pixels" + (f", cropped to {crop}" if crop else "")
        notes += [f"{key}: its defect vanishes at {shape}; pixel metrics miss it" for key in lost]
    return notes
