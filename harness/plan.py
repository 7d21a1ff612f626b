"""The plan: every cell that the command asks for, checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.base import Benchmark, DataError
from benchmarks.parts.content import fingerprint
from benchmarks.parts.inventory import plain
from benchmarks.parts.manifest import is_manifest
from benchmarks.parts.synthesis.pseudo import PseudoValidation, pseudo_validation
from harness.cell import Cell, Data, Held, open_benchmark
from harness.options import MODES, PRESETS, Say, Selection, first_few, unheard
from harness.overrides import parse_overrides, variant_of, with_overrides
from harness.registry import UsageError, did_you_mean, is_known, load, names
from methods.base import Declaration
from methods.parts.backbone import (
    Features,
    WeightsMissing,
    check_features,
    file_sha256,
    find_weights,
)
from results.identity import distinct_ends
from results.profiles import PROFILES

Count = Callable[[int], None]
"""Told of so many more that are done."""
MOST_PROBLEMS = 20
MISSING = "missing"
"""Stands for the hash of weights that are not here, in a plan that is only looked at."""


def uncounted(more: int) -> None:
    """A `Count` that nobody reads."""


def plan(
    selection: Selection,
    *,
    ablation: bool = False,
    held: Held | None = None,
    calibrate: float | None = None,
    need_weights: bool = True,
    say: Say = unheard,
    count: Count = uncounted,
) -> list[Cell]:
    """All cells of data sets x methods x seeds; UsageError, in one line, if any can't run.

    With `calibrate` this share of the normal images is held out from all of them, to say where
    alarms begin. With `held` the cells are those of a search for knobs, see `pieces`. Without
    `need_weights` a plan can be looked at where a backbone's weights are not to be had. `say` is
    told what is left out, `count` of images that are hashed.
    """
    _check_words(selection)
    rows = _rows(selection, ablation)
    parts = _parts(selection, held, say, count, untested=bool(calibrate))
    if calibrate:
        parts = [with_held_out(data, Held(calibrate, families=())) for data in parts]
    files = {row.method: _files(row, need_weights) for row in rows}
    for data in parts:
        for row in rows:
            _check_settings(row, data)
    cells = [
        Cell(
            data=data,
            mode=selection.mode,
            method=row.method,
            variant=row.variant,
            preset=selection.preset,
            config=row.config,
            knobs=row.knobs,
            seed=seed,
            weights=files[row.method][0],
            weights_sha256=files[row.method][1],
            purpose="run" if held is None else "tune",
            profile=selection.profile,
        )
        for data in parts
        for row in rows
        for seed in range(selection.seeds)  # counted from 0, never picked
    ]
    return list({cell.cell_id: cell for cell in cells}.values())


def _parts(
    selection: Selection, held: Held | None, say: Say, count: Count, untested: bool
) -> list[Data]:
    """The data sets, checked as far as names tell; two of one name are told apart by folders."""
    by_name = {
        name: pieces(
            name,
            selection.root,
            selection.categories,
            selection.mode,
            held,
            say,
            limit=selection.limit,
            untested=untested,
            count=count,
        )
        for name in dict.fromkeys(selection.benchmarks)
    }
    places = sorted({data.benchmark for parts in by_name.values() for data in parts})
    names = dict(zip(places, distinct_ends(places), strict=True))
    by_content: dict[tuple[str, str], Data] = {}
    for data in (data for parts in by_name.values() for data in parts):
        content = (data.train_fingerprint, data.test_fingerprint)
        if (twin := by_content.setdefault(content, data)).benchmark != data.benchmark:
            say(f"{data.benchmark}: holds the same images as {twin.benchmark}; one of them runs")
    return [
        replace(data, name=_named(plain(names[data.benchmark]), data.limit))
        for parts in by_name.values()
        for data in parts
    ]


def _check_words(selection: Selection) -> None:
    for word, known in (
        (selection.preset, PRESETS),
        (selection.mode, MODES),
        (selection.profile, PROFILES),
    ):
        if word not in known:
            raise UsageError(f"'{word}': {did_you_mean(word, known)}")
    if selection.seeds < 1:
        raise UsageError(f"--seeds {selection.seeds}: give a number of seeds, at least 1")


class Row(NamedTuple):
    """One row of the report: a method, and the settings that it runs with."""

    method: str
    variant: str
    config: Any
    knobs: Any

    @property
    def declared(self) -> Declaration:
        """What the method says of itself."""
        declaration: Declaration = load("methods", self.method)
        return declaration


def _rows(selection: Selection, ablation: bool) -> list[Row]:
    """The asked methods, or all (those that have variants, for an ablation)."""
    wanted = list(dict.fromkeys(selection.methods)) or names("methods")
    methods = {name: declared(name) for name in wanted}
    values = parse_overrides(selection.overrides, wanted)
    rows = []
    for name, method in methods.items():
        if selection.preset not in method.presets:
            if selection.methods:
                has = ", ".join(method.presets)
                raise UsageError(f"--preset {selection.preset}: {name} has none; it has: {has}")
            continue
        preset = method.presets[selection.preset]
        config, knobs = with_overrides(name, preset.config, preset.knobs, values[name])
        changed = variant_of({**method.named(config), **values[name]})
        variants = method.ablation(config, knobs) if ablation else {"": (config, knobs)}
        if not variants and selection.methods:
            raise UsageError(f"--ablation: {name} declares no variants; leave it out")
        rows += [
            Row(name, ", ".join(filter(None, (variant, changed))), *settings)
            for variant, settings in variants.items()
        ]
    return rows


def declared(name: str) -> Declaration:
    """What a method says of itself; UsageError where one from elsewhere says it wrongly."""
    said = load("methods", name)
    if not isinstance(said, Declaration):
        raise UsageError(f"{name}: METHOD is no Declaration; see methods/README.md")
    return said


def _check_settings(row: Row, data: Data) -> None:
    try:
        row.declared.check(row.config, row.knobs, data.train_images)
    except ValueError as error:
        raise UsageError(f"{row.method} on {data.name}: {error}") from None


def _files(row: Row, need_weights: bool) -> tuple[Path | None, str]:
    """The backbone's weights, and the hash of the files that the method learns from."""
    view = row.declared.method.inputs(row.config)
    try:
        if not isinstance(view, Features):
            return None, row.declared.files_sha256(row.config)
        check_features(view)
        path = find_weights(view)
    except WeightsMissing as error:
        if not need_weights:
            return None, MISSING
        raise UsageError(f"{row.method}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{row.method}: {error}") from None
    return path.resolve(), file_sha256(path)


