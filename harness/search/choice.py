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

from harness.cell import Cell, Held
from harness.plan import kept
from harness.registry import UsageError, load
from harness.search.stages import Searched, table
from harness.search.study import Study, choice_key
from harness.store.journal import entries
from harness.store.store import Store
from results.files import write_whole


@dataclass(frozen=True)
class Choice:
    """What a search chose, why, and when; `record` is the whole file."""

    path: Path
    record: dict[str, Any]

    @property
    def frozen_at(self) -> datetime:
        """When it was written."""
        return datetime.fromisoformat(self.record["frozen_at"])

    @property
    def held(self) -> Held:
        """What was held out for it."""
        return Held(*self.record["study"]["held"])

    def knobs(self, method: str) -> Any:
        """The chosen knobs."""
        return load("methods", method).Knobs(**self.record["knobs"])


def freeze(
    store: Store, study: Study, knobs: Any, searched: Sequence[Searched], code_version: str
) -> Choice:
    """Write the choice, whole and once; where it was written meanwhile, that one stays."""
    last = searched[-1]
    record = {
        "benchmark": study.first.data.name,
        "categories": list(study.first.data.categories),
        "method": study.first.method,
        "preset": study.first.preset,
        "knobs": dataclasses.asdict(knobs),
        "frozen_at": datetime.now(UTC).isoformat(),
        "code_version": code_version,
        "value": fmean(last.tried[last.best].values),
        "values": list(last.tried[last.best].values),
        "settings": len({one.knobs for stage in searched for one in stage.tried if one.values}),
        "train_fingerprint": study.train_fingerprint,
        "kept_fingerprint": study.first.data.train_fingerprint,
        "config": dataclasses.asdict(study.first.config),
        "weights_sha256": study.first.weights_sha256,
        "study": study.described(),
        "stages": table(searched),
    }
    path = _path(store, study.first, study.key)
    write_whole(path, json.dumps(record, indent=1, default=str).encode())
    return Choice(path, json.loads(path.read_text()))


def frozen(store: Store, study: Study) -> Choice | None:
    """The study's choice, if it is frozen; UsageError if another search froze one."""
    found = _read(_path(store, study.first, study.key))
    if found is None:
        return None
    wanted = json.loads(json.dumps(study.described()))
    for name, value in found.record["study"].items():
        if wanted[name] != value:
            raise UsageError(
                f"{found.path}: frozen with another {name} ({_short(value)}, now "
                f"{_short(wanted[name])}); a choice is made once: tune into another --out"
            )
    return found


def tuned(
    cells: Sequence[Cell], store: Store, *, refit: bool, options: Sequence[str]
) -> list[Cell]:
    """Cells with the frozen knobs for those cells that have a choice.

    The model is the one that was tuned, which never saw what was held out; `refit` trains it on all
    training images. UsageError, a line for each, where a choice is missing (`options` are those of
    the command that makes it), and where it was frozen after the test split had been opened to look
    at one.
    """
    found: list[Cell] = []
    missing: dict[str, None] = {}
    data: dict[Any, Any] = {}
    for cell in cells:
        if not load("methods", cell.method).search(cell.config):
            continue
        choice = _read(_path(store, cell, choice_key(cell, cell.data.train_fingerprint)))
        if choice is None:
            missing[_missing(cell, options)] = None
            continue
        _check_sealed(choice, cell, store)
        new = replace(
            cell,
            knobs=choice.knobs(cell.method),
            purpose="tuned",
            variant=", ".join(filter(None, (cell.variant, "tuned, refit" if refit else "tuned"))),
        )
        if not refit:
            of = (cell.data, choice.held)
            if of not in data:
                data[of] = _same_kept(kept(*of), choice)
            new = replace(new, data=data[of])
        found.append(new)
    if missing:
        raise UsageError("\n".join(missing))
    return found


def _same_kept(data: Any, choice: Choice) -> Any:
    if data.train_fingerprint != choice.record["kept_fingerprint"]:
        raise UsageError(
            f"{choice.path}: made while other images were held out than this version holds out; "
            "tune again into another --out"
        )
    return data


def _check_sealed(choice: Choice, cell: Cell, store: Store) -> None:
    about = {"method": cell.method, "test": cell.data.test_fingerprint}
    for entry in entries(store.out / "audit.jsonl"):
        looked = entry["purpose"] in ("tuned", "reveal") and about.items() <= entry.items()
        if looked and datetime.fromisoformat(entry["time"]) < choice.frozen_at:
            raise UsageError(
                f"{choice.path}: frozen at {choice.frozen_at:%Y-%m-%d %H:%M:%S}, after the test "
                f"split had been opened for {cell.method} ({entry['purpose']}, "
                f"{entry['time'][:19]}); such a choice is no choice without anomalies"
            )


def _missing(cell: Cell, options: Sequence[str]) -> str:
    first = shlex.join(["lafite-bench", "tune", cell.data.benchmark, "-m", cell.method, *options])
    return f"{cell.data.label} {cell.method}: nothing is tuned yet; first run {first}"


def _path(store: Store, cell: Cell, key: str) -> Path:
    name = f"{cell.data.label.replace('/', '-')}-{cell.method}-{key[:8]}"
    return store.out / "choices" / f"{name}.json"


def _read(path: Path) -> Choice | None:
    if not path.exists():
        return None
    try:
        return Choice(path, json.loads(path.read_text()))
    except ValueError as error:
        raise UsageError(f"{path}: is no choice that can be read ({error}); remove it") from None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
