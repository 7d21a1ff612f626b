"""Many settings of one learned model, scored side by side: what each trial of a sweep does.

Features, model and neighbours are made once; a setting costs its own scoring and nothing else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from benchmarks.base import Sample, SealedError, sealed
from harness.cell import Cell
from harness.execute import SCORE_BATCH, Piece, Scored, Scorer, learn, publish, score
from harness.memory import reset_peak_memory
from harness.place import Place, Tell
from harness.store.journal import append
from harness.store.store import new_folder
from methods.base import Neighbours, Progress, quiet
from results.table import read_part

Shares = tuple[float, ...]


class Shared(NamedTuple):
    """What several trials share: the training of a cell, and the search in its bank for the most
    neighbours that any of them wants."""

    cell: Cell
    most_k: int


def train(item: Shared, place: Place, tell: Tell) -> None:
    """Learn before the trials start, so that none of them does it twice."""
    with sealed():
        learn(item.cell, item.cell.data.open_kept(), place, tell)


def find_neighbours(item: Shared, place: Place, tell: Tell) -> None:
    """Search before the trials start."""
    Bench(item.cell, place, item.most_k, tell).neighbours(item.cell)


class Bench:
    """A learned model beside what its settings are scored on, ready for many of them.

    `most_k` is the largest k of the sweep: one search with it serves every k. The test split is
    sealed, unless the cell reveals it.
    """

    def __init__(self, cell: Cell, place: Place, most_k: int, tell: Tell = quiet) -> None:
        self.place, self.most_k, self.tell = place, most_k, tell
        with sealed():
            method, self.fit = learn(cell, cell.data.open_kept(), place, tell)
        if cell.purpose == "reveal":
            place.store.audit([cell])
        with _seal(cell):
            self.scorer = Scorer(cell, method, place, tell)

    def run_share(self, cell: Cell, setting: Setting, share: float) -> pl.DataFrame:
        """Category, metric and value on a share of the images; published when it is all of them.

        A cell that is in the store is read, not scored again.
        """
        if self.place.store.done(cell):
            return read_part(self.place.store.part(cell)).select("category", "metric", "value")
        started = datetime.now(UTC)
        if cell.purpose == "reveal":
            self.place.store.audit([cell])
        reset_peak_memory()
        before = setting.count
        try:
            with _seal(cell):
                scored = self._score(cell, setting, share)
        except SealedError:
            append(self.place.store.out / "audit.jsonl", purpose="refused", cell=cell.cell_id)
            raise
        if share == 1:
            publish(cell, self.place, scored, self.fit, self.scorer.read.seconds, started)
        self.place.store.note(
            "setting" if share == 1 else "share of a setting",
            cell,
            purpose=cell.purpose,
            passes=self.scorer.method.passes(cell.knobs) * (setting.count - before),
        )
        return pl.DataFrame(
            [
                {"category": category, "metric": metric, "value": measured.value}
                for category, of_category in scored.metrics.items()
                for metric, measured in of_category.items()
            ]
        )

    def setting(self, cell: Cell, growing: bool) -> Setting:
        """What scores the images with the knobs of a cell, on all of them or on growing shares."""
        return Setting(self.scorer, self.neighbours(cell), growing)

    def _score(self, cell: Cell, setting: Setting, share: float) -> Scored:
        chosen = first_share(self.scorer.samples, share)
        samples = [self.scorer.samples[i] for i in chosen]

        def spread(pieces: Sequence[range], knobs: Any) -> Iterator[Piece]:
            return (setting.piece([chosen[i] for i in piece], knobs) for piece in pieces)

        return score(cell, self.scorer.benchmark, samples, spread, self.place, self.tell)

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
        images = len(self.scorer.samples)
        for start in range(0, images, SCORE_BATCH):
            inputs = self.scorer.read.batches.fetch(range(start, min(start + SCORE_BATCH, images)))
            found = self.scorer.method.neighbours(inputs, self.most_k, cell.knobs.coreset)
            if found is None:
                return None
            parts.append(found)
            self.tell(Progress(stage="neighbours", step=start + len(inputs), steps=images))
        return Neighbours(*(torch.cat(part) for part in zip(*parts, strict=True)))


class Setting:
    """Scores images of a bench with the neighbours that are known of them.

    Where shares are `growing`, what was scored on a smaller one is kept for the larger.
    """

    def __init__(self, scorer: Scorer, found: Neighbours | None, growing: bool) -> None:
        self.scorer, self.found, self.growing = scorer, found, growing
        self.count = 0
        self._scored: dict[int, Piece] = {}

    def piece(self, indices: Sequence[int], knobs: Any) -> Piece:
        """Scores of the images with these indices."""
        new = [i for i in indices if i not in self._scored]
        self.count += len(new)
        if not self.growing:
            return self._score(new, knobs)
        if new:
            scored = self._score(new, knobs)
            for place, i in enumerate(new):
                one = slice(place, place + 1)
                self._scored[i] = Piece(scored.maps[one], scored.images[one], scored.peak)
        maps, images, peaks = zip(*(self._scored[i] for i in indices), strict=True)
        return Piece(np.concatenate(maps), np.concatenate(images), max(peaks))

    def _score(self, indices: Sequence[int], knobs: Any) -> Piece:
        device = self.scorer.method.device
        found = self.found and Neighbours(*(part[indices].to(device) for part in self.found))
        return self.scorer.piece(indices, knobs, found)


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
    with new_folder(folder) as scratch:
        for name, part in found._asdict().items():
            np.save(scratch / f"{name}.npy", part.cpu().numpy())
