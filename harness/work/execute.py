"""The main path: images, features, `fit`, `score`, metrics, rows, Parquet. Read it top to bottom.

`run` does a plan's jobs with the driver that it is given, on Ray (`harness/screen/driver.py`) or a
plain loop. `run_job` does one trained model and all cells that share it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
from torch import Tensor

from benchmarks.base import Benchmark, Sample, sealed
from harness.plan.cell import Cell, Split
from harness.plan.registry import load
from harness.store.checkpoints import Checkpoints
from harness.store.store import FitFacts, Row
from harness.work.features import as_input, feature_set, formats, open_split
from harness.work.jobs import planned
from harness.work.measure import Metrics, measure
from harness.work.memory import peak_memory, reset_peak_memory
from harness.work.place import Piece, Place, Spread
from harness.work.rows import failure_row, finished_rows, score_row
from harness.work.task import Driver, in_this_process
from methods.base import Method, Neighbours, SearchesBank
from methods.parts.backbone import WeightsMissing
from methods.parts.batches import Batches
from methods.parts.dist import rank, world_size
from methods.parts.progress import OnProgress, Progress
from results.calibration import alarm_metrics
from results.evidence import Evidence
from results.files import naming
from results.identity import POOLED
from results.metrics import IMAGE_METRICS, METRICS, Measured

SCORE_BATCH = 32
UNTESTED = "there are normal images alone; put defective ones into test/DEFECT to measure"
AWAITED = Progress(stage="waiting for another command that does it", step=0, steps=1)


def run(
    cells: Sequence[Cell], place: Place, drive: Driver = in_this_process
) -> Iterator[tuple[list[Cell], BaseException | None]]:
    """Do a plan's cells; yields those of each job, with its error if any.

    A failed job leaves a failure row for each of its cells.
    """
    tasks, groups = planned(cells, place, run_job)
    for number, error in drive("cells", tasks, place):
        group = groups.get(number)
        if group is None:
            continue  # a job whose features failed tries them again and says why in its own rows
        missing = [cell for cell in group if not place.store.done(cell)]
        if error is None and missing:
            error = RuntimeError(
                f"{len(missing)} results did not arrive in {place.store.out}, though the process "
                "that made them ended well; does it see another folder there?"
            )
        if error is not None:
            for cell in group:
                place.store.publish_failure(cell, failure_row(cell, place, error), error)
        yield group, error


def run_job(cells: Sequence[Cell], place: Place, tell: OnProgress) -> None:
    """Cells that share a fit, from images to published rows.

    The test split stays sealed until the model is learned; only then is it opened for scoring,
    here, or on the workers that the place names. Of two commands that want the same cells one
    waits, and finds them done.
    """
    first = cells[0]
    with place.store.lock(f"{first.fit_id}-cells", partial(tell, AWAITED)):
        todo = [cell for cell in cells if place.overwrite or not place.store.done(cell)]
        if todo:
            _run_cells(todo, place, tell)


def _run_cells(cells: Sequence[Cell], place: Place, tell: OnProgress) -> None:
    first = cells[0]
    with sealed():
        method, fit = learn(first, first.data.open_kept(), place, tell)
    held = calibrate(cells, method, place, tell)
    if not first.data.test_images:
        for cell in cells:
            scored = unmeasured(cell).with_alarms(held.get(cell.cell_id, []))
            publish(cell, place, scored, fit, 0.0, datetime.now(UTC))
        return
    place.store.audit(cells)
    scorer = Scorer(first, method, place, tell)
    here = nullcontext(scorer.spread)
    with place.scorers(first, place) if place.scorers else here as spread:
        for cell in cells:
            started = datetime.now(UTC)
            reset_peak_memory()
            scored = score(cell, scorer.benchmark, scorer.samples, spread, place, tell)
            scored = scored.with_alarms(held.get(cell.cell_id, []))
            publish(cell, place, scored, fit, scorer.inputs.seconds, started)


def learn(
    cell: Cell, benchmark: Benchmark, place: Place, tell: OnProgress
) -> tuple[Method, FitFacts]:
    """The cell's method, and the facts of its fit; loaded if it was learned before.

    The same code alone and on each of the workers that fit one model together.
    """
    alone = world_size() == 1  # else the driver has the lock
    lock = place.store.lock(cell.fit_id, partial(tell, AWAITED)) if alone else nullcontext()
    with lock:
        return _learned(cell, benchmark, place, tell)


def _learned(
    cell: Cell, benchmark: Benchmark, place: Place, tell: OnProgress
) -> tuple[Method, FitFacts]:
    method = built(cell, place)

    def say(line: str) -> None:
        tell(Progress(stage="load", step=0, steps=1, note=line))

    stored = place.store.load_model(cell, method, say)
    if stored is not None:
        return method, stored
    samples = benchmark.train(cell.data.categories)
    train = inputs(cell, samples, "train", place, tell)
    store, every = place.store, place.resources.checkpoint_every
    keeper = Checkpoints(store.folder, store.training(cell), method, every)
    if keeper.epochs:
        say(f"goes on at epoch {keeper.epochs}")

    def noting(progress: Progress) -> None:
        keeper.note(progress)
        tell(progress)

    reset_peak_memory()
    started = time.perf_counter()
    method.fit(train.batches, on_progress=noting, keeper=keeper)
    seconds = keeper.seconds + time.perf_counter() - started
    pace = keeper.pace(seconds)
    facts = FitFacts(
        fit_seconds=seconds,
        train_images=len(samples),
        train_images_per_second=pace and len(samples) * pace,
        parameters=sum(p.numel() for p in method.parameters() if p.requires_grad),
        world_size=world_size(),
        restarts=keeper.restarts,
        peak_memory_bytes=peak_memory(),
        precision=formats(cell, place.device),
    )
    if rank() == 0:
        place.store.save_model(cell, method, facts, keeper.losses, keeper.yardsticks)
        place.store.note("training", cell)
        keeper.remove()
    return method, facts


def built(cell: Cell, place: Place) -> Method:
    """The cell's method, not learned yet."""
    method: Method = load("methods", cell.method).method(cell.config, seed=cell.seed)
    return method.to(place.device)


