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

OUT is a `harness.store.folder.Folder`: a path, a URI, or what a node asks the driver for.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from traceback import format_exception
from typing import Any, NamedTuple
from uuid import uuid4

from harness.plan.addresses import address_of
from harness.plan.cell import PURPOSES, Cell
from harness.plan.options import Say
from harness.plan.registry import UsageError, first_line
from harness.store.checkpoints import load_whole, read_state, save_state
from harness.store.folder import Folder, OnDisk, folder_at
from harness.store.journal import PUBLISHED, entries, entry
from methods.base import BankSearch, Method
from methods.parts.backbone import file_sha256
from methods.parts.progress import quiet
from results.calibration import SCHEMA as CALIBRATION
from results.calibration import calibration_path
from results.evidence import Evidence, write_evidence
from results.files import STALE_SECONDS, WRITING, record_in
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
    """Facts of a training, stored with its model and repeated in every row of its cells."""

    fit_seconds: float
    train_images: int
    train_images_per_second: float | None
    parameters: int
    world_size: int
    restarts: int
    peak_memory_bytes: int
    precision: str
    """The number formats it was learned in, as `harness.work.features.formats` says them."""


RAYS_OWN = "runtime_resources"
"""The folder in which Ray puts the --working-dir of a job."""
EVIDENCE = {
    "scores": "parts",
    "pixel_curves": "parts",
    "pictures": "parts",
    "calibration": "parts",
    "trial_scores": "trials",
}
"""Folder of the part that each kind of evidence belongs to; evidence is written first."""
HELD_FIELDS = ("key", "category", "score", "peak")
PARTS = [role.folder for role in PURPOSES.values()]


def load_state(folder: Path, method: Method) -> dict[str, Any]:
    """Put the learned state in a model's folder into `method`; what was noted with it.

    OSError where it can't be read, ValueError where it is damaged or of another architecture.
    """
    record = record_in((folder / "fit.json").read_bytes(), "sha256")
    load_whole(method, read_state(folder / "model.safetensors", record["sha256"]))
    return record


