"""A search by our command beside training once and scoring every combination in a loop.

Ours is the whole command: start, planning, Ray, training, searches in the bank, trials; once as it
is, by stages, and once with `--joint`, over the same settings as the loops. Of these only the loop
is timed, in a process that has everything loaded and uses all threads: once with features from the
cache, once from the image files to the scores, as tools without a cache do. Their training is taken
to last as long as ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.base import sealed
from harness.cache import FeatureCache
from harness.execute import Scorer, learn, score
from harness.options import RaceOptions, Say, SearchOptions, Selection
from harness.place import Place
from harness.plan import plan
from harness.registry import UsageError
from harness.search.space import joined, settings
from harness.search.study import Study, held_by, plan_studies
from harness.store.journal import entries
from harness.store.store import Store
from methods.base import quiet
from methods.lafite import METHOD

SPACE = ("lafite.t=50:400:50", "lafite.k=1,3,5,7")
"""With the three coreset rates of the method's own search."""
FEW = 6
"""Settings of all combinations that are timed from the image files, and stand for the rest."""


class Side(NamedTuple):
    """Settings that are scored, network passes over an image, seconds without the training."""

    settings: int
    passes: int
    seconds: float


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """Lines as they are measured; UsageError where the search fails."""
    benchmark, preset = options.benchmark, options.preset
    selection = Selection(benchmarks=[benchmark], methods=["lafite"], seeds=1, preset=preset)
    with sealed(), tempfile.TemporaryDirectory() as folder:
        search = SearchOptions(space=list(SPACE))
        [study] = plan_studies(plan(selection, held=held_by(search)), search, named=True)
        cache = FeatureCache.default()
        place = Place(store=Store(Path(folder) / "joint"), cache=cache)
        staged = Place(store=Store(Path(folder) / "staged"), cache=cache)
        yield (
            f"tuning: {study.label}, preset {preset}, "
            f"{study.first.data.test_images} pseudo-validation images, "
            f"{torch.get_num_threads()} threads"
        )
        ours, training = _ours(benchmark, preset, staged)
        yield f"{'one training':21} {training:8.1f} s"
        yield _line("stage by stage", ours, ours, training)
        joint, _ = _ours(benchmark, preset, place, "--joint")
        yield _line("all together", joint, ours, training)
        yield _line("a loop over all", _every(study, place), ours, training)
        yield _line("the same, from files", _from_files(study, place), ours, training)


def _line(who: str, side: Side, ours: Side, training: float) -> str:
    both = (side.seconds + training) / (ours.seconds + training)
    return (
        f"{who:21} {side.settings:4d} settings {side.passes:8,d} passes {side.seconds:7.1f} s "
        f"{side.seconds / ours.seconds:5.2f} x   with the training {both:5.2f} x"
    )


def _ours(benchmark: str, preset: str, place: Place, *options: str) -> tuple[Side, float]:
    """The command, in a process of its own; and the seconds of its training."""
    run = "from harness.cli import main; main()"
    command = [sys.executable, "-c", run, "tune", benchmark, "-m", "lafite", "--preset", preset]
    command += [part for text in SPACE for part in ("--space", text)]
    command += ["--out", str(place.store.out), *options]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        output = (done.stdout + done.stderr).splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"speed --op tuning: {output[-1]}")
    log = [e for e in entries(place.store.out / "work.jsonl") if e["what"] == "setting"]
    [record] = place.store.out.glob("models/*/fit.json")
    fit = json.loads(record.read_bytes())
    passes = sum(entry["passes"] for entry in log)
    return Side(len(log), passes, seconds - fit["fit_seconds"]), fit["fit_seconds"]


def _every(study: Study, place: Place) -> Side:
    """Every combination, each with its own search in the bank."""
    tried = _combinations(study)
    method, _ = learn(study.first, study.first.data.open_kept(), place, quiet)
    scorer = Scorer(study.first, method, place, quiet)
    return _timed(study, tried, place, lambda: scorer)


def _from_files(study: Study, place: Place) -> Side:
    """A few of them, each with its own features as well, and as long for each of the rest."""
    every = _combinations(study)
    tried = every[:: -(-len(every) // FEW)]
    method, _ = learn(study.first, study.first.data.open_kept(), place, quiet)

    def fresh() -> Scorer:
        with tempfile.TemporaryDirectory(dir=place.store.out) as folder:
            empty = replace(place, cache=FeatureCache(root=Path(folder)))
            return Scorer(study.first, method, empty, quiet)

    few = _timed(study, tried, place, fresh)
    share = len(every) / len(tried)
    return Side(len(every), round(few.passes * share), few.seconds * share)


def _combinations(study: Study) -> list[Any]:
    [every] = joined(study.stages)
    return settings(every, study.first.knobs)


def _timed(
    study: Study, tried: Sequence[Any], place: Place, scorer_of: Callable[[], Scorer]
) -> Side:
    passes = 0
    started = time.perf_counter()
    for knobs in tried:
        cell, scorer = replace(study.first, knobs=knobs), scorer_of()
        score(cell, scorer.benchmark, scorer.samples, scorer.spread, place, quiet)
        passes += METHOD.passes(knobs) * len(scorer.samples)
    return Side(len(tried), passes, time.perf_counter() - started)
