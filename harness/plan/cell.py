"""A cell of the result table, the data that it is made of, and its identity."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.inventory import nfc, printable
from benchmarks.parts.manifest import is_manifest, manifest_benchmark
from benchmarks.parts.synthesis.families import LEFT_OUT, MADE
from benchmarks.parts.synthesis.pseudo import PseudoValidation, hold_out
from harness.plan.addresses import address_of
from harness.plan.overrides import PATHS
from harness.plan.registry import (
    UsageError,
    did_you_mean,
    installed,
    is_known,
    load,
    names,
    source_of,
)
from results.profiles import DEFAULT_PROFILE, PROFILES

CELL_SCHEMA = 1
"""Raised when the code changes what every cell gives; for one method there is its `revision`."""

Split = Literal["train", "validation", "test", "calibration"]


class Purpose(NamedTuple):
    """The consequences of why a cell is scored."""

    split: Split
    label: str
    """The split's name in its rows."""
    folder: str
    """The folder of OUT for its rows: what chooses reads trials alone, reports parts alone."""
    shown: bool = False
    """Whether reports show it: a row of the table, not a setting that a search tried."""
    sealed: bool = False
    """Whether the test split stays sealed while it is scored."""


TABLE = Purpose("test", "test", "parts", shown=True)
PURPOSES = {
    "run": TABLE,
    "tuned": TABLE,
    "tune": Purpose("validation", "pseudo-validation", "trials", sealed=True),
    "reveal": Purpose("test", "test (revealed)", "revealed"),
}
"""Why a cell is scored: for the table, for the table with a frozen choice, for choosing, or to see
afterwards how good the choosing was."""


class Held(NamedTuple):
    """The share of training images that is held out, and the anomalies that are made of each."""

    share: float = 0.1
    seed: int = 0
    anomalies: int = 1
    fold: int = 0
    """Number of the fold; each holds out other images."""
    families: tuple[str, ...] = (*MADE, LEFT_OUT)
    unseen: tuple[str, ...] = ()
    """Keys of anomalies that could not be seen on their image."""

    @classmethod
    def of(cls, values: Sequence[Any]) -> Held:
        """Values of a record, which has lists for tuples and may lack fields at their defaults."""
        return cls(*map(_as_it_was, values))


