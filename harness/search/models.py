"""Work that the settings of a study share, done once: trainings, searches in banks, loading."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import torch

from benchmarks.base import SealedError, sealed
from harness.plan.cell import Cell
from harness.plan.registry import load
from harness.search.space import reachable
from harness.search.study import Study
from harness.store.checkpoints import read_state, save_state
from harness.store.store import Store
from harness.work.cost import fit_flops, memory_of
from harness.work.execute import Scorer, learn, publish, score, score_ranges
from harness.work.memory import reset_peak_memory
from harness.work.place import Piece, Place
from harness.work.task import Task
from methods.base import BankSearch, Neighbours, SearchesBank
from methods.parts.backbone import file_sha256
from methods.parts.progress import OnProgress, Progress, quiet
from results.files import record_in

TENSORS, FACTS = "neighbours.safetensors", "neighbours.json"
"""The neighbours that a search found, and their hash."""


def training_tasks(study: Study, place: Place) -> list[Task]:
    """The trainings, one a seed, whose model the store lacks."""
    on_gpu = bool(place.resources.gpus)
    return [
        Task(
            cell.label,
            partial(_train, cell),
            fits=cell,
            memory=memory_of(cell, on_gpu=on_gpu),
            work={"fit": fit_flops(cell)},
        )
        for cell in study.every
        if not place.store.trained(cell)
    ]


def bank_search_tasks(study: Study, store: Store) -> list[Task]:
    """The searches in banks that settings of the study share and the store lacks."""
    shared = {
        (cell.fit_id, search): (cell, search)
        for knobs in reachable(study.stages, study.first.knobs)
        for cell in study.every
        if (search := study.bank_search(knobs))
    }
    return [
        Task(f"{cell.label} coreset={search.coreset}", partial(_search_bank, cell, search))
        for cell, search in shared.values()
        if not store.folder.exists(f"{store.neighbours(cell, search)}/{FACTS}")
    ]


def _train(cell: Cell, place: Place, tell: OnProgress) -> None:
    with sealed():
        learn(cell, cell.data.open_kept(), place, tell)


def _search_bank(cell: Cell, search: BankSearch, place: Place, tell: OnProgress) -> None:
    LoadedModel(cell, place, tell).neighbours(search)


class LoadedModel:
    """A learned model beside what its settings are scored on, ready for many of them.

    The test split is sealed, unless the cell reveals it.
    """

    def __init__(self, cell: Cell, place: Place, tell: OnProgress = quiet) -> None:
        self.cell, self.place, self.tell = cell, place, tell
        with sealed():
            method, self.fit = learn(cell, cell.data.open_kept(), place, tell)
        if not cell.role.sealed:
            place.store.audit([cell])
        with _seal(cell):
            self.scorer = Scorer(cell, method, place, tell)

    def score_and_publish(self, cell: Cell, search: BankSearch | None) -> None:
        """Score all images with the cell's knobs, which this search serves, and publish the rows.

        A cell that is in the store is not scored again.
        """
        store, samples = self.place.store, self.scorer.samples
        if store.done(cell):
            return
        started = datetime.now(UTC)
        known = search and self.neighbours(search)
        if not cell.role.sealed:
            store.audit([cell])

        def spread(ranges: Sequence[range], knobs: Any) -> Iterator[Piece]:
            return (self.piece(indices, knobs, known) for indices in ranges)

        reset_peak_memory()
        try:
            with _seal(cell):
                scored = score(cell, self.scorer.benchmark, samples, spread, self.place, self.tell)
        except SealedError:
            store.log("audit.jsonl", {"purpose": "refused", "cell": cell.cell_id})
            raise
        passes = load("methods", cell.method).passes(cell.knobs) * len(samples)
        # First, as a node that dies in between would leave a setting that nobody scored.
        store.note("setting", cell, purpose=cell.purpose, passes=passes)
        publish(cell, self.place, scored, self.fit, self.scorer.inputs.seconds, started)

    def piece(self, indices: Sequence[int], knobs: Any, known: Neighbours | None) -> Piece:
        """Scores of the images with these indices; `known` are the neighbours of all images."""
        if known is None:
            return self.scorer.piece(indices, knobs)
        device = self.scorer.method.device
        chosen = Neighbours(*(tensor[list(indices)].to(device) for tensor in known))
        return self.scorer.piece(indices, knobs, chosen)

    def neighbours(self, search: BankSearch) -> Neighbours:
        """The neighbours of all samples that the search finds; stored beside the model."""
        store = self.place.store
        name = store.neighbours(self.cell, search)
        folder = store.folder.local(name)
        with suppress(OSError, ValueError):  # not there, or not what was written
            sha256 = record_in((folder / FACTS).read_bytes(), "sha256")["sha256"]
            return Neighbours(**read_state(folder / TENSORS, sha256))
        store.folder.remove(name)  # what a crash left of it
        found = self._search(search)
        with store.folder.scratch() as scratch:
            save_state({k: v.cpu() for k, v in found._asdict().items()}, scratch / TENSORS)
            facts = {"sha256": file_sha256(scratch / TENSORS)}
            (scratch / FACTS).write_text(json.dumps(facts))
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


def score_setting(study: Study, models: Sequence[LoadedModel], knobs: Any) -> None:
    """Score one setting with the models of all cells of the study, and publish its rows."""
    search = study.bank_search(knobs)
    for model, cell in zip(models, study.at(knobs), strict=True):
        model.score_and_publish(cell, search)


def _seal(cell: Cell) -> AbstractContextManager[None]:
    return sealed() if cell.role.sealed else nullcontext()
