"""The feature cache: what crashes, other users and other programs leave in it; two at once."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from made_cells import smoke_cells
from made_data import write_category, write_image

from benchmarks.base import DataError
from harness.plan.registry import UsageError
from harness.work import cache as caching
from harness.work.cache import FeatureCache
from harness.work.features import FeatureSet, feature_set
from methods.parts.progress import Progress, quiet

CPU = torch.device("cpu")


def train_set() -> FeatureSet:
    features = feature_set(smoke_cells("draem", categories=["disc"])[0], "train")  # pixels: quick
    assert features is not None
    return features


@pytest.fixture
def made(tmp_path: Path) -> tuple[FeatureCache, Path, bytes]:
    """A cache, its only entry and the bytes of that."""
    cache = FeatureCache(root=tmp_path / "cache")
    cache.make([train_set()], CPU, quiet)
    path = cache.path(train_set())
    return cache, path, path.read_bytes()


DAMAGE: dict[str, Callable[[Path, bytes], object]] = {
    "cut off": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "empty": lambda path, whole: path.write_bytes(b""),
    "zeroed": lambda path, whole: path.write_bytes(whole[:128] + bytes(len(whole) - 128)),
    "one bit": lambda path, whole: path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1])),
    "no facts": lambda path, whole: path.with_suffix(".json").unlink(),
    "facts cut off": lambda path, whole: path.with_suffix(".json").write_text('{"seconds": 9'),
    "facts without a hash": lambda path, whole: path.with_suffix(".json").write_text("{}"),
    "facts in no encoding": lambda path, whole: path.with_suffix(".json").write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_entry_is_found_said_and_made_again(
    made: tuple[FeatureCache, Path, bytes], damage: str
) -> None:
    cache, path, whole = made
    DAMAGE[damage](path, whole)
    caching._sha256_of.cache_clear()  # what was seen to be sound, as a new process has not
    assert not cache.has(train_set())
    told: list[Progress] = []
    rows, _ = cache.read(train_set(), CPU, told.append)
    assert path.read_bytes() == whole and len(rows) == 24
    [note] = [progress.note for progress in told if progress.note]
    assert note.startswith(f"{path} is not whole (") and note.endswith("made again")
    assert cache.has(train_set())


def test_another_users_file_is_left_alone_and_named(
    made: tuple[FeatureCache, Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, path, whole = made

    def closed(file: Path) -> str:
        raise PermissionError(13, "Permission denied", str(file))

    caching._sha256_of.cache_clear()
    monkeypatch.setattr(caching, "file_sha256", closed)
    with pytest.raises(DataError, match=r"\.npy: this cached file of another user .* chmod a\+r"):
        cache.has(train_set())
    assert path.read_bytes() == whole


def test_the_budget_counts_all_and_removes_what_is_ours(tmp_path: Path) -> None:
    old = time.time() - 2 * caching.STALE_SECONDS
    crashed, writing = (f".{'a' * 24}.npy.{letter * 32}.tmp" for letter in "bc")
    for name in ("foreign.bin", "mine.npy", crashed, writing, f"{'c' * 24}.npy"):
        (tmp_path / name).write_bytes(bytes(5000))
    (tmp_path / f"{'c' * 24}.json").write_text("{}")
    os.utime(tmp_path / crashed, (old, old))
    cache = FeatureCache(root=tmp_path, budget_gb=1e-5)  # 10 kB: less than what is foreign
    cache.make([train_set()], CPU, quiet)
    left = {path.name for path in tmp_path.iterdir()}
    kept = cache.path(train_set())
    assert left == {"foreign.bin", "mine.npy", writing, kept.name, kept.with_suffix(".json").name}


def _read(root: Path, go: object, answers: object) -> None:
    torch.set_num_threads(1)
    told: list[Progress] = []
    go.wait()  # type: ignore[attr-defined]
    rows, _ = FeatureCache(root=root).read(train_set(), CPU, told.append)
    made = sum(progress.stage == "features" for progress in told)
    answers.put((float(rows.astype(np.float64).sum()), made))  # type: ignore[attr-defined]


def test_of_two_processes_one_makes_and_both_read(tmp_path: Path) -> None:
    context = get_context("spawn")
    go, answers = context.Event(), context.Queue()
    both = [context.Process(target=_read, args=(tmp_path, go, answers)) for _ in range(2)]
    for process in both:
        process.start()
    go.set()
    (sum_a, made_a), (sum_b, made_b) = (answers.get(timeout=120) for _ in both)
    for process in both:
        process.join(60)
    assert sum_a == sum_b
    assert sorted((made_a > 0, made_b > 0)) == [False, True], "nothing is made twice"
    assert not list(tmp_path.glob("*.lock"))


def test_an_entry_that_another_command_removed_is_made_again(
    made: tuple[FeatureCache, Path, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, path, whole = made
    make, tries = FeatureCache.make, []

    def vanishing(self: FeatureCache, *arguments: object) -> None:
        make(self, *arguments)  # type: ignore[arg-type]
        tries.append(1)
        if len(tries) == 1:
            path.unlink()

    monkeypatch.setattr(FeatureCache, "make", vanishing)
    rows, _ = cache.read(train_set(), CPU, quiet)
    assert len(tries) == 2 and path.read_bytes() == whole and len(rows)


@pytest.mark.parametrize("value", ["40GB", "nan", "-1"])
def test_an_odd_budget_is_refused(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAFITE_BENCH_CACHE_GB", value)
    with pytest.raises(UsageError, match=rf"^LAFITE_BENCH_CACHE_GB={value}: give gigabytes as a"):
        FeatureCache.default()


@pytest.mark.parametrize(
    "cache, xdg, home, wanted",
    [
        ("CACHE", None, "HOME", "CACHE"),
        ("", None, "HOME", "HOME/.cache/lafite-bench"),
        (None, "", "HOME", "HOME/.cache/lafite-bench"),
        (None, "XDG", "HOME", "XDG/lafite-bench"),
        ("~/mine", None, "HOME", "HOME/mine"),
        (None, None, "FILE/none", f"TMP/lafite-bench-{os.getuid()}"),
    ],
)
def test_where_the_cache_lies(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: str | None,
    xdg: str | None,
    home: str,
    wanted: str,
) -> None:
    def at(text: str) -> str:
        return text if text.startswith("~") or not text else str(tmp_path / text)

    (tmp_path / "FILE").write_text("no folder")
    (tmp_path / "TMP").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "TMP"))
    for name, value in (("LAFITE_BENCH_CACHE", cache), ("XDG_CACHE_HOME", xdg), ("HOME", home)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, at(value))
    monkeypatch.setenv("LAFITE_BENCH_CACHE_GB", "")
    said: list[str] = []
    found = FeatureCache.default(said.append)
    assert (found.root, found.budget_gb) == ((tmp_path / wanted).resolve(), 40)
    assert bool(said) == wanted.startswith("TMP"), "another place than usual is said"


def test_a_named_cache_that_can_not_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"^LAFITE_BENCH_CACHE=\S+/file: can't be written .File"):
        FeatureCache.default()


def test_a_full_disk_is_said_before_a_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "full"))
    )
    cache = FeatureCache(root=tmp_path)
    with pytest.raises(
        DataError, match=r"the cache needs [\d,]+ bytes, [\d,]+ are free; make room"
    ):
        cache.make([train_set()], CPU, quiet)
    assert list(tmp_path.iterdir()) == []


def test_images_and_weights_that_are_not_the_planned_ones_make_no_features(tmp_path: Path) -> None:
    write_category(tmp_path / "parts" / "bolt")
    [cell] = smoke_cells("patchcore", benchmark=str(tmp_path / "parts"))
    features = feature_set(cell, "train")
    assert features is not None
    cache = FeatureCache(root=tmp_path / "cache")
    with pytest.raises(DataError, match=r"these weights are on .* others than were planned"):
        cache.make([dataclasses.replace(features, weights_sha256="0" * 64)], CPU, quiet)
    write_image(tmp_path / "parts/bolt/train/good/001.png", seed=99)
    with pytest.raises(DataError, match=r"the images or masks are on .* others than were planned"):
        cache.make([features], CPU, quiet)
    assert not list(cache.root.glob("*.npy"))
