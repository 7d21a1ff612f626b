"""Folders of results as crashes, other users and commands at the same time leave them."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from made_cells import smoke_cells
from made_studies import made_place

from harness.plan.cell import Cell
from harness.plan.registry import UsageError
from harness.store import store as storing
from harness.store.journal import entries
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import built, run, run_job
from harness.work.place import Place
from harness.work.rows import failure_row
from methods.parts.progress import Progress, quiet
from results.files import locked
from results.table import read, read_scores, torn


def one(variant: float | None = None) -> Cell:
    overrides = [] if variant is None else [f"patchcore.sigma={variant}"]
    return smoke_cells("patchcore", categories=["disc"], overrides=overrides)[0]


@pytest.fixture
def done(place: Place) -> Place:
    """A place with one finished cell."""
    run_job([one()], place, quiet)
    return place


CUT: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda whole: whole[:100],
    "empty": lambda whole: b"",
    "zeroed": lambda whole: bytes(len(whole)),
    "without its end": lambda whole: whole[:-1],
    "of another kind": lambda whole: b"{}",
}


@pytest.mark.parametrize("cut", CUT)
@pytest.mark.parametrize("kind", ["parts", "scores", "pictures"])
def test_a_torn_file_is_set_aside_said_and_its_cell_done_again(
    done: Place, kind: str, cut: str
) -> None:
    store = done.store
    path = store.out / kind / f"{one().cell_id}.parquet"
    path.write_bytes(CUT[cut](path.read_bytes()))
    assert torn(path)
    said: list[str] = []
    store.prepare(said.append)
    assert said == [line for line in said if line.startswith(f"{path} is not whole (")] != []
    assert (store.out / "damaged" / f"{kind}-{path.name}").exists()
    assert not store.done(one())
    assert [error for _, error in run([one()], done)] == [None]
    assert len(read(store.out)) and len(read_scores(store.out))
    store.prepare(pytest.fail)


def test_zeros_inside_a_part_are_no_numbers(done: Place) -> None:
    path = done.store.part(one())
    whole = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    path.write_bytes(whole[: start + 40] + bytes(20) + whole[start + 60 :])
    with pytest.raises(ValueError, match="cannot be read"):
        read(done.store.out)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights cut off": lambda model: (model / "model.safetensors").write_bytes(b"12345678"),
    "weights gone": lambda model: (model / "model.safetensors").unlink(),
    "facts gone": lambda model: (model / "fit.json").unlink(),
    "facts cut off": lambda model: (model / "fit.json").write_text('{"sha256": "'),
    "facts of nothing": lambda model: (model / "fit.json").write_text("{}"),
    "facts in no encoding": lambda model: (model / "fit.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_model_is_moved_aside_said_and_learned_again(done: Place, damage: str) -> None:
    model = done.store.model(one())
    DAMAGE[damage](model)
    told: list[Progress] = []
    run_job([one(2.0)], done, told.append)
    [note] = [progress.note for progress in told if progress.note]
    assert note.startswith(f"{model} is damaged (")
    [aside] = [path for path in model.parent.iterdir() if ".corrupt-" in path.name]
    assert note.endswith(f"moved to {aside.name}")
    assert done.store.done(one(2.0))


@pytest.mark.parametrize("number", [13, 5, 116])  # closed to us; the disk; a network disk
def test_a_model_that_can_not_be_read_is_not_damaged(
    done: Place, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def closed(path: Path, sha256: str) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(storing, "read_state", closed)
    model = done.store.model(one())
    with pytest.raises(
        UsageError, match=r"can't be read .* chmod -R a\+rX .* or use another --out"
    ):
        done.store.load_model(one(), built(one(), done), pytest.fail)
    assert model.is_dir()


@pytest.mark.parametrize("umask, folder, file", [(0o022, 0o755, 0o644), (0o002, 0o775, 0o664),
                                                 (0o077, 0o700, 0o600)])  # fmt: skip
def test_files_are_as_open_as_the_umask_says(
    tmp_path: Path, cache: FeatureCache, umask: int, folder: int, file: int
) -> None:
    before = os.umask(umask)
    try:
        place = made_place(tmp_path / "runs", cache)
        run_job([one()], place, quiet)
    finally:
        os.umask(before)
    for path in (tmp_path / "runs").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (folder if path.is_dir() else file), f"{path}: {mode:o}"


def test_what_a_crash_left_half_written_goes_after_a_day(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.prepare()
    old, young = tmp_path / "models/.writing-1", tmp_path / "models/.writing-2"
    for path in (old, young):
        path.mkdir()
        (path / "model.safetensors").write_bytes(bytes(10))
    scratch = tmp_path / "parts/.x.parquet.1.tmp"
    scratch.write_bytes(b"?")
    before = time.time() - 2 * storing.STALE_SECONDS
    for path in (old, scratch):
        os.utime(path, (before, before))
    store.prepare()
    assert not old.exists() and not scratch.exists() and young.exists()


def _work(out: Path, cache: Path, go: object) -> None:
    torch.set_num_threads(1)
    place = Place(store=Store(out), cache=FeatureCache(root=cache))
    go.wait()  # type: ignore[attr-defined]
    cells = smoke_cells("uniad", categories=["disc"], overrides=["uniad.epochs=12"])
    errors = [error for _, error in run(cells, place) if error]
    assert not errors, errors


def test_the_same_command_twice_at_once_trains_once(tmp_path: Path) -> None:
    out, context = tmp_path / "runs", get_context("spawn")
    Store(out).prepare()
    go = context.Event()
    both = [context.Process(target=_work, args=(out, tmp_path / "cache", go)) for _ in range(2)]
    for process in both:
        process.start()
    go.set()
    for process in both:
        process.join(300)
    assert [process.exitcode for process in both] == [0, 0]
    trained = [entry for entry in entries(out / "work.jsonl") if entry["what"] == "training"]
    opened = list(entries(out / "audit.jsonl"))
    assert (len(trained), len(opened)) == (1, 1), "nothing is done twice"
    assert not list((out / "failures").iterdir()) and len(list((out / "parts").iterdir())) == 1
    assert not list((out / "locks").iterdir())


def _hold(path: Path, taken: object) -> None:
    with locked(path, lambda: None):
        taken.set()  # type: ignore[attr-defined]
        time.sleep(60)


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    context = get_context("spawn")
    taken, path = context.Event(), tmp_path / "locks/x"
    process = context.Process(target=_hold, args=(path, taken))
    process.start()
    assert taken.wait(60)
    process.kill()
    process.join(60)
    assert path.exists(), "the file stays, which says nothing"
    with locked(path, lambda: pytest.fail("waits")):
        pass
    assert not path.exists()


def test_where_nothing_can_be_locked_nobody_waits(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with locked(tmp_path / "file/below", lambda: pytest.fail("waits")):
        pass


def test_a_failure_is_kept_though_an_earlier_one_was_damaged(tmp_path: Path) -> None:
    store, [cell] = Store(tmp_path).prepare(), smoke_cells("patchcore")
    place = Place(store=store, cache=FeatureCache.default())
    for number in (1, 2):
        error = RuntimeError(f"attempt {number}")
        store.publish_failure(cell, failure_row(cell, place, error), error)
    damaged = tmp_path / "failures" / f"{cell.cell_id}-1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-9])
    store.prepare()
    assert not damaged.exists()
    error = RuntimeError("attempt 3")
    store.publish_failure(cell, failure_row(cell, place, error), error)
    assert "attempt 3" in store.traceback(cell).read_text()
    kept = {path.name for path in (tmp_path / "failures").iterdir()}
    assert {f"{cell.cell_id}-{number}.parquet" for number in (2, 3)} <= kept
    assert set(read(tmp_path)["error"]) == {"RuntimeError: attempt 3"}, "the last one counts"
