"""The folder of results: finished cells, failures, scores and trained models.

OUT/parts/<cell>.parquet      one immutable part per finished cell
OUT/scores/<cell>.parquet     its score for every test image
OUT/pixel_curves/<cell>.parquet, pictures/<cell>.parquet    what its report shows
OUT/calibration/<cell>.parquet    scores of held-out normal images, which say where alarms begin
OUT/failures/<cell>-<n>.parquet
OUT/models/<fit>/             model.safetensors and fit.json
OUT/models/<fit>/cells/<cell>.json    a cell that used it, and its held-out scores
OUT/models/<fit>.training/    checkpoints, while it is being trained
OUT/models/<fit>/neighbours/  searches that a sweep shares
OUT/trials/<cell>.parquet     settings scored on pseudo-validation, as `tune` tried them
OUT/trial_scores/<cell>.parquet    the score of each pseudo-validation image
OUT/revealed/<cell>.parquet   the same on the test split, after the choice
OUT/choices/                  frozen choices, and what was revealed of them
OUT/running/                  what the commands at work do, see `lafite-bench status`
OUT/damaged/                  files that a crash cut off
OUT/locks/                    what commands at the same time wait for
OUT/published.jsonl           the hashes of a cell's files, for `lafite-bench verify`
OUT/audit.jsonl, work.jsonl   each opening of the test split for scoring; what `tune` did
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any, NamedTuple

from harness.cell import PURPOSES, Cell
from harness.options import Say
from harness.registry import UsageError, first_line
from harness.store.checkpoints import load_whole, read_state, save_state
from harness.store.copies import fetch, forget
from harness.store.journal import append
from methods.base import BankSearch, Method, quiet
from methods.parts.backbone import file_sha256
from results.calibration import SCHEMA as CALIBRATION
from results.calibration import calibration_path
from results.evidence import Evidence, write_evidence
from results.files import STALE_SECONDS, WRITING, locked, record_in, whole_folder, write_whole
from results.table import (
    SCORES_SCHEMA,
    failure_path,
    scores_path,
    torn,
    write_part,
    write_rows,
)

Row = dict[str, Any]


class FitFacts(NamedTuple):
    """What a trained model is stored with, and every row of its cells repeats."""

    fit_seconds: float
    train_images: int
    train_images_per_second: float | None
    parameters: int
    world_size: int
    restarts: int
    peak_memory_bytes: int
    precision: str
    """The number formats it was learned in, as `harness.features.formats` says them."""


PUBLISHED = "published.jsonl"
DIVERGED = "diverged"
"""A note beside the checkpoints of a training that did."""
RAYS_OWN = "runtime_resources"
"""Where Ray puts the --working-dir of a job."""
EVIDENCE = {name: "parts" for name in ("scores", "pixel_curves", "pictures", "calibration")}
HELD_FIELDS = ("key", "category", "score", "peak")
EVIDENCE["trial_scores"] = "trials"
"""What is written before a part, and where that lies: without it a part shows less than it says."""
PARTS = [role.folder for role in PURPOSES.values()]


def load_state(folder: Path, method: Method) -> dict[str, Any]:
    """Put the learned state in a model's folder into `method`; what was noted with it.

    OSError where it can't be read, ValueError where it is damaged or of another architecture.
    """
    record = record_in((folder / "fit.json").read_bytes(), "sha256")
    load_whole(method, read_state(folder / "model.safetensors", record["sha256"]))
    return record


def whites(cell: Cell) -> dict[str, float]:
    """What becomes 255 of deep images, by category, which new ones have to be read by as well."""
    white = getattr(cell.data.open(), "white", None)
    return {} if white is None else {name: white(name) for name in cell.data.categories}


@dataclass(frozen=True)
class Store:
    """Results under one folder; `done` looks at the disk, nothing else remembers."""

    out: Path

    def prepare(self, say: Say = quiet) -> Store:
        """Make the folders, try to write, and mend what a crash left, which `say` is told.

        UsageError if the folder can't take results.
        """
        if RAYS_OWN in self.out.resolve().parts:
            raise UsageError(
                f"{self.out}: lies in a folder that Ray removes after the job; name one that stays "
                "with --out"
            )
        try:
            for name in (".", "parts", "scores", "failures", "models"):
                (self.out / name).mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self.out / name) as probe:
                    probe.write(b"room?" * 1000)
                    probe.flush()
            for log in self.out.glob("*.jsonl"):
                log.open("ab").close()
        except OSError as error:
            raise UsageError(
                f"{error.filename or self.out}: can't write results there ({error.strerror}); "
                "allow it, or name another folder with --out"
            ) from None
        self._clear()
        self._set_aside_torn(say)
        return self

    def _clear(self) -> None:
        """Remove what a crash left half written, long enough ago to be of no running command."""
        for pattern in (".*.tmp", "*/.*.tmp", f"models/{WRITING}*", f"models/*/{WRITING}*"):
            for path in self.out.glob(pattern):
                with suppress(OSError):
                    if time.time() - path.stat().st_mtime > STALE_SECONDS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _set_aside_torn(self, say: Say) -> None:
        """Move files that are no whole Parquet, and the part that goes with one, to `damaged`."""
        for kind in dict.fromkeys((*EVIDENCE, "failures", *PARTS)):
            for path in sorted((self.out / kind).glob("[!.]*.parquet")):
                # Evidence is large, and its readers say what they can't read.
                if not (why := torn(path, pages=kind not in EVIDENCE)):
                    continue
                say(f"{path} is not whole ({why}); moved to damaged, its cell is done again")
                # Without its evidence a part goes too.
                for file in {path, self.out / EVIDENCE.get(kind, kind) / path.name}:
                    aside = self.out / "damaged" / f"{file.parent.name}-{file.name}"
                    aside.parent.mkdir(exist_ok=True)
                    with suppress(FileNotFoundError):
                        file.replace(aside)

    def done(self, cell: Cell) -> bool:
        """Whether the cell is finished."""
        return self.part(cell).exists()

    def part(self, cell: Cell) -> Path:
        """Where a finished cell's rows lie; it exists exactly when the cell is done."""
        return self.out / cell.role.folder / f"{cell.cell_id}.parquet"

    def trial_scores(self, cell: Cell) -> Path:
        """Where the scores of a setting on the pseudo-validation lie, which a choice is made of."""
        return self.out / "trial_scores" / f"{cell.cell_id}.parquet"

    def publish(
        self,
        cell: Cell,
        rows: list[Row],
        scores: list[Row],
        evidence: Evidence,
        held: Sequence[Row] = (),
        *,
        replace: bool = False,
    ) -> None:
        """Make a finished cell visible; its part comes last, since it says that it is done."""
        if held:
            path = calibration_path(self.out, cell.cell_id)
            write_rows(path, held, CALIBRATION, replace=replace)
        if cell.role.shown:
            self._write_use(cell, held)
            if scores:
                path = scores_path(self.out, cell.cell_id)
                write_rows(path, scores, SCORES_SCHEMA, replace=replace)
            write_evidence(self.out, cell.cell_id, evidence, replace=replace)
        elif cell.role.split == "validation":
            write_rows(self.trial_scores(cell), scores, SCORES_SCHEMA, replace=replace)
        write_part(self.part(cell), rows, replace=replace)
        self.published(cell, replace)
        if cell.role.shown:
            name = f"{cell.cell_id}.parquet"
            kinds = ("parts", *(kind for kind, of in EVIDENCE.items() if of == "parts"))
            paths = [path for kind in kinds if (path := self.out / kind / name).exists()]
            hashes = {path.parent.name: file_sha256(path) for path in paths}
            self.log(PUBLISHED, {"cell": cell.cell_id, "files": hashes})

    def use(self, cell: Cell) -> Path:
        """The record of a cell that used a model, to use it again; it goes with the model."""
        return self.model(cell) / "cells" / f"{cell.cell_id}.json"

    def _write_use(self, cell: Cell, held: Sequence[Row]) -> None:
        record = {
            "cell": cell.cell_id,
            **cell.record,
            "whites": whites(cell),
            "held": [{name: row[name] for name in HELD_FIELDS} for row in held],
        }
        write_whole(self.use(cell), json.dumps(record).encode(), replace=True)

    def audit(self, cells: Sequence[Cell]) -> None:
        """Note that the test split is about to be opened to score these cells.

        Planning hashes it and the check of the data decodes it; that learns and chooses nothing,
        so it is no opening in this sense.
        """
        for cell in cells:
            facts = {
                "purpose": cell.purpose,
                "cell": cell.cell_id,
                "method": cell.method,
                "test": cell.data.test_fingerprint,
            }
            self.log("audit.jsonl", facts)

    def log(self, name: str, facts: Mapping[str, Any]) -> None:
        """A line of one of the logs."""
        append(self.out / name, **facts)

    def publish_failure(self, cell: Cell, row: Row, error: BaseException) -> None:
        """Keep a failure as a row, and its traceback beside it.

        The cell stays open and is tried again by the next run.
        """
        with locked(self.lock(f"{cell.cell_id}-failures"), quiet):
            path = failure_path(self.out, cell.cell_id, self._last_failure(cell) + 1)
            write_part(path, [row])
        write_whole(path.with_suffix(".txt"), "".join(format_exception(error)).encode())

    def traceback(self, cell: Cell) -> Path:
        """Where the traceback of the cell's last failure lies."""
        return failure_path(self.out, cell.cell_id, self._last_failure(cell)).with_suffix(".txt")

    def _last_failure(self, cell: Cell) -> int:
        """Its number, counted from 1; of those before it some may have been damaged."""
        paths = (self.out / "failures").glob(f"{cell.cell_id}-*.parquet")
        numbers = [path.stem.rpartition("-")[2] for path in paths]
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

    def note(self, what: str, cell: Cell, **facts: Any) -> None:
        """Note a piece of work: a training, a search, a setting that was scored."""
        self.log("work.jsonl", {"what": what, "fit": cell.fit_id, "cell": cell.cell_id, **facts})

    def published(self, cell: Cell, replace: bool) -> None:
        """Told of each finished cell; here its files lie where they belong."""

    def learned(self, cell: Cell) -> None:
        """Told of each model."""

    def keep_checkpoint(self, folder: Path) -> None:
        """Told of each checkpoint."""

    def keep(self, path: Path) -> None:
        """Told of each file that is neither rows nor a model."""

    def fetch(self, path: Path) -> None:
        """Told of each such file before it is read."""

    def neighbours(self, cell: Cell, search: BankSearch) -> Path:
        """The folder of what a search finds for the samples of a cell.

        Beside the model, so that it goes with it.
        """
        return self.model(cell) / "neighbours" / f"{cell.data.test_fingerprint}-{search.name}"

    def lock(self, name: str) -> Path:
        """The file of a lock: of a fit, the cells of one, or a study."""
        return self.out / "locks" / name

    def model(self, cell: Cell) -> Path:
        """The folder of the cell's trained model."""
        return self.out / "models" / cell.fit_id

    def trained(self, cell: Cell) -> bool:
        """Whether there is a trained model of the cell."""
        return self.model(cell).is_dir()

    def forget_model(self, cell: Cell) -> None:
        """Remove the trained model, so that the next fit starts from nothing."""
        for folder in (self.model(cell), self.training(cell)):
            shutil.rmtree(folder, ignore_errors=True)
            forget(folder)

    def training(self, cell: Cell) -> Path:
        """The folder of checkpoints while the cell's model is being trained."""
        folder = self.out / "models" / f"{cell.fit_id}.training"
        if not folder.exists():
            fetch(folder)
        return folder

    def note_diverged(self, cell: Cell, why: str) -> None:
        """Leave word for the driver that the training diverged."""
        self.training(cell).mkdir(parents=True, exist_ok=True)
        (self.training(cell) / DIVERGED).write_text(why)

    def diverged(self, cell: Cell) -> str:
        """Why the training diverged, told once; empty if it did not."""
        note = self.training(cell) / DIVERGED
        if not note.exists():
            return ""
        why = note.read_text()
        note.unlink()
        return why

    def save_model(
        self,
        cell: Cell,
        method: Method,
        facts: FitFacts,
        losses: Sequence[float],
        yardsticks: Mapping[str, float],
    ) -> None:
        """Write the learned state and the facts of the fit; atomic, the first writer wins."""
        with whole_folder(self.model(cell)) as scratch:
            state = {key: value.cpu().contiguous() for key, value in method.state_dict().items()}
            save_state(state, scratch / "model.safetensors")
            sha256 = file_sha256(scratch / "model.safetensors")
            record = {
                **facts._asdict(),
                "losses": losses,
                "yardsticks": dict(yardsticks),
                "sha256": sha256,
            }
            (scratch / "fit.json").write_text(json.dumps(record, indent=1))
        self.learned(cell)

    def load_model(self, cell: Cell, method: Method, say: Say = quiet) -> FitFacts | None:
        """Put the stored state into `method` and return the fit's facts; None if there is none.

        A folder that is damaged, or holds another architecture, is moved aside and `say` is told.
        UsageError for one that can't be read, such as another user's: it is not damaged.
        """
        folder = self.model(cell)
        fetch(folder)
        try:
            record = load_state(folder, method)
            facts = FitFacts(**{name: record[name] for name in FitFacts._fields})
        except FileNotFoundError:
            if not folder.is_dir():
                return None
            why = "a file is missing"
        except OSError as error:
            raise UsageError(
                f"{folder}: the model can't be read ({error.strerror}); let its owner run "
                f"chmod -R a+rX {folder}, or use another --out"
            ) from None
        except (ValueError, KeyError, TypeError) as error:
            why = first_line(error, kind=True)
        else:
            return facts
        aside = folder.with_name(f"{folder.name}.corrupt-{time.time_ns()}")
        with suppress(FileNotFoundError):  # another process moved it first
            folder.replace(aside)
        say(f"{folder} is damaged ({why}); moved to {aside.name}")
        return None