class Inputs(NamedTuple):
    """A method's inputs of some samples, and the seconds that making them cost before."""

    batches: Batches
    seconds: float


def inputs(
    cell: Cell, samples: Sequence[Sample], split: Split, place: Place, tell: OnProgress
) -> Inputs:
    """Frozen features from the cache, or the pixels of a method that wants them."""
    features = feature_set(cell, split)
    if features is None:
        raise WeightsMissing(f"{cell.label}: the weights of its backbone are not here")
    rows, facts = place.cache.read(features, place.device, tell)

    def fetch(indices: Sequence[int]) -> Tensor:
        return as_input(rows[np.asarray(indices)])

    return Inputs(Batches(len(samples), fetch, seed=cell.seed), facts["seconds"])


class Scorer:
    """Images and a trained model that scores them; the same here and on every worker."""

    def __init__(
        self,
        cell: Cell,
        method: Method,
        place: Place,
        tell: OnProgress,
        split: Split | None = None,
    ) -> None:
        self.method = method.eval()
        split = split or cell.role.split
        self.benchmark, self.samples = open_split(cell.data, split)
        self.inputs = inputs(cell, self.samples, split, place, tell)

    def piece(
        self, indices: Sequence[int], knobs: Any, neighbours: Neighbours | None = None
    ) -> Piece:
        """Scores of the images with these indices, with their neighbours if they are known."""
        values = self.inputs.batches.fetch(indices)
        if neighbours is None:
            scores = self.method.score(values, knobs)
        else:
            scores = cast(SearchesBank, self.method).score(values, knobs, neighbours)
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
    held: Sequence[Row] = ()
    """Rows of `results.calibration.SCHEMA`; none without held-out images."""

    def with_alarms(self, held: Sequence[Row]) -> Scored:
        """The same, with what thresholds made of held-out images are worth on the test split."""
        if not held:
            return self
        scores: dict[str, list[float]] = {}
        for row in held:
            scores.setdefault(row["category"], []).append(row["score"])
        metrics = {}
        for category, measured in self.metrics.items():
            rows = [r for r in self.images if category in (POOLED, r["category"])]
            labels_M = np.array([row["label"] for row in rows], dtype=bool)
            scores_M = np.array([row["score"] for row in rows], dtype=np.float64)
            metrics[category] = measured | alarm_metrics(scores, category, labels_M, scores_M)
        return self._replace(metrics=metrics, held=held)


