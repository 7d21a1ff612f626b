"""Many settings of one learned model, scored side by side: what each trial of a sweep does.

Features, model and neighbours are made once; a setting costs its own scoring and nothing else.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from benchmarks.base import Sample, SealedError, sealed
from harness.execute import SCORE_BATCH, Read, Scored, batches, learn, publish, score
from harness.features import open_split
from harness.journal import append
from harness.memory import reset_peak_memory
from harness.place import Place, Tell
from harness.spec import Cell
from methods.base import Batches, Method, Neighbours, Progress, Scores, quiet
from methods.parts.backbone import Features, Pixels
from results.table import read_part

Shares = tuple[float, ...]


class Preparation(NamedTuple):
    """Work that several trials share: a training, and a search where the knobs make one."""

    cell: Cell
    most_k: int


def prepare(item: Preparation, place: Place, tell: Tell) -> None:
    """Do what the trials of a stage share before they start, so that none of them does it twice."""
    Bench(item.cell, place, item.most_k, tell).neighbours(item.cell)


class Bench:
    """A learned model beside what its settings are scored on, ready for many of them.

    `most_k` is the largest k of the sweep: one search with it serves every k. The test split is
    sealed, unless the cell reveals it.
    """

    def __init__(self, cell: Cell, place: Place, most_k: int, tell: Tell = quiet) -> None:
        self.place, self.most_k, self.tell = place, most_k, tell
        with sealed():
            self.method, self.fit = learn(cell, cell.data.open_kept(), place, tell)
        self.method.eval()
        if cell.purpose == "reveal":
            place.store.audit([cell])
        with _seal(cell):
            self.benchmark, self.samples = open_split(cell.data, cell.split)
            self.read = batches(cell, self.benchmark, self.samples, cell.split, place, tell)

    def run_share(self, cell: Cell, scorer: Remembering, share: float) -> pl.DataFrame:
        """Category, metric and value on a share of the images; published when it is all of them.

        A cell that is in the store is read, not scored again.
        """
        if self.place.store.done(cell):
            return read_part(self.place.store.part(cell)).select("category", "metric", "value")
        started = datetime.now(UTC)
        if cell.purpose == "reveal":
            self.place.store.audit([cell])
        reset_peak_memory()
        before = scorer.count
        try:
            with _seal(cell):
                scored = self._score(cell, scorer, share)
        except SealedError:
            append(self.place.store.out / "audit.jsonl", purpose="refused", cell=cell.cell_id)
            raise
        if share == 1:
            publish(cell, self.place, scored, self.fit, self.read.seconds, started)
        self.place.store.note(
            "setting" if share == 1 else "share of a setting",
            cell,
            purpose=cell.purpose,
            passes=self.method.passes(cell.knobs) * (scorer.count - before),
        )
        return pl.DataFrame(
            [
                {"category": category, "metric": metric, "value": measured.value}
                for category, of_category in scored.metrics.items()
                for metric, measured in of_category.items()
            ]
        )

    def scorer(self, cell: Cell) -> Remembering:
        """What scores the images with the knobs of a cell."""
        return Remembering(self.method, [s.key for s in self.samples], self.neighbours(cell))

    def _score(self, cell: Cell, scorer: Remembering, share: float) -> Scored:
        chosen = first_share(self.samples, share)
        samples = [self.samples[i] for i in chosen]
        whole = self.read.batches

        def fetch(indices: Sequence[int]) -> Tensor:
            return whole.fetch([chosen[i] for i in indices])

        part = Read(Batches([s.key for s in samples], fetch, seed=cell.seed), self.read.seconds)
        return score(scorer, cell, self.benchmark, samples, part, self.tell)

    def neighbours(self, cell: Cell) -> Neighbours | None:
        """What the bank's search finds for all samples; stored beside the model, once a coreset."""
        if not getattr(cell.knobs, "k", 0):
            return None
        folder = self.place.store.searches(cell, self.most_k)
        if not folder.is_dir():
            found = self._search(cell)
            if found is None:
                return None
            _write(folder, found)
            self.place.store.note("search", cell, coreset=cell.knobs.coreset, k=self.most_k)
        return Neighbours(
            *(
                torch.from_numpy(np.load(folder / f"{name}.npy", mmap_mode="c"))
                for name in Neighbours._fields
            )
        )

    def _search(self, cell: Cell) -> Neighbours | None:
        parts = []
        for start in range(0, len(self.samples), SCORE_BATCH):
            inputs = self.read.batches.fetch(
                range(start, min(start + SCORE_BATCH, len(self.samples)))
            )
            found = self.method.neighbours(inputs, self.most_k, cell.knobs.coreset)
            if found is None:
                return None
            parts.append(found)
            told = Progress(stage="neighbours", step=start + len(inputs), steps=len(self.samples))
            self.tell(told)
        return Neighbours(*(torch.cat(part) for part in zip(*parts, strict=True)))


class Remembering:
    """A method as `execute.score` sees it, which knows neighbours and what it scored before."""

    def __init__(self, method: Method, keys: Sequence[str], found: Neighbours | None) -> None:
        self.method = method
        self.place_of = {key: place for place, key in enumerate(keys)}
        self.found = found
        self._scored: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def count(self) -> int:
        """How many images it scored."""
        return len(self._scored)

    def eval(self) -> Any:
        """As of the method."""
        return self.method.eval()

    def inputs(self, config: Any) -> Features | Pixels:
        """As of the method."""
        return self.method.inputs(config)

    def score(self, inputs: Tensor, keys: Sequence[str], knobs: Any) -> Scores:
        """As of the method; an image that was scored on a smaller share is not scored again."""
        new = [i for i, key in enumerate(keys) if key not in self._scored]
        if new:
            places = [self.place_of[keys[i]] for i in new]
            found = self.found and Neighbours(
                *(part[places].to(self.method.device) for part in self.found)
            )
            scored = self.method.score(inputs[new], [keys[i] for i in new], knobs, found)
            for i, map_HW, image in zip(new, scored.maps, scored.images, strict=True):
                self._scored[keys[i]] = map_HW.cpu(), image.cpu()
        both = [self._scored[key] for key in keys]
        return Scores(torch.stack([b[0] for b in both]), torch.stack([b[1] for b in both]))


def first_share(samples: Sequence[Sample], share: float) -> list[int]:
    """Indices of a share of the samples, of each category and label alike; more hold the fewer.

    By a hash of the name, which a pseudo-anomalous image has from the normal one that it shows.
    """
    groups: dict[tuple[str, bool], list[int]] = {}
    for index, sample in enumerate(samples):
        groups.setdefault((sample.category, sample.anomalous), []).append(index)

    def order(index: int) -> bytes:
        return hashlib.sha256(PurePath(samples[index].key).name.encode()).digest()

    return sorted(
        index
        for members in groups.values()
        for index in sorted(members, key=order)[: math.ceil(share * len(members))]
    )


def _seal(cell: Cell) -> AbstractContextManager[None]:
    return nullcontext() if cell.purpose == "reveal" else sealed()


def _write(folder: Path, found: Neighbours) -> None:
    """Whole or not at all; of two that find the same, the first stays."""
    folder.parent.mkdir(exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".writing-"))
    try:
        for name, part in found._asdict().items():
            np.save(scratch / f"{name}.npy", part.cpu().numpy())
        scratch.replace(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
