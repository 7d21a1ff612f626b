"""The plan: every cell that the command asks for, checked before anything expensive starts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from benchmarks.base import Benchmark, DataError
from benchmarks.parts.inventory import nfc
from benchmarks.parts.synthesis.pseudo import held_of
from harness.plan.cell import Cell, Data, Held
from harness.plan.datasets import Count, in_pieces, limited, opened
from harness.plan.options import MODES, PRESETS, Say, Selection
from harness.plan.overrides import parse_overrides, variant_of, with_overrides
from harness.plan.registry import UsageError, did_you_mean, load, names, unknown
from methods.parts.progress import quiet
from results.calibration import ALPHAS, needed
from results.identity import distinct_ends
from results.profiles import PROFILES

if TYPE_CHECKING:
    from methods.base import Declaration

Found = TypeVar("Found")
MISSING = "missing"
"""Stands for the hash of weights that are not here, in a plan that is only looked at."""


def plan(
    selection: Selection,
    *,
    ablation: bool = False,
    held: Held | None = None,
    need_weights: bool = True,
    say: Say = quiet,
    count: Count = quiet,
    found: Sequence[str] = (),
) -> list[Cell]:
    """All cells of data sets x methods x seeds.

    UsageError, a line for each fault, if any can't run: of words and data sets (and those that were
    `found` before), and else of settings and weights.

    With `held` the cells are those of a search for knobs, see `in_pieces`. Without
    `need_weights` a plan can be looked at where a backbone's weights are not to be had. `say` is
    told what is left out, `count` of images that are hashed.
    """
    faults = Faults(list(found))
    faults.collect(check_words, selection)
    there = {
        name: faults.collect(opened, name, selection, held, say)
        for name in dict.fromkeys(selection.benchmarks)
    }
    faults.tell()  # before methods are loaded, which takes seconds
    rows = faults.collect(_asked, selection, ablation) or []
    files = {row.method: faults.collect(_files, row, need_weights, say) for row in rows}
    faults.tell()
    parts = _parts(there, selection, held, say, count)
    if selection.calibrate and held is None:
        for data in parts:
            _tell_alarms(data, say)
    for data in parts:
        for row in rows:
            faults.collect(_check_settings, row, data)
    faults.tell()
    return _cells(selection, parts, rows, files, "run" if held is None else "tune")


def _cells(
    selection: Selection,
    parts: Sequence[Data],
    rows: Sequence[Asked],
    files: Mapping[str, tuple[Path | None, str] | None],
    purpose: str,
) -> list[Cell]:
    """The cells of these rows on these data sets, each once."""
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
            purpose=purpose,
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
    pieces = [
        data
        for name, found in there.items()
        if found
        for data in in_pieces(*found, name, selection, held, say, count)
    ]
    places = sorted({data.benchmark for data in pieces})
    ends = dict(zip(places, distinct_ends(places), strict=True))
    by_content: dict[tuple[str, str], Data] = {}
    for data in pieces:
        content = (data.train_fingerprint, data.test_fingerprint)
        if (twin := by_content.setdefault(content, data)).benchmark != data.benchmark:
            say(f"{data.benchmark}: holds the same images as {twin.benchmark}; one of them runs")
    return [replace(d, name=limited(nfc(ends[d.benchmark]), d.limit)) for d in pieces]


def check_words(selection: Selection) -> None:
    """UsageError, a line for each word that can't be meant; no method is loaded for it."""
    words = (
        ("--preset", selection.preset, PRESETS),
        ("--mode", selection.mode, MODES),
        ("--metric-profile", selection.profile, PROFILES),
    )
    lines = [
        f"{o} {word}: {did_you_mean(word, known)}" for o, word, known in words if word not in known
    ]
    if selection.seeds < 1:
        lines.append(f"--seeds {selection.seeds}: give a number of seeds, at least 1")
    lines += filter(None, (unknown("methods", name) for name in selection.methods))
    profile = PROFILES.get(selection.profile)
    if selection.calibrate and profile and profile.top:
        lines.append(
            f"--metric-profile {selection.profile} and --calibrate: it scores images by a rule of "
            "its own, and alarms are of the model's scores; leave one of them out"
        )
    if lines:
        raise UsageError("\n".join(lines))


class Asked(NamedTuple):
    """A method, and the settings that it is asked to run with: a row of the report."""

    method: str
    variant: str
    config: Any
    knobs: Any


def _asked(selection: Selection, ablation: bool) -> list[Asked]:
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
            Asked(name, ", ".join(filter(None, (variant, changed))), *settings)
            for variant, settings in variants.items()
        ]
    return rows


def declared(name: str) -> Declaration:
    """A method's declaration; UsageError for a wrong one of a user's method."""
    from methods.base import Declaration

    said = load("methods", name)
    if not isinstance(said, Declaration):
        raise UsageError(f"{name}: METHOD is no Declaration; see methods/README.md")
    return said


def _tell_alarms(data: Data, say: Say) -> None:
    """Says which rates of false alarms the reserved images can't give."""
    benchmark, reserved = data.open_reserved()
    counts = Counter(sample.category for sample in reserved)
    normal = Counter(sample.category for sample in benchmark.train(data.categories))
    for alpha in ALPHAS:
        wanted = needed(alpha)
        few = [name for name, number in counts.items() if number < wanted]
        if counts.total() < wanted:
            enough = (
                percent / 100
                for percent in range(1, 91)
                if sum(held_of(percent / 100, n) for n in normal.values()) >= wanted
            )
            advice = next((f"--calibrate {share:g}" for share in enough), "add images")
            say(
                f"{data.label}: {counts.total()} held-out normal images allow no alarm at "
                f"{alpha:g}: {wanted} are needed ({advice})"
            )
        elif few:
            say(f"{data.label}: no threshold of its own at {alpha:g} for {', '.join(few)}")


def _check_settings(row: Asked, data: Data) -> None:
    try:
        declared(row.method).check(row.config, row.knobs, data.train_images)
    except ValueError as error:
        raise UsageError(f"{row.method} on {data.name}: {error}") from None


def _files(row: Asked, need_weights: bool, say: Say) -> tuple[Path | None, str]:
    """The backbone's weights, and the hash of the files that the method learns from.

    Where weights are not needed `say` is told which are to be fetched.
    """
    from methods.parts.backbone import Features, WeightsMissing, file_sha256, find_weights
    from methods.parts.shapes import check_features

    view = declared(row.method).method.inputs(row.config)
    try:
        if not isinstance(view, Features):
            return None, declared(row.method).files_sha256(row.config)
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
