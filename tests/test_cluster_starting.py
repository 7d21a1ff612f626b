"""Ways to start it on clusters that are there: Slurm, Kubernetes, a job handed in to Ray."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import typer
import yaml
from object_store import free_port

from harness.cli import build
from harness.plan.options import Address
from harness.plan.registry import UsageError
from harness.store.store import Store
from results.table import read

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
STARTING = ROOT / "harness" / "cluster"
PATIENCE = 240
WANTED = ("run", "shapes", "--preset", "smoke", "-m", "patchcore", "--seeds", "2")


@contextmanager
def running(command: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process that starts others, in a session of its own, which ends with the block."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        **options,  # type: ignore[call-overload]
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(ready: object, what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A real Slurm of one node, from Debian's packages."""
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if not shutil.which(program):
            pytest.skip(f"Slurm is not installed ({program}: apt install slurmctld slurmd munge)")
    if os.geteuid():
        pytest.skip("a Slurm of our own needs root")
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool"):
        (tmp_path / name).mkdir()
    key = tmp_path / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    (tmp_path / "slurm.conf").write_text(f"""
ClusterName=one
SlurmctldHost={host}
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/munge
AuthInfo=socket={tmp_path}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={tmp_path}/state
SlurmdSpoolDir={tmp_path}/spool
SlurmctldPidFile={tmp_path}/ctld.pid
SlurmdPidFile={tmp_path}/d.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
NodeName={host} CPUs={os.cpu_count()} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    environment = {
        **os.environ,
        "SLURM_CONF": str(tmp_path / "slurm.conf"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    munge = [
        "munged", "--foreground", "--force", f"--key-file={key}",
        f"--socket={tmp_path}/munge.socket", f"--pid-file={tmp_path}/munge.pid",
        f"--log-file={tmp_path}/munge.log", f"--seed-file={tmp_path}/munge.seed",
    ]  # fmt: skip

    def idle() -> bool:
        told = subprocess.run(["sinfo", "-h"], env=environment, capture_output=True, text=True)
        return "idle" in told.stdout

    with (
        running(munge),
        running(["slurmctld", "-D"], env=environment),
        running(["slurmd", "-D"], env=environment),
    ):
        wait_until(idle, "Slurm does not start")
        yield environment


@pytest.mark.cluster
def test_a_slurm_job_starts_its_cluster_and_leaves_nothing(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "runs"
    done = subprocess.run(
        [
            "sbatch", "--wait", "--parsable", f"--output={tmp_path}/job.txt", "--cpus-per-task=2",
            str(STARTING / "slurm.sbatch"), *WANTED, "--out", str(out),
        ],
        env=slurm, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    printed = (tmp_path / "job.txt").read_text()
    assert done.returncode == 0, printed + done.stderr
    assert read(out)["cell_id"].n_unique() == 2 and "patchcore" in printed
    number = done.stdout.strip()
    assert not Path(f"/tmp/ray-{number}").exists(), "what Ray kept is gone with the job"


@pytest.mark.cluster
def test_a_job_handed_in_to_ray_does_the_command(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp_cors", reason="ray job submit needs ray[default]")
    port, page = free_port(), free_port()
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "OMP_NUM_THREADS": "1",
    }
    folder = Path(f"/tmp/rj{os.getpid()}")  # short, for the names of sockets
    head = [
        str(BIN / "ray"), "start", "--head", f"--port={port}", f"--dashboard-port={page}",
        "--include-dashboard=true", "--num-cpus=2", f"--temp-dir={folder}", "--block",
        "--disable-usage-stats",
    ]  # fmt: skip

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{page}/api/version", timeout=5).close()
        except urllib.error.HTTPError as error:
            return error.code == 401  # it is there, and asks for the token
        except OSError:
            return False
        return True

    try:
        with running(head, env=environment):
            wait_until(answers, "Ray's head does not start")
            submit = [str(BIN / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{page}"]
            ours = [str(BIN / "lafite-bench"), *WANTED, "--out", str(tmp_path / "runs")]
            done = subprocess.run(
                [*submit, "--", *ours],
                env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE,
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert read(tmp_path / "runs")["cell_id"].n_unique() == 2


def test_results_below_the_working_dir_of_a_job_are_refused(tmp_path: Path) -> None:
    """Ray removes it after the job."""
    disposable = tmp_path / "runtime_resources" / "working_dir_files" / "_ray_pkg_1" / "runs"
    with pytest.raises(UsageError, match="Ray removes after the job; name one that stays"):
        Store(disposable).prepare()


def test_the_kuberay_manifest_runs_a_command_that_there_is_in_one_version() -> None:
    """Its fields were checked against KubeRay's API, see harness/cluster/README.md."""
    job = yaml.safe_load((STARTING / "kuberay.yaml").read_text())
    spec = job["spec"]["rayClusterSpec"]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    images = {c["image"] for g in groups for c in g["template"]["spec"]["containers"]}
    assert len(images) == 1, "the same versions on all nodes"
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned and spec["rayVersion"] == pinned[1]
    program, name, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "lafite-bench"
    command = typer.main.get_command(build()).commands[name]  # type: ignore[attr-defined]
    given = command.make_context(name, words).params
    assert given["benchmarks"] == ["mvtec", "mpdd"]
    assert given["out"] == Address("s3://BUCKET/runs", "writes results")
    assert given["root"] == Address("s3://BUCKET/data", "reads data")