@dataclass(frozen=True, kw_only=True)
class Data:
    """One data set as it lies on disk: its name or path, where to look, which categories.

    Where images are reserved or held out, training and its fingerprint are of the others. The
    fingerprint and the number of images that a cell is scored on, `test_fingerprint` and
    `test_images`, are those of the pseudo-validation in tuning.
    """

    name: str
    """The name in tables: that of the data set, or of its folder."""
    benchmark: str
    root: Path | None = None
    categories: tuple[str, ...]
    train_fingerprint: str
    test_fingerprint: str
    train_images: int
    test_images: int
    published_categories: int | None = None
    """The number of categories of the whole data set; None: not known."""
    limit: int | None = None
    """At most so many images of each category and kind, for a first look."""
    reserved: float = 0.0
    """The share of normal images that only says where alarms begin: to all else it is not there."""
    held: Held | None = None
    whole_fingerprint: str | None = None
    """The fingerprint of all training images, where some are not learned; None: not known."""

    def open(self) -> Benchmark:
        """The data set, but for what is reserved."""
        benchmark = open_benchmark(self.benchmark, self.root, self.limit)
        return without_reserve(benchmark, self.categories, self.reserved)

    def open_reserved(self) -> tuple[Benchmark, list[Sample]]:
        """The reserved images, and the data set that reads them."""
        benchmark = open_benchmark(self.benchmark, self.root, self.limit)
        return benchmark, reserve(benchmark, self.categories, self.reserved)

    def open_kept(self) -> Benchmark:
        """The data set to learn from, without what is held out."""
        return self.open() if self.held is None else self.open_held()

    def open_held(self) -> PseudoValidation:
        """The pseudo-validation; ValueError where nothing is held out."""
        if self.held is None:
            raise ValueError(f"{self.label}: nothing is held out")
        return PseudoValidation(self.open(), self.categories, **self.held._asdict())

    @property
    def images_fingerprint(self) -> str | None:
        """Identity of all images, whatever is learned of them; None: not known."""
        all_learned = self.held is None and not self.reserved
        train = self.train_fingerprint if all_learned else self.whole_fingerprint
        return train and train + self.test_fingerprint

    @property
    def location(self) -> str | None:
        """The folder that was named, as text; None for a data set that brings its own."""
        if Path(self.benchmark).is_absolute():
            return printable(address_of(Path(self.benchmark)))
        return None if self.root is None else printable(address_of(self.root))

    @property
    def label(self) -> str:
        """The data set, and the category if it is only one."""
        single = len(self.categories) == 1
        return f"{self.name}/{self.categories[0]}" if single else self.name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the result table, and the whole truth about it.

    Two cells with equal content are one, whatever the paths and words they were asked for with.
    """

    data: Data
    mode: str
    method: str
    variant: str = ""
    preset: str
    config: Any
    knobs: Any
    seed: int
    weights: Path | None = None
    weights_sha256: str = ""
    purpose: str = "run"
    """One of PURPOSES."""
    profile: str = DEFAULT_PROFILE

    @property
    def calibrated(self) -> bool:
        """Whether reserved images, which chose nothing, say where its alarms begin."""
        return self.data.reserved > 0 and self.role.shown

    @property
    def role(self) -> Purpose:
        """The consequences of the cell's purpose."""
        return PURPOSES[self.purpose]

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that it learns from, is scored on, and has thresholds made of."""
        scored = (self.role.split,) if self.data.test_images else ()
        return ("train", *scored, *(("calibration",) if self.calibrated else ()))

    @cached_property
    def fit_id(self) -> str:
        """Names what is learned: cells that differ in knobs alone share one fit."""
        return digest(self._learned())

    @cached_property
    def cell_id(self) -> str:
        """Names the cell."""
        measured = asdict(PROFILES[self.profile])
        tested = {"test": self.data.test_fingerprint, "knobs": asdict(self.knobs)}
        return digest(self._learned() | tested | {"measured": measured})

    @cached_property
    def config_hash(self) -> str:
        """Names the settings alone, whatever the data, the seed and where files lie."""
        return digest(
            {
                "schema": CELL_SCHEMA,
                "method": self.method,
                "config": asdict(self.config)
                | {f.name: f.default for f in fields(self.config) if f.name in PATHS},
                "knobs": asdict(self.knobs),
            }
            | self.revision
        )

    def _learned(self) -> dict[str, Any]:
        return {
            "schema": CELL_SCHEMA,
            "train": self.data.train_fingerprint,
            "method": self.method,
            "config": without_paths(self.config),
            "weights": self.weights_sha256,
            "seed": self.seed,
        } | self.revision

    @property
    def revision(self) -> dict[str, Any]:
        """The part of the identity that tells of code which scores equal settings otherwise."""
        facts = {
            "revision": load("methods", self.method).revision(self.config),
            "package": source_of("methods", self.method),
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def label(self) -> str:
        """The cell in one line."""
        what = f"{self.method} ({self.variant})" if self.variant else self.method
        return f"{self.data.label} {what} seed {self.seed}"

    @property
    def record(self) -> dict[str, Any]:
        """The cell as JSON can hold it, with addresses of files, without that of its weights."""
        record = asdict(self)
        del record["weights"]
        data, config = record["data"], record["config"]
        data["held"] = self.data.held and self.data.held._asdict()
        for values, paths in ((data, DATA_PATHS), (config, PATHS)):
            for name in paths:
                if values.get(name):
                    values[name] = address_of(Path(values[name]))
        return record


DATA_PATHS = ("benchmark", "root")
"""Fields of Data that say where files lie; `benchmark` may be a name instead."""


def cell_in(record: Mapping[str, Any]) -> Cell:
    """The cell of a record, without the file of its weights.

    Whatever else a record may hold raises UsageError, ValueError, KeyError, TypeError or
    AttributeError.
    """
    if record["purpose"] not in PURPOSES:
        raise ValueError(f"unknown purpose {record['purpose']}")
    method = load("methods", record["method"]).method
    data, held = record["data"], record["data"]["held"]
    root = data["root"] and Path(data["root"])
    own = {field.name: record[field.name] for field in fields(Cell) if field.name != "weights"}
    return Cell(
        **own
        | {
            "data": _from_json(
                Data, data | {"root": root, "held": held and _from_json(Held, held)}
            ),
            "config": _from_json(method.Config, record["config"]),
            "knobs": _from_json(method.Knobs, record["knobs"]),
        }
    )


def _from_json(kind: type, values: Mapping[str, Any]) -> Any:
    return kind(**{name: _as_it_was(value) for name, value in values.items()})


def _as_it_was(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON has no tuples


def without_paths(config: Any) -> dict[str, Any]:
    """The settings that identify a Config, but for where files lie."""
    return {name: v for name, v in asdict(config).items() if name not in PATHS}


def digest(content: dict[str, Any]) -> str:
    """A name made of what it names: 16 hex characters."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def reserve(benchmark: Benchmark, categories: Sequence[str], share: float) -> list[Sample]:
    """The normal images of these categories that say where alarms begin.

    They are drawn before any others are held out, so none of them trains a model or chooses a knob.
    DataError as `hold_out`.
    """
    if not share:
        return []
    return hold_out(benchmark, benchmark.train(categories), share, purpose="calibrate")[1]


def without_reserve(benchmark: Benchmark, categories: Sequence[str], share: float) -> Benchmark:
    """The data set without what is reserved, also in categories that other cells learn.

    DataError as `hold_out` for these categories; others that are too small are left alone.
    """
    hidden = reserve(benchmark, categories, share)
    for other in set(benchmark.categories()) - set(categories) if share else ():
        with suppress(DataError):
            hidden += reserve(benchmark, [other], share)
    return benchmark.without(hidden)


def open_benchmark(name: str, root: Path | None, limit: int | None = None) -> Benchmark:
    """A named data set, or by its path any folder in the MVTec layout or table of images."""
    benchmark = _whole(name, root)
    return benchmark if limit is None else benchmark.limited(limit)


def _whole(name: str, root: Path | None) -> Benchmark:
    if is_known("benchmarks", name):
        benchmark = load("benchmarks", name)(root)
        if isinstance(benchmark, Benchmark):
            return benchmark
        raise UsageError(f"{name}: BENCHMARK(root) gives no Benchmark; see benchmarks/README.md")
    if is_manifest(Path(name)):
        return manifest_benchmark(nfc(Path(name).stem), Path(name))
    if "/" in name or name.startswith(".") or Path(name).is_dir():
        folder = Path(name)
        if not folder.is_dir():
            raise UsageError(f"{name}: no such folder; give a data set's name or an existing path")
        last = folder.resolve().name
        if printable(last) != last:
            raise UsageError(f"{printable(folder)}: is not named in UTF-8; rename the folder")
        return folder_benchmark(nfc(last), folder)
    hint = did_you_mean(name, [*names("benchmarks"), *installed("benchmarks")])
    raise UsageError(f"unknown data set '{name}'; {hint}, or the path of a folder or table")