class Store:
    """Results in one folder; `done` looks there, nothing else remembers."""

    def __init__(self, folder: Folder | Path) -> None:
        self.folder = folder_at(folder) if isinstance(folder, Path) else folder

    @property
    def out(self) -> Path:
        """The folder on this machine: of one that is elsewhere, what was fetched of it."""
        return self.folder.here

    def prepare(self, say: Say = quiet) -> Store:
        """Make the folders, try to write, and mend what a crash left, which `say` is told.

        UsageError if the folder can't take results.
        """
        if RAYS_OWN in self.out.resolve().parts:
            raise UsageError(
                f"{self.out}: lies in a folder that Ray removes after the job; name one that stays "
                "with --out"
            )
        on_disk = isinstance(self.folder, OnDisk)
        try:
            for name in ("parts", "scores", "failures", "models"):
                probe = f"{name}/.room-{uuid4().hex}"
                self.folder.put(probe, b"room?" * 1000)
                self.folder.remove(probe)
            for log in self.out.glob("*.jsonl") if on_disk else ():
                log.open("ab").close()
        except OSError as error:
            path = Path(error.filename or self.out)
            where = address_of(path.parent if path.name.startswith(".") else path)
            why = str(error.strerror or error).partition(";")[0]
            raise UsageError(
                f"{where}: can't write results there ({why}); "
                "allow it, or name another folder with --out"
            ) from None
        if on_disk:  # elsewhere no process of ours can leave halves
            self._clear()
            self._set_aside_torn(say)
        return self

    def _clear(self) -> None:
        """Remove what a crash left half written, long enough ago to be of no running command."""
        for pattern in (".*.tmp", "*/.*.tmp", f"{WRITING}*", f"*/{WRITING}*", f"*/*/{WRITING}*"):
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
                for of in {kind, EVIDENCE.get(kind, kind)}:
                    with suppress(FileNotFoundError):
                        self.folder.move(f"{of}/{path.name}", f"damaged/{of}-{path.name}")

    def done(self, cell: Cell) -> bool:
        """Whether the cell is finished."""
        return self.folder.exists(_part(cell))

    def part(self, cell: Cell) -> Path:
        """A finished cell's rows on this machine; the file exists exactly when the cell is done."""
        return self.folder.local(_part(cell))

    def trial_scores(self, cell: Cell) -> Path:
        """The scores of a setting on the pseudo-validation, which a choice is made of."""
        return self.folder.local(f"trial_scores/{cell.cell_id}.parquet")

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
        with self.folder.scratch() as scratch:
            if held:
                write_rows(calibration_path(scratch, cell.cell_id), held, CALIBRATION)
            if cell.role.shown:
                if scores:
                    write_rows(scores_path(scratch, cell.cell_id), scores, SCORES_SCHEMA)
                write_evidence(scratch, cell.cell_id, evidence)
                use = f"{_model(cell)}/cells/{cell.cell_id}.json"
                self.folder.put(use, _how_to_use(cell, held), replace=True)
            elif cell.role.split == "validation":
                write_rows(scratch / f"trial_scores/{cell.cell_id}.parquet", scores, SCORES_SCHEMA)
            write_part(scratch / _part(cell), rows)
            names = [path.relative_to(scratch).as_posix() for path in scratch.glob("*/*.parquet")]
            hashes = {name.partition("/")[0]: file_sha256(scratch / name) for name in names}
            for name in sorted(names, key=lambda name: name == _part(cell)):
                self.folder.put(name, scratch / name, replace=replace)
        if cell.role.shown:
            self.log(PUBLISHED, {"cell": cell.cell_id, "files": hashes})

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
        """Add a line to one of the logs."""
        self.folder.append(name, entry(**facts))

    def entries(self, name: str) -> list[dict[str, Any]]:
        """All lines of one of the logs."""
        return [*entries(self.folder.local(name))]

    def publish_failure(self, cell: Cell, row: Row, error: BaseException) -> None:
        """Keep a failure as a row, and its traceback beside it.

        The cell stays open and is tried again by the next run.
        """
        with self.lock(f"{cell.cell_id}-failures"), self.folder.scratch() as scratch:
            path = failure_path(scratch, cell.cell_id, self._last_failure(cell) + 1)
            write_part(path, [row])
            self.folder.put(f"failures/{path.name}", path)
        text = "".join(format_exception(error)).encode()
        self.folder.put(f"failures/{path.stem}.txt", text)

    def traceback(self, cell: Cell) -> Path:
        """The path of the traceback of the cell's last failure."""
        return failure_path(self.out, cell.cell_id, self._last_failure(cell)).with_suffix(".txt")

    def _last_failure(self, cell: Cell) -> int:
        """Its number, counted from 1; of those before it some may have been damaged."""
        names = (Path(name) for name in self.folder.list("failures"))
        own = [
            name.stem.rpartition("-")[2]
            for name in names
            if name.match(f"{cell.cell_id}-*.parquet")
        ]
        return max((int(number) for number in own if number.isdecimal()), default=0)

    def note(self, what: str, cell: Cell, **facts: Any) -> None:
        """Note a piece of work: a training, a search, a setting that was scored."""
        self.log("work.jsonl", {"what": what, "fit": cell.fit_id, "cell": cell.cell_id, **facts})

    def neighbours(self, cell: Cell, search: BankSearch) -> str:
        """Name of the folder of what a search finds for the samples of a cell.

        Beside the model, so that it goes with it.
        """
        return f"{_model(cell)}/neighbours/{cell.data.test_fingerprint}-{search.name}"

    def lock(self, name: str, waiting: Callable[[], None] = quiet) -> AbstractContextManager[None]:
        """One process at a time works on a fit, the cells of one, or a study."""
        return self.folder.lock(name, waiting)

    def model(self, cell: Cell) -> Path:
        """The folder of the cell's trained model on this machine."""
        return self.out / _model(cell)

    def trained(self, cell: Cell) -> bool:
        """Whether there is a trained model of the cell."""
        return self.folder.exists(f"{_model(cell)}/fit.json")

    def forget_model(self, cell: Cell) -> None:
        """Remove the trained model, so that the next fit starts from nothing."""
        self.folder.remove(_model(cell))
        self.folder.remove(self.training(cell))

    def training(self, cell: Cell) -> str:
        """Name of the folder of checkpoints while the cell's model is being trained."""
        return f"{_model(cell)}.training"

    def save_model(
        self,
        cell: Cell,
        method: Method,
        facts: FitFacts,
        losses: Sequence[float],
        yardsticks: Mapping[str, float],
    ) -> None:
        """Write the learned state and the facts of the fit; atomic, the first writer wins."""
        with self.folder.scratch() as scratch:
            state = {key: value.cpu().contiguous() for key, value in method.state_dict().items()}
            save_state(state, scratch / "model.safetensors")
            told = {"losses": losses, "yardsticks": dict(yardsticks)}
            record = facts._asdict() | told | {"sha256": file_sha256(scratch / "model.safetensors")}
            (scratch / "fit.json").write_text(json.dumps(record, indent=1))
            self.folder.put(_model(cell), scratch)

    def load_model(self, cell: Cell, method: Method, say: Say = quiet) -> FitFacts | None:
        """Put the stored state into `method` and return the fit's facts; None if there is none.

        A folder that is damaged, or holds another architecture, is moved aside and `say` is told.
        UsageError for one that can't be read, such as another user's: it is not damaged.
        """
        folder = self.folder.local(_model(cell))
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
        aside = f"{folder.name}.corrupt-{time.time_ns()}"
        with suppress(FileNotFoundError):  # another process moved it first
            self.folder.move(_model(cell), f"models/{aside}")
        say(f"{folder} is damaged ({why}); moved to {aside}")
        return None


def _how_to_use(cell: Cell, held: Sequence[Row]) -> bytes:
    white = getattr(cell.data.open(), "white", None)
    record = {
        "cell": cell.cell_id,
        **cell.record,
        # The value of deep images that became 255: new ones are to be read by it too.
        "whites": {name: white(name) for name in cell.data.categories} if white else {},
        "held": [{name: row[name] for name in HELD_FIELDS} for row in held],
    }
    return json.dumps(record).encode()


def _part(cell: Cell) -> str:
    return f"{cell.role.folder}/{cell.cell_id}.parquet"


def _model(cell: Cell) -> str:
    return f"models/{cell.fit_id}"
