"""Settings for all tests: Triton interpreted where there is no GPU, few threads, own cache."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Two processes of two threads each on two cores would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

if TYPE_CHECKING:
    from made_studies import Sweep

    from harness.cache import FeatureCache
    from harness.place import Place

if not torch.cuda.is_available():
    # Must be set before a kernel module is imported.
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
_CACHE = tempfile.TemporaryDirectory(prefix="lafite-bench-test-")
os.environ["LAFITE_BENCH_CACHE"] = _CACHE.name
os.environ.pop("LAFITE_BENCH_DATA", None)
os.environ.pop("RAY_ADDRESS", None)
# A shell starts what it puts into the background with this signal ignored, and so would be what
# tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

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


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    """Features that tests share."""
    from harness.cache import FeatureCache

    return FeatureCache(root=tmp_path_factory.mktemp("features"))


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
