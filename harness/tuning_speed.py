"""A search stage by stage beside training once and scoring every combination.

Ours is the whole command: start, planning, Ray, training, searches in the bank, trials. Of the
other side only the loop is timed, in a process that has everything loaded and uses all threads,
with features from the cache; its training is taken to last as long as ours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.base import sealed
from harness.execute import Scorer, learn, score
from harness.features import FeatureCache
from harness.journal import entries
from harness.place import Place
from harness.plan import plan
from harness.registry import UsageError
from harness.spec import Held
from harness.store import Store
from harness.study import Study, joined, plan_studies, settings
from methods.base import quiet

SPACE = ("lafite.t=50:400:50", "lafite.k=1,3,5,7")
"""With the three coreset rates of the method's own search."""


class Side(NamedTuple):
    """Settings that were scored, network passes over an image, seconds without the training."""

    settings: int
    passes: int
    seconds: float


def race(benchmark: str, preset: str) -> Iterator[str]:
    """Lines as they are measured; UsageError where the search fails."""
    with sealed(), tempfile.TemporaryDirectory() as folder:
        cells = plan([benchmark], ["lafite"], seeds=1, preset=preset, held=Held())
        [study] = plan_studies(cells, SPACE, "image_auroc", joint=False, named=True)
        place = Place(store=Store(Path(folder)), cache=FeatureCache.default())
        yield (
            f"tuning: {study.label}, preset {preset}, "
            f"{study.first.data.test_images} pseudo-validation images, "
            f"{torch.get_num_threads()} threads"
        )
        ours, training = _ours(study, benchmark, preset, place)
        yield f"one training              {training:7.1f} s"
        yield _line("stage by stage", ours, ours, training)
        yield _line("every combination", _naive(study, place), ours, training)


def _line(who: str, side: Side, ours: Side, training: float) -> str:
    both = (side.seconds + training) / (ours.seconds + training)
    return (
        f"{who:18} {side.settings:4d} settings {side.passes:8,d} passes {side.seconds:7.1f} s "
        f"{side.seconds / ours.seconds:5.2f} x   with the training {both:5.2f} x"
    )


def _ours(study: Study, benchmark: str, preset: str, place: Place) -> tuple[Side, float]:
    """The command, in a process of its own; and the seconds of its training."""
    run = "from harness.cli import main; main()"
    command = [sys.executable, "-c", run, "tune", benchmark, "-m", "lafite", "--preset", preset]
    command += [part for text in SPACE for part in ("--space", text)]
    command += ["--out", str(place.store.out)]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        said = (done.stdout + done.stderr).splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"speed --op tuning: {said[-1]}")
    log = [e for e in entries(place.store.out / "work.jsonl") if e["what"] == "setting"]
    [fit] = place.store.models()
    passes = sum(entry["passes"] for entry in log)
    return Side(len(log), passes, seconds - fit["fit_seconds"]), fit["fit_seconds"]


def _naive(study: Study, place: Place) -> Side:
    """One after the other, each with its own search."""
    [every] = joined(study.stages)
    tried = settings(every, study.first.knobs)
    method, _ = learn(study.first, study.first.data.open_kept(), place, quiet)
    scorer = Scorer(study.first, method, place, quiet)
    started = time.perf_counter()
    for knobs in tried:
        cell = replace(study.first, knobs=knobs)
        score(cell, scorer.benchmark, scorer.samples, scorer.spread, place, quiet)
    seconds = time.perf_counter() - started
    passes = sum(method.passes(knobs) for knobs in tried) * len(scorer.samples)
    return Side(len(tried), passes, seconds)