def pieces(
    name: str,
    root: Path | None,
    wanted: Sequence[str],
    mode: str,
    held: Held | None = None,
    say: Say | None = None,
    *,
    limit: int | None = None,
    untested: bool = False,
    count: Count = uncounted,
) -> list[Data]:
    """The data set as one piece, or a piece for each category.

    Where there are no test images at all it is learned from if it may stay `untested`.

    With `held`, to tune on: what is scored is the pseudo-validation, no test image is opened.
    With `say` the folder is checked first, DataError, and categories that can't be used are left
    out with a word.
    """
    benchmark = open_benchmark(name, root, limit)
    wanted = [plain(category) for category in wanted]
    check_categories(name, benchmark, wanted)
    present = benchmark.categories()
    chosen = tuple(category for category in present if not wanted or category in wanted)
    if say is not None:
        chosen = _usable(benchmark, chosen, held, say, untested)
    groups = [chosen] if mode == "multi-class" else [(category,) for category in chosen]
    found = [_piece(benchmark, name, root, group, held, say or unheard, count) for group in groups]
    if limit is None:
        return found
    return [replace(data, name=_named(data.name, limit), limit=limit) for data in found]


def _named(name: str, limit: int | None) -> str:
    """In tables a first look is no row of the whole data set."""
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
    wanted = pseudo_validation(benchmark, categories, **held._asdict())
    held = held._replace(unseen=tuple(wanted.unseen()))
    seen = pseudo_validation(benchmark, categories, **held._asdict())
    for category in categories:
        before, after = (
            {sample.defect for sample in pseudo.validation([category]) if sample.anomalous}
            for pseudo in (wanted, seen)
        )
        where = f"{benchmark.location or benchmark.name}: category {category!r}"
        if not after:
            raise DataError(
                f"{where} shows no pseudo-anomaly on any of its held-out images, of whatever "
                "family; are they flat, or tiny? leave the category out"
            )
        if lost := sorted(before - after):
            say(f"{where}: {', '.join(lost)} can't be seen on any held-out image; left out")
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
        name=plain(path.resolve().name if path.is_dir() else path.stem) if is_path else name,
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
