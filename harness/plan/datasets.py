"""Data sets as they are planned: opened, checked as far as names tell, hashed, in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import fingerprint
from benchmarks.parts.inventory import nfc
from benchmarks.parts.manifest import is_manifest
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from harness.plan.cell import Data, Held, open_benchmark, without_reserve
from harness.plan.options import Say, Selection, first_few
from harness.plan.registry import UsageError, did_you_mean, is_known
from methods.parts.progress import quiet

Count = Callable[[int], None]
"""Told of so many more that are done."""
MOST_PROBLEMS = 20
FEW = 10
"""Normal images of a category, held out or not, below which a choice is cautioned."""


def opened(
    name: str,
    selection: Selection,
    held: Held | None = None,
    say: Say | None = None,
) -> tuple[Benchmark, tuple[str, ...]]:
    """The data set and the categories to use, as far as names of files tell.

    With `say` the folder is checked, DataError, and categories that can't be used are left out with
    a word; one without any test images can be calibrated.
    """
    benchmark = open_benchmark(name, selection.root, selection.limit)
    wanted = [nfc(category) for category in selection.categories]
    check_categories(name, benchmark, wanted)
    present = benchmark.categories()
    chosen = tuple(category for category in present if not wanted or category in wanted)
    if say is not None:
        chosen = _usable(benchmark, chosen, held, say, bool(selection.calibrate))
    return benchmark, chosen


def in_pieces(
    benchmark: Benchmark,
    chosen: tuple[str, ...],
    name: str,
    selection: Selection,
    held: Held | None = None,
    say: Say = quiet,
    count: Count = quiet,
) -> list[Data]:
    """An opened data set as one piece, or a piece for each of the chosen categories, hashed.

    With `held`, to tune on: what is scored is the pseudo-validation, no test image is opened.
    """
    reserved = selection.calibrate or 0.0
    path = Path(name)
    is_path = (path.is_dir() or is_manifest(path)) and not is_known("benchmarks", name)
    last = nfc(path.resolve().name if path.is_dir() else path.stem) if is_path else name
    parts = []
    for group in (
        [chosen] if selection.mode == "multi-class" else [(category,) for category in chosen]
    ):
        kept = without_reserve(benchmark, group, reserved)
        source, seen, split = kept, held, kept.test
        if held is not None:
            seen, source = held_and_seen(kept, group, held, say)
            split = source.validation
        all_images = fingerprint(benchmark, benchmark.train(group)) if reserved else None
        parts.append(
            Data(
                name=limited(last, selection.limit),
                benchmark=str(path.resolve()) if is_path else name,
                root=selection.root.resolve() if selection.root else None,
                categories=group,
                **_images(source, source.train(group), split(group), count),
                published_categories=len(benchmark.published) or None,
                limit=selection.limit,
                reserved=reserved,
                held=seen,
                whole_fingerprint=all_images,
            )
        )
    return parts


def _images(
    benchmark: Benchmark, train: Sequence[Sample], scored: Sequence[Sample], count: Count = quiet
) -> dict[str, Any]:
    """The fields of Data that say which images these are, and how many."""
    return {
        "train_fingerprint": fingerprint(benchmark, train, count),
        "test_fingerprint": fingerprint(benchmark, scored, count),
        "train_images": len(train),
        "test_images": len(scored),
    }


def whole(data: Data) -> Data:
    """The same data with nothing held out, to be scored on its test images."""
    benchmark = data.open()
    train, test = benchmark.train(data.categories), benchmark.test(data.categories)
    return replace(data, held=None, **_images(benchmark, train, test))


def limited(name: str, limit: int | None) -> str:
    """The name of a first look at a data set, which is no row of the whole one."""
    return name if limit is None else f"{name}-limit{limit}"


def _usable(
    benchmark: Benchmark,
    categories: tuple[str, ...],
    held: Held | None,
    say: Say,
    untested: bool,
) -> tuple[str, ...]:
    where = benchmark.location or benchmark.name
    if problems := benchmark.problems(categories):
        raise DataError("\n".join(first_few(problems, MOST_PROBLEMS)))
    lacks = benchmark.lacking(categories, tested=held is None)
    if len(lacks) == len(categories):
        learnable = not benchmark.lacking(categories, tested=False)
        if learnable and untested:
            say(f"{where}: normal images alone: models are trained and calibrated, not measured")
            return categories
        lines = [f"{where}: category {name!r} has {lack}" for name, lack in lacks.items()]
        advice = [f"{where}: --calibrate 0.2 learns from normal images alone, and sets a threshold"]
        raise DataError("\n".join(first_few(lines, MOST_PROBLEMS) + advice * learnable))
    for name, lack in lacks.items():
        say(f"{where}: category {name!r} has {lack}; it is left out")
    if benchmark.remark:
        say(f"{where}: {benchmark.remark}")
    if unread := benchmark.unread():
        say(f"{where}: not read, as it is in no category: {', '.join(first_few(unread, 3))}")
    return tuple(name for name in categories if name not in lacks)


def check_categories(name: str, benchmark: Benchmark, wanted: Sequence[str]) -> None:
    """UsageError, with a hint, for a category that the data set does not have."""
    for category in wanted:
        if category not in benchmark.categories():
            hint = did_you_mean(category, benchmark.categories())
            raise UsageError(f"{name}: no category '{category}'; {hint}")


def with_held_out(data: Data, held: Held) -> Data:
    """The same data with a part of its training images held out."""
    pseudo = replace(data, held=held).open_held()
    samples = pseudo.train(data.categories)
    return replace(
        data,
        held=held,
        whole_fingerprint=data.whole_fingerprint or data.train_fingerprint,
        train_fingerprint=fingerprint(pseudo, samples),
        train_images=len(samples),
    )


def held_out_again(data: Data, held: Held, say: Say = quiet) -> Data:
    """Data to tune on with other images held out, hashed; `say` as for `held_and_seen`."""
    held, pseudo = held_and_seen(data.open(), data.categories, held, say)
    train, scored = pseudo.train(data.categories), pseudo.validation(data.categories)
    return replace(data, held=held, **_images(pseudo, train, scored))


def held_and_seen(
    benchmark: Benchmark, categories: tuple[str, ...], held: Held, say: Say
) -> tuple[Held, PseudoValidation]:
    """The pseudo-validation without the anomalies that nobody could see, which `say` is told.

    All are drawn for it. DataError for a category that has none left.
    """
    wanted = PseudoValidation(benchmark, categories, **held._asdict())
    held = held._replace(unseen=tuple(wanted.unseen()))
    seen, few = PseudoValidation(benchmark, categories, **held._asdict()), list[str]()
    for category in categories:
        before, after = (
            Counter(sample.defect for sample in pseudo.validation([category]))
            for pseudo in (wanted, seen)
        )
        where = f"{benchmark.location or benchmark.name}: category {category!r}"
        held_out, _ = before.pop("good"), after.pop("good")
        if not after:
            raise DataError(
                f"{where} shows no pseudo-anomaly on any of its held-out images, of whatever "
                "family; are they flat, or tiny? leave the category out"
            )
        if lost := before - after:
            words = ", ".join(f"{name} {count} of {before[name]}" for name, count in lost.items())
            say(f"{where}: anomalies that can't be seen on their images are left out: {words}")
        if (normal := held_out + len(seen.train([category]))) < FEW:
            few.append(f"{category} {normal}")
    if few:
        where = f"{benchmark.location or benchmark.name}: normal images"
        say(f"{where}: {', '.join(few)}; what so few tell may be chance, add some")
    return held, seen
