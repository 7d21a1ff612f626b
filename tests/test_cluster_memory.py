"""Tasks ask for the memory that they need."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from harness.plan.options import Resources
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.place import Place
from harness.work.task import Task
from methods.base import OnProgress, Progress

pytest.importorskip("ray", reason="Ray is not installed")


def test_two_that_need_a_machines_memory_do_not_share_it(tmp_path: Path, ray_here: None) -> None:
    from harness.cluster.session import largest_memory
    from harness.cluster.tasks import on_ray

    def stamping(name: str, share: float) -> Task:
        def run(place: Place, tell: OnProgress) -> None:
            began = time.time()
            time.sleep(2)
            (place.store.out / name).write_text(f"{began} {time.time()}")

        return Task(name, run, memory=int(share * largest_memory()))

    def unseen(number: int, progress: Progress | None) -> None:
        return

    def together(share: float) -> bool:
        for _, error in on_ray([stamping(name, share) for name in "ab"], place, unseen):
            assert error is None
        spans = [tuple(map(float, (tmp_path / name).read_text().split())) for name in "ab"]
        first, second = sorted(spans)
        return second[0] < first[1]

    place = Place(
        store=Store(tmp_path).prepare(),
        cache=FeatureCache.default(),
        resources=Resources(gpus=0.0),
    )
    together(0.1)  # processes that have imported everything
    assert together(0.3)
    assert not together(0.6)
    assert not together(9.0), "more than there is: each has the machine alone"
