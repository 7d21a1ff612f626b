"""The main path: images, features, `fit`, `score`, metrics, rows, Parquet. Read it top to bottom.

`run` does a plan, through whatever `map` it is given (Ray's in `harness/cluster.py`, or a plain
loop); `run_job` does one trained model and all cells that share it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.base import Benchmark, Sample, sealed
from harness.cell import Cell, Split
from harness.features import FeatureTask, as_input, feature_task, missing_features, open_split
from harness.measure import Metrics, measure
from harness.memory import peak_memory, reset_peak_memory
from harness.place import Place, Tell
from harness.registry import load
from harness.rows import FIT_FACTS, failure_row, finished_rows, score_row
from harness.store.checkpoints import Checkpoints
from harness.store.store import Row
from methods.base import Batches, Keeper, Method, Neighbours, Progress, quiet
from methods.parts.backbone import WeightsMissing
from methods.parts.dist import rank, world_size
from results.evidence import Evidence

SCORE_BATCH = 32
Outcome = tuple[Any, BaseException | None]
Map = Callable[[Callable[..., None], Sequence[Any], Place], Iterable[Outcome]]


def in_this_process(
    function: Callable[..., None], items: Sequence[Any], place: Place
) -> Iterator[Outcome]:
    """The simplest map: one after the other. What fails is an outcome, the others go on."""
    for item in items:
        try:
            function(item, place, quiet)
            yield item, None
        except Exception as error:
            yield item, error


def run(
    jobs: Sequence[list[Cell]], place: Place, mapped: Map = in_this_process
) -> Iterator[tuple[list[Cell], BaseException | None]]:
    """Do a plan's jobs, frozen features first; yields each job, with its error if it failed.

    A failed job leaves a failure row for each of its cells.
    """
    cells = [cell for job in jobs for cell in job]
    for _ in mapped(make_features, missing_features(cells, place.cache), place):
        pass  # a job whose features failed tries them again and says why in its own rows
    for job, error in mapped(run_job, jobs, place):
        if error is not None:
            for cell in job:
                place.store.publish_failure(cell, failure_row(cell, place, error))
        yield job, error


def make_features(task: FeatureTask, place: Place, tell: Tell) -> None:
    """One task of the plan's first part."""
    place.cache.make(task, place.device, tell)


def run_job(cells: Sequence[Cell], place: Place, tell: Tell, spread: Spread | None = None) -> None:
    """Cells that share a fit, from images to published rows.

    The test split stays sealed until the model is learned; only then is it opened for scoring,
    here, or on the workers that `spread` maps over.
    """
    first = cells[0]
    with sealed():
        method, fit = learn(first, first.data.open_kept(), place, tell)
    place.store.audit(cells)
    scorer = Scorer(first, method, place, tell)
    for cell in cells:
        started = datetime.now(UTC)
        reset_peak_memory()
        pieces = spread or scorer.spread
        scored = score(cell, scorer.benchmark, scorer.samples, pieces, place, tell)
        publish(cell, place, scored, fit, scorer.read.seconds, started)


class Watching(Protocol):
    """A look at a training while it goes on; `seconds` is what the looking took."""

    seconds: float

    def around(self, method: Method, keeper: Keeper, losses: list[float]) -> Keeper: ...


def learn(
    cell: Cell, benchmark: Benchmark, place: Place, tell: Tell, watch: Watching | None = None
) -> tuple[Method, dict[str, Any]]:
    """The cell's method, and the facts of its fit; loaded if it was learned before.

    The same code alone and on each of the workers that fit one model together. With `watch` it is
    learned again, to be watched; the stored model stays.
    """
    method: Method = load("methods", cell.method)(cell.config, seed=cell.seed).to(place.device)
    stored = place.store.load_model(cell, method)
    if stored is not None and watch is None:
        return method, {name: stored[name] for name in FIT_FACTS}
    samples = benchmark.train(cell.data.categories)
    train = batches(cell, samples, "train", place, tell)
    keeper = Checkpoints(place.store.training(cell), method, place.checkpoint_every)
    around: Keeper = keeper if watch is None else watch.around(method, keeper, keeper.losses)

    def told(progress: Progress) -> None:
        if progress.loss is not None:
            keeper.losses.append(progress.loss)
        tell(progress)

    reset_peak_memory()
    started = time.perf_counter()
    method.fit(train.batches, on_progress=told, keeper=around)
    seconds = keeper.seconds + time.perf_counter() - started - (watch.seconds if watch else 0)
    pace = None if watch else keeper.pace(seconds)  # the looks lie between the epochs
    facts = {
        "fit_seconds": seconds,
        "train_images": len(samples),
        "train_images_per_second": pace and len(samples) * pace,
        "parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "world_size": world_size(),
        "restarts": keeper.restarts,
        "peak_memory_bytes": peak_memory(),
    }
    if rank() == 0:
        place.store.save_model(cell, method, {**facts, "losses": keeper.losses})
        place.store.note("training", cell)
        keeper.remove()
    return method, facts