def calibrate(
    cells: Sequence[Cell], method: Method, place: Place, tell: OnProgress
) -> dict[str, list[Row]]:
    """The scores of held-out normal images by cell, in rows of `results.calibration.SCHEMA`.

    The method learned nothing from them, and nothing here opens the test split.
    """
    wanted = [cell for cell in cells if cell.calibrated]
    if not wanted:
        return {}
    scorer = Scorer(wanted[0], method, place, tell, "calibration")
    found: dict[str, list[Row]] = {cell.cell_id: [] for cell in wanted}
    for cell in wanted:
        for indices in score_ranges(len(scorer.samples)):
            piece = scorer.piece(indices, cell.knobs)
            for index, score, map_SS in zip(indices, piece.images_N, piece.maps_NHW, strict=True):
                sample = scorer.samples[index]
                found[cell.cell_id].append(
                    {
                        "cell_id": cell.cell_id,
                        "key": sample.key,
                        "category": sample.category,
                        "score": float(score),
                        "peak": float(map_SS.max()),
                    }
                )
            tell(Progress(stage="calibrate", step=indices.stop, steps=len(scorer.samples)))
    return found


def score(
    cell: Cell,
    benchmark: Benchmark,
    samples: Sequence[Sample],
    spread: Spread,
    place: Place,
    tell: OnProgress,
) -> Scored:
    """Score piece by piece, then measure category by category.

    The pieces do not depend on the number of workers, so neither does any score. Maps wait on disk
    in a file without a name, so that memory never holds more than one category of them.
    """
    own_N, peak = np.empty(len(samples)), 0
    ranges = score_ranges(len(samples))
    with place.store.folder.scratch() as disk, tempfile.TemporaryFile(dir=disk) as file:
        started = time.perf_counter()
        for indices, piece in zip(ranges, spread(ranges, cell.knobs), strict=True):
            own_N[indices.start : indices.stop] = piece.images_N
            maps = piece.maps_NHW.astype(np.float32)
            with naming(place.store.out, maps[0].nbytes * len(samples)):
                file.write(maps.tobytes())
                file.flush()
            peak = max(peak, piece.peak)
            tell(Progress(stage="score", step=indices.stop, steps=len(samples)))
        seconds = time.perf_counter() - started
        shape = (len(samples), *piece.maps_NHW.shape[1:])
        maps_NHW = np.memmap(file, np.float32, "r").reshape(shape)
        measures = measure(cell, benchmark, samples, own_N, maps_NHW, tell)
    rows = zip(samples, measures.labels_N, measures.scores_N, strict=True)
    images = [score_row(cell, *row) for row in rows]
    return Scored(measures.metrics, images, measures.evidence, seconds, peak)


def unmeasured(cell: Cell) -> Scored:
    """Rows of a model that there are no test images for."""
    nothing = Measured(None, UNTESTED)
    metrics = {name: dict.fromkeys(METRICS, nothing) for name in cell.data.categories}
    metrics[POOLED] = dict.fromkeys(IMAGE_METRICS, nothing)
    return Scored(metrics, [], Evidence([], []), 0.0, 0)


def score_ranges(count: int) -> list[range]:
    """The ranges in which so many images are scored."""
    starts = range(0, count, SCORE_BATCH)
    return [range(start, min(start + SCORE_BATCH, count)) for start in starts]


def publish(
    cell: Cell,
    place: Place,
    scored: Scored,
    fit: FitFacts,
    feature_seconds: float,
    started: datetime,
) -> None:
    """Write a scored cell to the store, as rows and what shows where they come from."""
    images, scored_in = len(scored.images), formats(cell, place.device)
    same = fit.precision == scored_in
    facts = {
        **fit._asdict(),
        "test_images": images,
        "score_seconds": scored.seconds,
        "images_per_second": images / (scored.seconds + feature_seconds) if images else None,
        "peak_memory_bytes": max(fit.peak_memory_bytes, scored.peak, peak_memory()),
        "precision": scored_in if same else f"{fit.precision}, scored in {scored_in}",
        "started_at": started,
    }
    rows = finished_rows(cell, place, facts, scored.metrics)
    place.store.publish(
        cell, rows, scored.images, scored.evidence, scored.held, replace=place.overwrite
    )
