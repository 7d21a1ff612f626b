"""The plan: every cell that the command asks for, checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.base import Benchmark
from benchmarks.parts.content import fingerprint
from benchmarks.parts.synthesis.pseudo import pseudo_validation
from harness.cell import MODES, PRESETS, Cell, Data, Held, open_benchmark
from harness.overrides import parse_overrides, variant_of, with_overrides
from harness.registry import UsageError, did_you_mean, load, names
from methods.parts.backbone import (
    Features,
    WeightsMissing,
    check_features,
    file_sha256,
    find_weights,
)
from results.profiles import DEFAULT_PROFILE, PROFILES

MISSING = "missing"
"""Stands for the hash of weights that are not here, in a plan that is only looked at."""


def plan(
    benchmarks: Sequence[str],
    methods: Sequence[str] = (),
    *,
    seeds: int = 5,
    preset: str = "paper",
    overrides: Sequence[str] = (),
    ablation: bool = False,
    mode: str = "multi-class",
    categories: Sequence[str] = (),
    root: Path | None = None,
    need_weights: bool = True,
    held: Held | None = None,
    profile: str = DEFAULT_PROFILE,
) -> list[Cell]:
    """All cells of data sets x methods x seeds; UsageError, in one line, if any can't run.

    Without `need_weights` a plan can be looked at where a backbone's weights are not to be had.
    With `held` the cells are those of a search for knobs, see `pieces`.
    """
    for word, known in ((preset, PRESETS), (mode, MODES), (profile, PROFILES)):
        if word not in known:
            raise UsageError(f"'{word}': {did_you_mean(word, [*known])}")
    rows = _settings(list(dict.fromkeys(methods)), preset, overrides, ablation)
    parts = [
        data
        for name in dict.fromkeys(benchmarks)
        for data in pieces(name, root, categories, mode, held)
    ]
    found = {row.method: _files(row, need_weights) for row in rows}
    cells = []
    for data in parts:
        for row in rows:
            try:
                load("methods", row.method).check(row.config, row.knobs, data.train_images)
            except ValueError as error:
                raise UsageError(f"{row.method} on {data.name}: {error}") from None
            path, sha256 = found[row.method]
            cells += [
                Cell(
                    data=data,
                    mode=mode,
                    method=row.method,
                    variant=row.variant,
                    preset=preset,
                    config=row.config,
                    knobs=row.knobs,
                    seed=seed,
                    weights=path,
                    weights_sha256=sha256,
                    purpose="run" if held is None else "tune",
                    profile=profile,
                )
                for seed in seeds_of(seeds)
            ]
    return list({cell.cell_id: cell for cell in cells}.values())


class Settings(NamedTuple):
    """One row of the report: a method, and the settings that it runs with."""

    method: str
    variant: str
    config: Any
    knobs: Any


def _settings(
    methods: list[str], preset: str, overrides: Sequence[str], ablation: bool
) -> list[Settings]:
    """The asked methods, or all (those that have variants, for an ablation)."""
    classes = {name: load("methods", name) for name in methods or names("methods")}
    values = parse_overrides(overrides, [*classes])
    rows = []
    for name, method in classes.items():
        chosen = method.presets[preset]
        config, knobs = with_overrides(name, chosen.config, chosen.knobs, values[name])
        changed = variant_of(values[name])
        variants = method.ablation(config, knobs) if ablation else {"": (config, knobs)}
        if not variants and methods:
            raise UsageError(f"--ablation: {name} declares no variants; leave it out")
        rows += [
            Settings(name, ", ".join(filter(None, (variant, changed))), *settings)
            for variant, settings in variants.items()
        ]
    return rows


def _files(row: Settings, need_weights: bool) -> tuple[Path | None, str]:
    """The backbone's weights, and the hash of the files that the method learns from."""
    method = load("methods", row.method)
    inputs = method.inputs(row.config)
    try:
        if not isinstance(inputs, Features):
            return None, method.files_sha256(row.config)
        check_features(inputs)
        path = find_weights(inputs)
    except WeightsMissing as error:
        if not need_weights:
            return None, MISSING
        raise UsageError(f"{row.method}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{row.method}: {error}") from None
    return path.resolve(), file_sha256(path)


def pieces(
    name: str, root: Path | None, wanted: Sequence[str], mode: str, held: Held | None = None
) -> list[Data]:
    """The data set as one piece, or a piece for each category.

    With `held`, to tune on: what is scored is the pseudo-validation, no test image is opened.
    """
    benchmark = open_benchmark(name, root)
    present = benchmark.categories()
    for category in wanted:
        if category not in present:
            raise UsageError(
                f"{name}: no category '{category}'; {did_you_mean(category, [*present])}"
            )
    chosen = tuple(category for category in present if not wanted or category in wanted)
    groups = [chosen] if mode == "multi-class" else [(category,) for category in chosen]
    return [_piece(benchmark, name, root, group, held) for group in groups]


def kept(data: Data, held: Held) -> Data:
    """The same data with a part of its training images held out."""
    kept = replace(data, held=held).open_held()
    samples = kept.train(data.categories)
    return replace(
        data,
        held=held,
        train_fingerprint=fingerprint(kept, samples),
        train_images=len(samples),
    )


def _piece(
    benchmark: Benchmark,
    name: str,
    root: Path | None,
    categories: tuple[str, ...],
    held: Held | None,
) -> Data:
    if held is None:
        of, train, test = benchmark, benchmark.train(categories), benchmark.test(categories)
    else:
        of = pseudo = pseudo_validation(benchmark, categories, **held._asdict())
        train, test = pseudo.train(categories), pseudo.validation(categories)
    is_path = Path(name).is_dir() and name not in names("benchmarks")
    return Data(
        benchmark=str(Path(name).resolve()) if is_path else name,
        root=root.resolve() if root else None,
        categories=categories,
        train_fingerprint=fingerprint(of, train),
        test_fingerprint=fingerprint(of, test),
        train_images=len(train),
        test_images=len(test),
        held=held,
    )


def jobs(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a fit, together; the longest kind of work (most epochs) first."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.fit_id, []).append(cell)
    return sorted(groups.values(), key=lambda group: -getattr(group[0].config, "epochs", 0))


def seeds_of(count: int) -> list[int]:
    """The first seeds: they are counted, never picked."""
    if count < 1:
        raise UsageError(f"--seeds {count}: give a number of seeds, at least 1")
    return list(range(count))
