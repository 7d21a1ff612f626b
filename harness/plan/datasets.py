"""Data sets as they are planned: opened, checked as far as names tell, hashed, in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.base import Benchmark, DataError
from benchmarks.parts.content import fingerprint
from benchmarks.parts.inventory import nfc
from benchmarks.parts.manifest import is_manifest
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from harness.plan.cell import Data, Held, open_benchmark
from harness.plan.options import Say, first_few
from harness.plan.registry import UsageError, did_you_mean, is_known
from methods.base import quiet

Count = Callable[[int], None]
"""Told of so many more that are done."""
MOST_PROBLEMS = 20
FEW = 5
"""Held-out normal images of a category below which a choice is cautioned."""


def pieces(
    name: str, root: Path | None, wanted: Sequence[str], mode: str, limit: int | None = None
) -> list[Data]:
    """The data set as one piece, or a piece for each category, as it lies on disk."""
    benchmark, chosen = opened(name, root, wanted, limit=limit)
    return in_pieces(benchmark, chosen, name, root, mode, limit=limit)


def in_pieces(
    benchmark: Benchmark,
    chosen: tuple[str, ...],
    name: str,
    root: Path | None,
    mode: str,
    held: Held | None = None,
    say: Say = quiet,
    *,
    limit: int | None = None,
    count: Count = quiet,
) -> list[Data]:
    """An opened data set as one piece, or a piece for each of the chosen categories, hashed.

    With `held`, to tune on: what is scored is the pseudo-validation, no test image is opened.
    """
    groups = [chosen] if mode == "multi-class" else [(category,) for category in chosen]
    found = [_piece(benchmark, name, root, group, held, say, count) for group in groups]
    if limit is None:
        return found
    return [replace(data, name=limited(data.name, limit), limit=limit) for data in found]


def opened(
    name: str,
    root: Path | None,
    wanted: Sequence[str],
    held: Held | None = None,
    say: Say | None = None,
    *,
    limit: int | None = None,
    untested: bool = False,
) -> tuple[Benchmark, tuple[str, ...]]:
    """The data set and the categories to use, as far as names of files tell.

    With `say` the folder is checked, DataError, and categories that can't be used are left out with
    a word; where there are no test images at all it may stay `untested`.
    """
    benchmark = open_benchmark(name, root, limit)
    wanted = [nfc(category) for category in wanted]
    check_categories(name, benchmark, wanted)
    present = benchmark.categories()
    chosen = tuple(category for category in present if not wanted or category in wanted)
    if say is not None:
        chosen = _usable(benchmark, chosen, held, say, untested)
    return benchmark, chosen


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
        whole_fingerprint=data.train_fingerprint,
        train_fingerprint=fingerprint(pseudo, samples),
        train_images=len(samples),
    )


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
        normal, _ = before.pop("good"), after.pop("good")
        if not after:
            raise DataError(
                f"{where} shows no pseudo-anomaly on any of its held-out images, of whatever "
                "family; are they flat, or tiny? leave the category out"
            )
        if lost := before - after:
            words = ", ".join(f"{name} {count} of {before[name]}" for name, count in lost.items())
            say(f"{where}: anomalies that can't be seen on their images are left out: {words}")
        if normal < FEW:
            few.append(f"{category} {normal}")
    if few:
        where = f"{benchmark.location or benchmark.name}: held-out normal images"
        say(f"{where}: {', '.join(few)}; what so few tell may be chance (--share holds out more)")
    return held, seen


def _piece(
    benchmark: Benchmark,
    name: str,
    root: Path | None,
    categories: tuple[str, ...],
    held: Held | None,
    say: Say,
    count: Count,
) -> Data:
    if held is None:
        source, train, test = benchmark, benchmark.train(categories), benchmark.test(categories)
    else:
        held, source = held_and_seen(benchmark, categories, held, say)
        train, test = source.train(categories), source.validation(categories)
    path = Path(name)
    is_path = (path.is_dir() or is_manifest(path)) and not is_known("benchmarks", name)
    return Data(
        name=nfc(path.resolve().name if path.is_dir() else path.stem) if is_path else name,
        benchmark=str(path.resolve()) if is_path else name,
        root=root.resolve() if root else None,
        categories=categories,
        train_fingerprint=fingerprint(source, train, count),
        test_fingerprint=fingerprint(source, test, count),
        train_images=len(train),
        test_images=len(test),
        published_categories=len(benchmark.published) or None,
        held=held,
    )
