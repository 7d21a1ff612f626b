"""Many settings of one learned model, scored side by side: what each trial of a sweep does.

Features, model and neighbours are made once; a setting costs its own scoring and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import polars as pl
import torch

from benchmarks.base import Sample, SealedError, sealed
from harness.cell import Cell
from harness.execute import Scored, Scorer, learn, publish, score, score_ranges
from harness.memory import reset_peak_memory
from harness.place import Piece, Place
from harness.registry import load
from methods.base import BankSearch, Neighbours, OnProgress, Progress, SearchesBank, quiet
from methods.parts.backbone import file_sha256
from results.files import record_in
from results.table import read_part

Shares = tuple[float, ...]


def train(cell: Cell, place: Place, tell: OnProgress) -> None:
    """The training that trials share, before they start, so that none does it twice."""
    with sealed():
        learn(cell, cell.data.open_kept(), place, tell)


def search_bank(cell: Cell, search: BankSearch, place: Place, tell: OnProgress) -> None:
    """A search in the bank that trials share, before they start."""
    LoadedModel(cell, place, tell).neighbours(search)


SUMS = "sha256.json"
"""Beside what a search found: the hashes of its files."""


class LoadedModel:
    """A learned model beside what its settings are scored on, ready for many of them.

    The test split is sealed, unless the cell reveals it.
    """

    def __init__(self, cell: Cell, place: Place, tell: OnProgress = quiet) -> None:
        self.cell, self.place, self.tell = cell, place, tell
        with sealed():
            method, self.fit = learn(cell, cell.data.open_kept(), place, tell)
        if cell.purpose == "reveal":
            place.store.audit([cell])
        with _seal(cell):
            self.scorer = Scorer(cell, method, place, tell)

    def scorer_of(self, search: BankSearch | None, growing: bool = False) -> SettingScorer:
        """Scores images with a setting that this search serves; see SettingScorer."""
        return SettingScorer(self.scorer, search and self.neighbours(search), growing)

    def run_share(self, cell: Cell, scorer: SettingScorer, share: float) -> pl.DataFrame:
        """Category, metric and value on a share of the images; published when it is all of them.

        A cell that is in the store is read, not scored again.
        """
        store = self.place.store
        if store.done(cell):
            return read_part(store.part(cell)).select("category", "metric", "value")
        started = datetime.now(UTC)
        if cell.purpose == "reveal":
            store.audit([cell])
        reset_peak_memory()
        before = scorer.count
        try:
            with _seal(cell):
                scored = self._score(cell, scorer, share)
        except SealedError:
            store.log("audit.jsonl", {"purpose": "refused", "cell": cell.cell_id})
            raise
        passes = load("methods", cell.method).passes(cell.knobs)
        # First, as a node that dies in between would leave a setting that nobody scored.
        store.note(
            "setting" if share == 1 else "share of a setting",
            cell,
            purpose=cell.purpose,
            passes=passes * (scorer.count - before),
        )
        if share == 1:
            publish(cell, self.place, scored, self.fit, self.scorer.inputs.seconds, started)
        return pl.DataFrame(
            [
                {"category": category, "metric": metric, "value": measured.value}
                for category, metrics in scored.metrics.items()
                for metric, measured in metrics.items()
            ]
        )

    def _score(self, cell: Cell, scorer: SettingScorer, share: float) -> Scored:
        chosen = first_share(self.scorer.samples, share)
        samples = [self.scorer.samples[i] for i in chosen]

        def spread(ranges: Sequence[range], knobs: Any) -> Iterator[Piece]:
            return (scorer.piece([chosen[i] for i in indices], knobs) for indices in ranges)

        return score(cell, self.scorer.benchmark, samples, spread, self.place, self.tell)

    def neighbours(self, search: BankSearch) -> Neighbours:
        """What the search finds for all samples; stored beside the model."""
        store = self.place.store
        name = store.neighbours(self.cell, search)
        if (known := _read(store.folder.local(name))) is not None:
            return known
        store.folder.remove(name)  # what a crash left of it
        found = self._search(search)
        with store.folder.scratch() as scratch:
            _write(scratch, found)
            store.folder.put(name, scratch)
        store.note("search", self.cell, **search._asdict())
        return found

    def _search(self, search: BankSearch) -> Neighbours:
        method, images = cast(SearchesBank, self.scorer.method), len(self.scorer.samples)
        parts = []
        for indices in score_ranges(images):
            values = self.scorer.inputs.batches.fetch(indices)
            parts.append(method.neighbours(values, search))
            self.tell(Progress(stage="neighbours", step=indices.stop, steps=images))
        return Neighbours(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


class SettingScorer:
    """Scores images of a loaded model with a setting, and the neighbours that serve it.

    Where shares are `growing`, what was scored on a smaller one is kept for the larger.
    """

    def __init__(self, scorer: Scorer, neighbours: Neighbours | None, growing: bool) -> None:
        self.scorer, self.neighbours, self.growing = scorer, neighbours, growing
        self.count = 0
        """Images scored."""
        self._scored: dict[int, Piece] = {}

    def piece(self, indices: Sequence[int], knobs: Any) -> Piece:
        """Scores of the images with these indices."""
        new = [i for i in indices if i not in self._scored]
        self.count += len(new)
        if not self.growing:
            return self._score(new, knobs)
        if new:
            maps_NHW, images_N, peak = self._score(new, knobs)
            for row, i in enumerate(new):
                self._scored[i] = Piece(maps_NHW[row : row + 1], images_N[row : row + 1], peak)
        maps, images, peaks = zip(*(self._scored[i] for i in indices), strict=True)
        return Piece(np.concatenate(maps), np.concatenate(images), max(peaks))

    def _score(self, indices: Sequence[int], knobs: Any) -> Piece:
        if self.neighbours is None:
            return self.scorer.piece(indices, knobs)
        device = self.scorer.method.device
        chosen = Neighbours(*(tensor[indices].to(device) for tensor in self.neighbours))
        return self.scorer.piece(indices, knobs, chosen)


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


def _write(folder: Path, neighbours: Neighbours) -> None:
    sums = {}
    for name, tensor in neighbours._asdict().items():
        np.save(folder / f"{name}.npy", tensor.cpu().numpy())
        sums[name] = file_sha256(folder / f"{name}.npy")
    (folder / SUMS).write_text(json.dumps(sums))


def _read(folder: Path) -> Neighbours | None:
    """What was found before; None without it, or where it is not what was written."""
    files = {name: folder / f"{name}.npy" for name in Neighbours._fields}
    try:
        sums = record_in((folder / SUMS).read_bytes())
        if any(file_sha256(file) != sums[name] for name, file in files.items()):
            return None
        arrays = [np.load(file, mmap_mode="c") for file in files.values()]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Neighbours(*map(torch.from_numpy, arrays))
