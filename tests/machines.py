"""Machines made of namespaces, for tests: each with a network and, if wanted, disks of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parents[1]
SCRIPT = HERE / ".." / "shared" / "cluster" / "nodes.sh"
BIN = Path(sys.executable).parent
HEAD = "10.77.0.10:6379"
PATIENCE = 240


class Machines:
    """A Ray head and other nodes, of one core each, that share all disks but those in `private`.

    `ROOT/disk-I/...` is what node I has of those. So many `nodes` are there from the beginning.
    """

    def __init__(
        self,
        root: Path,
        *private: Path,
        code: Path = HERE,
        nodes: int = 2,
        head_cpus: int = 1,
        **more: str,
    ) -> None:
        self.root, self.head_cpus = root, head_cpus
        self.environment = {
            **os.environ,
            "ROOT": str(root),
            "BIN": str(BIN),
            "PRIVATE": " ".join(map(str, private)),
            "PYTHONPATH": str(code),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "eth0",
            # By itself Ray takes a minute until it takes a node for dead.
            "RAY_health_check_initial_delay_ms": "1000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            **more,
        }
        self.do("up", str(max(2, nodes)))
        self.head()
        for node in range(1, nodes):
            self.do("join", str(node))

    def head(self) -> None:
        # Ten processes that nobody asks anything.
        self.do("head", "--include-dashboard=false", f"--num-cpus={self.head_cpus}")

    def replace(self, node: int) -> None:
        """Another machine at the place of one that was lost."""
        for verb in ("kill", "mend", "join"):
            self.do(verb, str(node))

    def do(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPT), *words],
            env=self.environment,
            cwd=HERE,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            check=check,
        )

    def command(self, *words: str) -> list[str]:
        script = str(BIN / "lafite-bench")
        return ["bash", str(SCRIPT), "exec", "0", script, *words, "--address", HEAD]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of ours on the head."""
        return self.do(*self.command(*words)[2:], check=False)

    def disk(self, node: int, folder: Path) -> Path:
        return Path(f"{self.root}/disk-{node}{folder}")


@contextmanager
def scratch() -> Iterator[Path]:
    """A short path, as sockets lie below it; all machines there end with the test."""
    if os.geteuid() or not shutil.which("ip") or not shutil.which("unshare"):
        pytest.skip("machines made of namespaces need root, ip and unshare")
    if not SCRIPT.is_file():
        pytest.skip("absent: ../shared/cluster/nodes.sh")
    if subprocess.run(["ip", "netns", "add", "reln-probe"], capture_output=True).returncode:
        pytest.skip("this machine makes no network namespaces")
    subprocess.run(["ip", "netns", "del", "reln-probe"], check=True)
    folder = Path(f"/tmp/n{os.getpid()}")
    folder.mkdir()
    try:
        yield folder
    finally:
        environment = {**os.environ, "ROOT": str(folder), "BIN": str(BIN)}
        subprocess.run(["bash", str(SCRIPT), "down"], env=environment, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started(
    machines: Machines, command: list[str], told: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command,
        env=machines.environment,
        cwd=HERE,
        stdout=told,
        stderr=subprocess.STDOUT,
        text=True,
    ) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def wait_for(driver: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert driver.poll() is None, driver.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ends_well(driver: subprocess.Popen[str]) -> str:
    try:
        printed, _ = driver.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise AssertionError((error.output or b"").decode()) from error
    assert driver.returncode == 0, printed
    return printed


def ends_well_though(
    blow: str, machines: Machines, command: list[str], reached: Callable[[], bool]
) -> None:
    """Run a command, and let node 1 lose its power ("kill") or its cable ("cut") when `reached`."""
    with started(machines, command) as driver:
        wait_for(driver, reached)
        machines.do(blow, "1")
        ends_well(driver)
