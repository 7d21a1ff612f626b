"""The plan: every cell that the command asks for, checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.base import Benchmark, fingerprint
from harness.registry import UsageError, did_you_mean, load, names
from harness.spec import (
    MODES,
    PRESETS,
    Cell,
    Data,
    open_benchmark,
    parse_overrides,
    seeds_of,
    variant_of,
    with_overrides,
)
from methods.base import Method
from methods.parts.backbone import (
    Features,
    WeightsMissing,
    check_features,
    file_sha256,
    find_weights,
)

MISSING = "missing"
"""Stands for the hash of weights that are not here, in a plan that is only looked at."""


def plan(
    benchmarks: Sequence[str],
    methods: Sequence[str] = (),
    *,
    seeds: int = 5,
    preset: str = "paper",
    overrides: Sequence[str] = (),
    mode: str = "multi-class",
    categories: Sequence[str] = (),
    root: Path | None = None,
    need_weights: bool = True,
) -> list[Cell]:
    """All cells of data sets x methods x seeds; UsageError, in one line, if any can't run.

    Without `need_weights` a plan can be looked at where a backbone's weights are not to be had.
    """
    methods = list(dict.fromkeys(methods)) or names("methods")
    for word, known in ((preset, PRESETS), (mode, MODES)):
        if word not in known:
            raise UsageError(f"'{word}': {did_you_mean(word, [*known])}")
    classes = {name: load("methods", name) for name in methods}
    values = parse_overrides(overrides, methods)
    settings = {}
    for name, method in classes.items():
        chosen = method.presets[preset]
        settings[name] = with_overrides(name, chosen.config, chosen.knobs, values[name])
    pieces = {name: _data(name, root, categories, mode) for name in dict.fromkeys(benchmarks)}
    found = {
        name: _weights(name, classes[name], settings[name][0], need_weights) for name in methods
    }
    cells = []
    for benchmark_name, parts in pieces.items():
        for data in parts:
            for name, (config, knobs) in settings.items():
                try:
                    classes[name].check(config, knobs, data.train_images)
                except ValueError as error:
                    raise UsageError(f"{name} on {benchmark_name}: {error}") from None
                path, sha256 = found[name]
                cells += [
                    Cell(
                        data=data,
                        mode=mode,
                        method=name,
                        variant=variant_of(values[name]),
                        preset=preset,
                        config=config,
                        knobs=knobs,
                        seed=seed,
                        weights=path,
                        weights_sha256=sha256,
                    )
                    for seed in seeds_of(seeds)
                ]
    return list({cell.cell_id: cell for cell in cells}.values())


def _weights(
    name: str, method: type[Method], config: Any, need_weights: bool
) -> tuple[Path | None, str]:
    inputs = method.inputs(config)
    if not isinstance(inputs, Features):
        return None, ""
    try:
        check_features(inputs)
        path = find_weights(inputs)
    except WeightsMissing as error:
        if not need_weights:
            return None, MISSING
        raise UsageError(f"{name}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    return path.resolve(), file_sha256(path)


def _data(name: str, root: Path | None, wanted: Sequence[str], mode: str) -> list[Data]:
    """The data set as one piece, or a piece for each category."""
    benchmark = open_benchmark(name, root)
    present = benchmark.categories()
    for category in wanted:
        if category not in present:
            raise UsageError(
                f"{name}: no category '{category}'; {did_you_mean(category, [*present])}"
            )
    chosen = tuple(category for category in present if not wanted or category in wanted)
    groups = [chosen] if mode == "multi-class" else [(category,) for category in chosen]
    return [_piece(benchmark, name, root, group) for group in groups]


def _piece(benchmark: Benchmark, name: str, root: Path | None, categories: tuple[str, ...]) -> Data:
    train, test = benchmark.train(categories), benchmark.test(categories)
    is_path = Path(name).is_dir() and name not in names("benchmarks")
    return Data(
        benchmark=str(Path(name).resolve()) if is_path else name,
        root=root.resolve() if root else None,
        categories=categories,
        train_fingerprint=fingerprint(benchmark, train),
        test_fingerprint=fingerprint(benchmark, test),
        train_images=len(train),
        test_images=len(test),
    )


def jobs(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a fit, together; the longest kind of work (most epochs) first."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.fit_id, []).append(cell)
    return sorted(groups.values(), key=lambda group: -getattr(group[0].config, "epochs", 0))
