"""The plan: every cell that the command asks for, checked before anything expensive starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.base import Benchmark, DataError
from benchmarks.parts.inventory import nfc
from harness.plan.cell import Cell, Data, Held
from harness.plan.datasets import Count, in_pieces, limited, opened, with_held_out
from harness.plan.options import MODES, PRESETS, Say, Selection
from harness.plan.overrides import parse_overrides, variant_of, with_overrides
from harness.plan.registry import UsageError, did_you_mean, load, names
from methods.base import Declaration, quiet
from methods.parts.backbone import Features, WeightsMissing, file_sha256, find_weights
from methods.parts.shapes import check_features
from results.identity import distinct_ends
from results.profiles import PROFILES

Found = TypeVar("Found")
MISSING = "missing"
"""Stands for the hash of weights that are not here, in a plan that is only looked at."""


def plan(
    selection: Selection,
    *,
    ablation: bool = False,
    held: Held | None = None,
    calibrate: float | None = None,
    need_weights: bool = True,
    say: Say = quiet,
    count: Count = quiet,
    found: Sequence[str] = (),
) -> list[Cell]:
    """All cells of data sets x methods x seeds.

    UsageError, a line for each fault of words, settings, weights and data sets (and those that
    were `found` before), if any can't run; those that cost nothing to see come before the rest.

    With `calibrate` this share of the normal images is held out from all of them, to say where
    alarms begin. With `held` the cells are those of a search for knobs, see `in_pieces`. Without
    `need_weights` a plan can be looked at where a backbone's weights are not to be had. `say` is
    told what is left out, `count` of images that are hashed.
    """
    faults = Faults(list(found))
    faults.collect(_check_words, selection, bool(calibrate))
    rows = faults.collect(_rows, selection, ablation) or []
    there = {  # what costs nothing, before anything is hashed
        name: faults.collect(
            opened,
            name,
            selection.root,
            selection.categories,
            held,
            say,
            limit=selection.limit,
            untested=bool(calibrate),
        )
        for name in dict.fromkeys(selection.benchmarks)
    }
    files = {row.method: faults.collect(_files, row, need_weights, say) for row in rows}
    faults.tell()
    parts = _parts(there, selection, held, say, count)
    if calibrate:
        parts = [with_held_out(data, Held(calibrate)) for data in parts]
    for data in parts:
        for row in rows:
            faults.collect(_check_settings, row, data)
    faults.tell()
    why = {"purpose": "run" if held is None else "tune", "calibrated": bool(calibrate)}
    return _cells(selection, parts, rows, files, **why)


def _cells(
    selection: Selection,
    parts: Sequence[Data],
    rows: Sequence[Row],
    files: Mapping[str, tuple[Path | None, str] | None],
    **why: Any,
) -> list[Cell]:
    """The cells of these rows on these data sets, each once; `why` they are scored."""
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
            weights=file,
            weights_sha256=sha256,
            profile=selection.profile,
            **why,
        )
        for data in parts
        for row in rows
        for file, sha256 in filter(None, [files[row.method]])
        for seed in range(selection.seeds)  # counted from 0, never picked
    ]
    return list({cell.cell_id: cell for cell in cells}.values())


class Faults:
    """The faults of a request, collected so that all are said at once."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def collect(self, look: Callable[..., Found], *given: Any, **named: Any) -> Found | None:
        """The result of `look`; None, and its lines kept, where it finds a fault."""
        try:
            return look(*given, **named)
        except (UsageError, DataError) as error:
            self.lines += str(error).splitlines()
            return None

    def tell(self) -> None:
        """UsageError with all lines, if there are any."""
        if self.lines:
            raise UsageError("\n".join(dict.fromkeys(self.lines)))


def _parts(
    there: Mapping[str, tuple[Benchmark, tuple[str, ...]] | None],
    selection: Selection,
    held: Held | None,
    say: Say,
    count: Count,
) -> list[Data]:
    """The opened data sets in pieces; two of one name are told apart by folders."""
    by_name = {
        name: in_pieces(
            *found,
            name,
            selection.root,
            selection.mode,
            held,
            say,
            limit=selection.limit,
            count=count,
        )
        for name, found in there.items()
        if found
    }
    places = sorted({data.benchmark for parts in by_name.values() for data in parts})
    ends = dict(zip(places, distinct_ends(places), strict=True))
    by_content: dict[tuple[str, str], Data] = {}
    for data in (data for parts in by_name.values() for data in parts):
        content = (data.train_fingerprint, data.test_fingerprint)
        if (twin := by_content.setdefault(content, data)).benchmark != data.benchmark:
            say(f"{data.benchmark}: holds the same images as {twin.benchmark}; one of them runs")
    return [
        replace(data, name=limited(nfc(ends[data.benchmark]), data.limit))
        for parts in by_name.values()
        for data in parts
    ]


def _check_words(selection: Selection, calibrated: bool) -> None:
    lines = [
        f"{option} {word}: {did_you_mean(word, known)}"
        for option, word, known in (
            ("--preset", selection.preset, PRESETS),
            ("--mode", selection.mode, MODES),
            ("--metric-profile", selection.profile, PROFILES),
        )
        if word not in known
    ]
    if selection.seeds < 1:
        lines.append(f"--seeds {selection.seeds}: give a number of seeds, at least 1")
    if calibrated and selection.profile in PROFILES and PROFILES[selection.profile].top:
        lines.append(
            f"--metric-profile {selection.profile} and --calibrate: it scores images by a rule of "
            "its own, and alarms are of the model's scores; leave one of them out"
        )
    if lines:
        raise UsageError("\n".join(lines))


class Row(NamedTuple):
    """One row of the report: a method, and the settings that it runs with."""

    method: str
    variant: str
    config: Any
    knobs: Any

    @property
    def declared(self) -> Declaration:
        """The method's declaration."""
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
    """A method's declaration; UsageError for a wrong one of a user's method."""
    said = load("methods", name)
    if not isinstance(said, Declaration):
        raise UsageError(f"{name}: METHOD is no Declaration; see methods/README.md")
    return said


def _check_settings(row: Row, data: Data) -> None:
    try:
        row.declared.check(row.config, row.knobs, data.train_images)
    except ValueError as error:
        raise UsageError(f"{row.method} on {data.name}: {error}") from None


def _files(row: Row, need_weights: bool, say: Say) -> tuple[Path | None, str]:
    """The backbone's weights, and the hash of the files that the method learns from.

    Where weights are not needed `say` is told which are to be fetched.
    """
    view = row.declared.method.inputs(row.config)
    try:
        if not isinstance(view, Features):
            return None, row.declared.files_sha256(row.config)
        check_features(view)
        path = find_weights(view)
    except WeightsMissing as error:
        if not need_weights:
            say(f"to fetch: {row.method}: {error}")
            return None, MISSING
        raise UsageError(f"{row.method}: {error}") from None
    except ValueError as error:
        raise UsageError(f"{row.method}: {error}") from None
    return path.resolve(), file_sha256(path)
