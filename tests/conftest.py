"""Settings for all tests: Triton interpreted where there is no GPU, few threads, own cache."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Two processes of two threads each on two cores would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if TYPE_CHECKING:
    from calling import Call
    from made_studies import Sweep

    from harness.work.cache import FeatureCache
    from harness.work.place import Place

if not torch.cuda.is_available():
    # Must be set before a kernel module is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "PYTEST_XDIST_WORKER" not in os.environ:
    # One for all processes of a run: features and models that one of them made, the others read.
    _SHARED = tempfile.TemporaryDirectory(prefix="lafite-bench-test-")
    os.environ["LAFITE_BENCH_CACHE"] = f"{_SHARED.name}/features"
os.environ.pop("LAFITE_BENCH_DATA", None)
os.environ.pop("RAY_ADDRESS", None)
# A shell starts what it puts into the background with this signal ignored, and so would be what
# tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


TOGETHER = {
    "machines": ("cluster_moments", "cluster_nodes"),
    "ray": ("cluster_reach", "cluster_tasks", "search_tuning"),
    "sweep": ("search_choice", "search_stages"),
}
"""Files that share a fixture that takes long to make, or the network of the made machines."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file run in one process, and so do those of files that belong together."""
    from xdist.scheduler import LoadFileScheduling

    group_of = {f"tests/test_{name}.py": group for group in TOGETHER for name in TOGETHER[group]}

    class Together(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return group_of.get(file, file)

    return Together(config, log)


REAL_DATA = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(autouse=True)
def _few_threads() -> Iterator[None]:
    torch.set_num_threads(1)
    yield


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images; tests that need it skip where it is absent."""
    if not (REAL_DATA / "mixed").is_dir():
        pytest.skip("real images are absent: ../shared/data/mixed")
    return REAL_DATA.resolve()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command of ours in this process."""
    from calling import calling

    return calling(monkeypatch, capsys)


@pytest.fixture(scope="session")
def cache() -> FeatureCache:
    """Features that all tests share."""
    from harness.work.cache import FeatureCache

    return FeatureCache.default()


@pytest.fixture
def place(tmp_path: Path, cache: FeatureCache) -> Place:
    """Where one test's results go."""
    from made_studies import made_place

    return made_place(tmp_path / "runs", cache)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache: FeatureCache) -> Sweep:
    """A whole search, made once: tests read it."""
    from made_studies import Sweep, made_place

    torch.set_num_threads(1)
    return Sweep(made_place(tmp_path_factory.mktemp("sweep") / "runs", cache))


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """A Ray on this machine that this process is connected with; it takes seconds to start.

    Files that use it are `TOGETHER`, so that one process of tests has it.
    """
    pytest.importorskip("ray", reason="Ray is not installed")
    from harness.cluster.session import cluster

    with cluster(None):
        yield
