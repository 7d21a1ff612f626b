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

from harness.plan.cell import Cell, Data, Held
from harness.plan.datasets import with_held_out
from harness.plan.registry import UsageError, load
from harness.search.decision import NothingToChoose, StageResult, Verdict, score_cost
from harness.search.study import Study, choice_key
from harness.store.store import Store
from results.files import record_in

FEWEST_IMAGES = 4
COIN, EQUAL = 0.5, 1e-9
FIELDS = ("study", "held", "knobs", "stages", "frozen_at")
"""Fields without which a record is no choice."""


@dataclass(frozen=True)
class Choice:
    """The knobs that a search chose, why, and when; `record` is the content of its file."""

    path: Path
    record: dict[str, Any]

    @property
    def frozen_at(self) -> datetime:
        """When it was written."""
        return datetime.fromisoformat(self.record["frozen_at"])

    @property
    def held(self) -> Held:
        """The images that were held out for it."""
        return Held.of(self.record["held"])

    def knobs(self, method: str) -> Any:
        """The chosen knobs."""
        return load("methods", method).method.Knobs(**self.record["knobs"])


def freeze(
    store: Store, study: Study, found: Verdict, results: Sequence[StageResult], code_version: str
) -> Choice:
    """Write the choice, whole and once; where it was written meanwhile, that choice stays."""
    tried = {setting.knobs for stage in results for setting in stage.tried if setting.values}
    content = {
        "benchmark": study.first.data.name,
        "categories": list(study.first.data.categories),
        "method": study.first.method,
        "preset": study.first.preset,
        "knobs": dataclasses.asdict(found.knobs),
        "before": dataclasses.asdict(study.first.knobs),
        "verdict": found._asdict()
        | {
            "knobs": None,
            "flops": score_cost(study, found.knobs),
            "flops_before": score_cost(study, study.first.knobs),
        },
        "frozen_at": datetime.now(UTC).isoformat(),
        "code_version": code_version,
        "settings": len(tried),
        "train_fingerprint": study.train_fingerprint,
        "kept_fingerprint": study.first.data.train_fingerprint,
        "config": dataclasses.asdict(study.first.config),
        "weights_sha256": study.first.weights_sha256,
        "held": list(study.first.data.held or ())[:5],
        "study": study.described(),
        "stages": [dataclasses.asdict(result) for result in results],
    }
    name = _name(study.first, study.key)
    store.folder.put(name, json.dumps(content, indent=1, default=str).encode())
    path = store.folder.local(name)
    return Choice(path, json.loads(path.read_text()))


def check_meaning(study: Study, results: Sequence[StageResult]) -> None:
    """NothingToChoose for a choice among equals, of what is no better than a coin, or by a handful
    of images: it would be frozen for good."""
    means = [fmean(one.values) for stage in results for one in stage.tried if one.values]
    images = study.first.data.test_images
    if images < FEWEST_IMAGES:
        why = f"{images} pseudo-validation images tell nothing; hold out more of them (--share)"
    elif study.published and len(means) > 1 and max(means) - min(means) < EQUAL:
        same = f"{100 * means[0]:.1f} %"
        why = f"all {len(means)} settings have {same}; hold out more images (--share)"
    elif max(means) <= COIN:
        why = (
            f"no setting is better than a coin ({100 * max(means):.1f} % at most), so what was "
            "learned finds no anomaly here; train longer, or try another method"
        )
    else:
        return
    raise NothingToChoose(why)


def withdraw(store: Store, study: Study) -> Path | None:
    """Take back the study's choice, so that another one can be made; None if there is none.

    It is kept under OUT/choices/withdrawn, and OUT/audit.jsonl notes it: whoever reads a later
    choice sees that it is not the first.
    """
    name = _name(study.first, study.key)
    if not store.folder.exists(name):
        return None
    now = datetime.now(UTC)
    kept = store.out / f"choices/withdrawn/{Path(name).stem}-{now:%Y%m%dT%H%M%S}.json"
    store.folder.move(name, str(kept.relative_to(store.out)))
    facts = {"cell": study.first.cell_id, "method": study.first.method, "choice": kept.name}
    test = study.first.data.test_fingerprint
    store.log("audit.jsonl", {"purpose": "withdrawn", "test": test, **facts})
    return kept


def frozen(store: Store, study: Study) -> Choice | None:
    """The study's choice, if it is frozen; UsageError if another search froze one."""
    choice = _read(store.folder.local(_name(study.first, study.key)))
    if choice is None:
        return None
    before, now = choice.record["study"], json.loads(json.dumps(study.described()))
    changed = [
        f"{name} {_short(before.get(name))}, now {_short(now[name])}"
        for name in now
        if before.get(name) != now[name]
    ]
    if changed:
        raise UsageError(
            f"{choice.path}: frozen with {'; '.join(changed)}; a choice is made once: take it back "
            "with --withdraw, or tune into another --out"
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
        if not load("methods", cell.method).stages(cell.config, cell.knobs):
            continue
        key = choice_key(cell, cell.data.train_fingerprint)
        choice = _read(store.folder.local(_name(cell, key)))
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
                held_out[split] = with_held_out(*split)
            row = replace(row, data=held_out[split])
            if row.data.train_fingerprint != choice.record["kept_fingerprint"]:
                raise UsageError(
                    f"{choice.path}: made while other images were held out than this version holds "
                    "out; tune again into another --out"
                )
        rows.append(row)
    if missing:
        raise UsageError("\n".join(missing))
    return rows


def _check_sealed(choice: Choice, cell: Cell, store: Store) -> None:
    split = {"method": cell.method, "test": cell.data.test_fingerprint}
    for entry in store.entries("audit.jsonl"):
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


def _name(cell: Cell, key: str) -> str:
    data = Path(cell.data.benchmark).name  # whatever it is called beside another of this name
    single = cell.data.categories if len(cell.data.categories) == 1 else ()
    name = "-".join([data, *single, cell.method, key[:8]])
    return f"choices/{name}.json"


def _read(path: Path) -> Choice | None:
    if not path.exists():
        return None
    try:
        return Choice(path, record_in(path.read_bytes(), *FIELDS))
    except ValueError as error:
        raise UsageError(f"{path}: is no choice that can be read ({error}); remove it") from None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