class Read(NamedTuple):
    """What a method reads of some samples, and the seconds that making it cost before."""

    batches: Batches
    seconds: float


def batches(
    cell: Cell,
    samples: Sequence[Sample],
    split: Split,
    place: Place,
    tell: Tell,
) -> Read:
    """Frozen features from the cache, or the pixels of a method that wants them."""
    task = feature_task(cell, split)
    if task is None:
        raise WeightsMissing(f"{cell.label}: the weights of its backbone are not here")
    place.cache.make(task, place.device, tell)
    rows, noted = place.cache.open(task)

    def fetch(indices: Sequence[int]) -> Tensor:
        return as_input(rows[np.asarray(indices)])

    keys = [sample.key for sample in samples]
    return Read(Batches(keys, fetch, seed=cell.seed), noted["seconds"])


def publish(
    cell: Cell,
    place: Place,
    scored: Scored,
    fit: dict[str, Any],
    feature_seconds: float,
    started: datetime,
) -> None:
    """A scored cell as rows; `fit` are the facts of `learn`."""
    images = len(scored.images)
    facts = {
        **fit,
        "test_images": images,
        "score_seconds": scored.seconds,
        "images_per_second": images / (scored.seconds + feature_seconds),
        "peak_memory_bytes": max(fit["peak_memory_bytes"], scored.peak, peak_memory()),
        "started_at": started,
    }
    rows = finished_rows(cell, place, facts, scored.metrics)
    place.store.publish(cell, rows, scored.images, scored.evidence, replace=place.overwrite)


class Piece(NamedTuple):
    """What scoring found for some images, and the peak memory of the process that did it."""

    maps: NDArray[np.float32]
    images: NDArray[np.float32]
    peak: int


Spread = Callable[[Sequence[range], Any], Iterable[Piece]]
"""Scores each piece of the images with these knobs, and gives the pieces in their order."""


class Scorer:
    """Images and a trained model that scores them; the same here and on every worker."""

    def __init__(self, cell: Cell, method: Method, place: Place, tell: Tell) -> None:
        self.method = method.eval()
        self.benchmark, self.samples = open_split(cell.data, cell.split)
        self.read = batches(cell, self.samples, cell.split, place, tell)

    def piece(self, indices: Sequence[int], knobs: Any, found: Neighbours | None = None) -> Piece:
        """Scores of the images with these indices; `found` are their neighbours, if known."""
        keys = [self.samples[i].key for i in indices]
        scores = self.method.score(self.read.batches.fetch(indices), keys, knobs, found)
        return Piece(scores.maps.cpu().numpy(), scores.images.cpu().numpy(), peak_memory())

    def spread(self, pieces: Sequence[range], knobs: Any) -> Iterator[Piece]:
        """The simplest `Spread`: one after the other, in this process."""
        return (self.piece(indices, knobs) for indices in pieces)


class Scored(NamedTuple):
    """A cell's results: metrics by category, a row for each image, curves and pictures, and costs.

    `seconds` is the wall time from the first piece asked for to the last one at hand, whatever
    the number of workers: reading features, scoring, sending, but neither metrics nor start-up.
    """

    metrics: Metrics
    images: list[Row]
    evidence: Evidence
    seconds: float
    peak: int


def score(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    spread: Spread,
    place: Place,
    tell: Tell,
) -> Scored:
    """Score piece by piece, then measure category by category.

    The pieces do not depend on the number of workers, so neither does any score. Maps wait on disk
    in a file without a name, so that memory never holds more than one category of them.
    """
    scores, peak = np.empty(len(samples)), 0
    pieces = [
        range(start, min(start + SCORE_BATCH, len(samples)))
        for start in range(0, len(samples), SCORE_BATCH)
    ]
    with tempfile.TemporaryFile(dir=place.store.out) as file:
        started = time.perf_counter()
        for piece, found in zip(pieces, spread(pieces, cell.knobs), strict=True):
            scores[piece.start : piece.stop] = found.images
            file.write(found.maps.astype(np.float32).tobytes())
            peak = max(peak, found.peak)
            tell(Progress(stage="score", step=piece.stop, steps=len(samples)))
        seconds = time.perf_counter() - started
        file.flush()
        maps = np.memmap(file, np.float32, "r").reshape(len(samples), *found.maps.shape[1:])
        metrics, labels, evidence = measure(cell, benchmark, samples, scores, maps)
    images = [score_row(cell, *of) for of in zip(samples, labels, scores, strict=True)]
    return Scored(metrics, images, evidence, seconds, peak)
