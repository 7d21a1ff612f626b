"""Frozen choices: written once, before the test split is opened for them, and what `run` makes of
them.

OUT/choices/<data>-<method>-<key>.json
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.cell import Cell, Data, Held
from harness.pieces import with_held_out
from harness.registry import UsageError, load
from harness.search.stages import StageResult, record
from harness.search.study import Study, choice_key
from harness.store.journal import entries
from harness.store.store import Store
from results.files import record_in, write_whole

FIELDS = ("study", "knobs", "stages", "frozen_at")
"""Without which a record is no choice."""


@dataclass(frozen=True)
class Choice:
    """What a search chose, why, and when; `record` is the content of its file."""

    path: Path
    record: dict[str, Any]

    @property
    def frozen_at(self) -> datetime:
        """When it was written."""
        return datetime.fromisoformat(self.record["frozen_at"])

    @property
    def held(self) -> Held:
        """What was held out for it."""
        return Held.of(self.record["study"]["held"])

    def knobs(self, method: str) -> Any:
        """The chosen knobs."""
        return load("methods", method).method.Knobs(**self.record["knobs"])


def freeze(
    store: Store, study: Study, knobs: Any, results: Sequence[StageResult], code_version: str
) -> Choice:
    """Write the choice, whole and once; where it was written meanwhile, that choice stays."""
    last = results[-1]
    tried = {setting.knobs for stage in results for setting in stage.tried if setting.values}
    content = {
        "benchmark": study.first.data.name,
        "categories": list(study.first.data.categories),
        "method": study.first.method,
        "preset": study.first.preset,
        "knobs": dataclasses.asdict(knobs),
        "frozen_at": datetime.now(UTC).isoformat(),
        "code_version": code_version,
        "value": fmean(last.tried[last.best].values),
        "values": list(last.tried[last.best].values),
        "settings": len(tried),
        "train_fingerprint": study.train_fingerprint,
        "kept_fingerprint": study.first.data.train_fingerprint,
        "config": dataclasses.asdict(study.first.config),
        "weights_sha256": study.first.weights_sha256,
        "study": study.described(),
        "stages": record(results),
    }
    path = _path(store, study.first, study.key)
    write_whole(path, json.dumps(content, indent=1, default=str).encode())
    return Choice(path, json.loads(path.read_text()))


def frozen(store: Store, study: Study) -> Choice | None:
    """The study's choice, if it is frozen; UsageError if another search froze one."""
    choice = _read(_path(store, study.first, study.key))
    if choice is None:
        return None
    frozen_study, wanted = choice.record["study"], json.loads(json.dumps(study.described()))
    for name in frozen_study | wanted:
        before, now = frozen_study.get(name), wanted.get(name)
        if before != now:
            raise UsageError(
                f"{choice.path}: frozen with another {name} ({_short(before)}, now "
                f"{_short(now)}); a choice is made once: tune into another --out"
            )
    return choice


def tuned(
    cells: Sequence[Cell], store: Store, *, refit: bool, options: Sequence[str]
) -> list[Cell]:
    """Cells with the frozen knobs for those cells that have a choice.

    The model is the one that was tuned, which never saw what was held out; `refit` trains it on all
    training images. UsageError, a line for each, where a choice is missing (`options` are those of
    the command that makes it), and where it was frozen after the test split had been opened to look
    at one.
    """
    rows: list[Cell] = []
    missing: dict[str, None] = {}
    held_out: dict[tuple[Data, Held], Data] = {}
    for cell in cells:
        if not load("methods", cell.method).search(cell.config, cell.knobs):
            continue
        choice = _read(_path(store, cell, choice_key(cell, cell.data.train_fingerprint)))
        if choice is None:
            missing[_missing(cell, options)] = None
            continue
        _check_sealed(choice, cell, store)
        row = replace(
            cell,
            knobs=choice.knobs(cell.method),
            purpose="tuned",
            variant=", ".join(filter(None, (cell.variant, "tuned, refit" if refit else "tuned"))),
        )
        if not refit:
            split = cell.data, choice.held
            if split not in held_out:
                held_out[split] = _as_tuned(with_held_out(*split), choice)
            row = replace(row, data=held_out[split])
        rows.append(row)
    if missing:
        raise UsageError("\n".join(missing))
    return rows


def _as_tuned(data: Data, choice: Choice) -> Data:
    """The data, unless other images are held out of it than were for the choice."""
    if data.train_fingerprint != choice.record["kept_fingerprint"]:
        raise UsageError(
            f"{choice.path}: made while other images were held out than this version holds out; "
            "tune again into another --out"
        )
    return data


def _check_sealed(choice: Choice, cell: Cell, store: Store) -> None:
    split = {"method": cell.method, "test": cell.data.test_fingerprint}
    for entry in entries(store.out / "audit.jsonl"):
        opened = entry["purpose"] in ("tuned", "reveal") and split.items() <= entry.items()
        if opened and datetime.fromisoformat(entry["time"]) < choice.frozen_at:
            raise UsageError(
                f"{choice.path}: frozen at {choice.frozen_at:%Y-%m-%d %H:%M:%S}, after the test "
                f"split had been opened for {cell.method} ({entry['purpose']}, "
                f"{entry['time'][:19]}); such a choice is no choice without anomalies"
            )


def _missing(cell: Cell, options: Sequence[str]) -> str:
    first = shlex.join(["lafite-bench", "tune", cell.data.benchmark, "-m", cell.method, *options])
    return f"{cell.data.label} {cell.method}: nothing is tuned yet; first run {first}"


def _path(store: Store, cell: Cell, key: str) -> Path:
    data = Path(cell.data.benchmark).name  # whatever it is called beside another of this name
    single = cell.data.categories if len(cell.data.categories) == 1 else ()
    name = "-".join([data, *single, cell.method, key[:8]])
    return store.out / "choices" / f"{name}.json"


def _read(path: Path) -> Choice | None:
    if not path.exists():
        return None
    try:
        return Choice(path, record_in(path.read_bytes(), *FIELDS))
    except ValueError as error:
        raise UsageError(f"{path}: is no choice that can be read ({error}); remove it") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
