"""What every body of a folder keeps: on a disk, below a URI (in memory and S3), at the driver."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

pytest.importorskip("ray", reason="Ray is not installed")

from made_folders import Near, desk
from object_store import object_store

from harness.cluster import relay
from harness.plan.registry import UsageError
from harness.store import folder as module
from harness.store.folder import Folder, OnDisk, Uri
from harness.store.journal import entries, entry

Machine = Callable[[str], Folder]
"""The same folder, as the machine of this name sees it."""
ODD = "sub folder/ä'ß %2F#?&+=;~(1)_日本.json"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")
    with object_store("bucket") as environment:
        yield environment


@pytest.fixture(params=["disk", "memory", "s3", "driver"])
def machine(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Machine:
    monkeypatch.setattr(relay, "PIECE", 1000)
    if request.param == "disk":
        return lambda name: OnDisk(tmp_path / "disk")
    if request.param == "driver":
        served = desk(tmp_path / "home", tmp_path / "cache")
        return lambda name: Near(tmp_path / name, "results", served)
    if request.param == "s3":
        for name, value in request.getfixturevalue("server").items():
            monkeypatch.setenv(name, value)
    address = {"memory": "memory://", "s3": "s3://bucket/"}[request.param]
    address += str(abs(hash(request.node.name)))
    return lambda name: Uri.below(tmp_path / name, address)


@pytest.fixture
def folder(machine: Machine) -> Folder:
    return machine("a")


def made(root: Path, **files: bytes) -> Path:
    root.mkdir(parents=True)
    for name, content in files.items():
        (root / name).write_bytes(content)
    return root


def test_the_first_to_put_a_name_stays_unless_it_is_replaced(folder: Folder) -> None:
    for name in ("plain", ODD):
        assert not folder.exists(name)
        with pytest.raises(FileNotFoundError):
            folder.get(name)
        folder.put(name, b"first")
        folder.put(name, b"second")
        assert folder.exists(name) and folder.get(name) == b"first"
        folder.put(name, b"third", replace=True)
        assert folder.get(name) == folder.local(name).read_bytes() == b"third"
    folder.put("empty", b"")
    assert {name: stamp.size for name, stamp in folder.list().items()} == {
        "plain": 5,
        ODD: 5,
        "empty": 0,
    }
    assert set(folder.list("sub folder")) == {ODD} == set(folder.list(ODD))
    assert folder.list("nothing") == {}


def test_files_and_folders_of_this_machine_are_put_whole(folder: Folder, tmp_path: Path) -> None:
    large = os.urandom(2500)
    folder.put("f/x", made(tmp_path / "one", x=large) / "x")
    assert folder.get("f/x") == large
    folder.put("models/m", made(tmp_path / "two", weights=large, **{"fit.json": b"{}", "no": b""}))
    folder.put("models/m", made(tmp_path / "three", weights=b"other", **{"fit.json": b"other"}))
    assert set(folder.list("models")) == {f"models/m/{n}" for n in ("weights", "fit.json", "no")}
    local = folder.local("models/m")
    assert (local / "weights").read_bytes() == large and (local / "fit.json").read_bytes() == b"{}"
    with folder.scratch() as scratch:
        (scratch / "y").write_bytes(b"y")
        folder.put("f/y", scratch / "y")
    assert folder.get("f/y") == b"y"
    assert not [path for path in folder.here.rglob(".*") if path.is_file()]


def test_what_is_removed_and_moved_is_gone_on_all_machines(machine: Machine) -> None:
    one, other = machine("a"), machine("b")
    for name in ("d/x", "d/deep/y", "z"):
        one.put(name, name.encode())
        other.local(name)
    one.move("d/x", "aside/x")
    assert other.get("aside/x") == b"d/x" and not other.exists("d/x")
    assert {p.name for p in other.local("d").rglob("*") if p.is_file()} == {"y"}
    one.move("d", "e")
    assert set(other.list()) == {"aside/x", "e/deep/y", "z"} and not other.local("d").exists()
    one.remove("e")
    one.remove("z")
    one.remove("z")
    assert set(other.list()) == {"aside/x"} and not other.local("z").exists()
    with pytest.raises(FileNotFoundError):
        one.move("z", "somewhere")


def test_what_another_machine_put_is_fetched_once_and_again_when_it_changes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SETTLED_SECONDS", -1000.0)
    one, other = machine("a"), machine("b")
    one.put("parts/1", b"old")
    one.put("parts/2", b"2")
    assert (other.local("parts") / "1").read_bytes() == b"old"
    with monkeypatch.context() as patch:
        if not isinstance(other, OnDisk):
            patch.setattr(type(other), "_download", lambda *a: pytest.fail("fetched twice"))
        assert (other.local("parts") / "1").read_bytes() == b"old"
    one.put("parts/1", b"newer", replace=True)
    assert (other.local("parts") / "1").read_bytes() == b"newer"


def test_who_lists_while_others_write_sees_whole_files_alone(machine: Machine) -> None:
    size, ended = 300_000, threading.Event()

    def write(number: int) -> None:
        for count in range(8):
            machine(f"w{number}").put(f"parts/{number}-{count}", bytes([number]) * size)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    reader = machine("r")
    while not ended.is_set():
        if not any(writer.is_alive() for writer in writers):
            ended.set()
        for name, stamp in reader.list("parts").items():
            assert stamp.size == size, name
        for path in reader.local("parts").glob("[!.]*"):
            assert len(set(path.read_bytes())) == 1 and path.stat().st_size == size
    assert len(reader.list("parts")) == 24


def test_lines_of_several_that_append_are_all_there_in_order(machine: Machine) -> None:
    def append(writer: int) -> None:
        for number in range(10):
            machine(f"w{writer}").append("log.jsonl", entry(writer=writer, number=number))

    writers = [threading.Thread(target=append, args=(writer,)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = [(e["writer"], e["number"]) for e in entries(machine("r").local("log.jsonl"))]
    assert len(found) == 30
    assert all([n for w, n in found if w == writer] == [*range(10)] for writer in range(3))
    assert [*entries(machine("r").local("none.jsonl"))] == []


def test_processes_of_one_machine_wait_for_one_another_and_machines_where_a_disk_is_shared(
    machine: Machine,
) -> None:
    waited: list[str] = []

    def wait(name: str) -> threading.Thread:
        def enter() -> None:
            with machine(name).lock("cell", lambda: waited.append(name)):
                pass

        thread = threading.Thread(target=enter)
        thread.start()
        return thread

    with machine("a").lock("cell", lambda: pytest.fail("waits")):
        same, other = wait("a"), wait("b")
        shared = isinstance(machine("a"), OnDisk)
        deadline = time.monotonic() + 20
        while len(waited) < 1 + shared and time.monotonic() < deadline:
            time.sleep(0.01)
        other.join(0.2)
        assert same.is_alive() and other.is_alive() == shared
    same.join(20)
    other.join(20)
    assert sorted(waited) == ["a", "b"][: 1 + shared]


def test_no_name_leads_out_of_the_folder(folder: Folder, tmp_path: Path) -> None:
    names = ["../x", f"{tmp_path}/x", "a/../../x"]
    if isinstance(folder, Near):  # nor, at the driver, by a link
        (tmp_path / "home").mkdir()
        (tmp_path / "home/link").symlink_to(tmp_path)
        names.append("link/x")
    for name in names:
        for ask in (folder.local, folder.remove, lambda name: folder.put(name, b"1")):
            if not isinstance(folder, Uri) or ask == folder.local:
                with pytest.raises((UsageError, ValueError), match="outside"):
                    ask(name)
    assert not list(tmp_path.rglob("x"))


def test_nothing_of_a_put_that_broke_off_is_seen(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, a store that goes away, a node that dies: half a model is none."""
    one, count = machine("a"), 0

    def broken(real: Callable[..., object]) -> Callable[..., object]:
        def call(*values: object, **named: object) -> object:
            nonlocal count
            count += 1
            if count == 2:
                raise OSError("No space left on device")
            return real(*values, **named)

        return call

    with monkeypatch.context() as patch:
        if isinstance(one, OnDisk):
            patch.setattr(module.shutil, "move", broken(module.shutil.move))
        elif isinstance(one, Near):
            patch.setattr(one.desk, "take", broken(one.desk.take))
        else:
            patch.setattr(Uri, "_write", broken(Uri._write))
        source = made(tmp_path / "m", weights=b"w", **{"fit.json": b"{}"})
        with pytest.raises(OSError, match="No space left"):
            one.put("models/m", source)
    assert not one.exists("models/m/fit.json")
    source = made(tmp_path / "again", weights=b"w", **{"fit.json": b"{}"})
    one.put("models/m", source)
    assert {p.name for p in machine("b").local("models/m").iterdir()} == {"weights", "fit.json"}


def test_a_store_that_goes_away_is_waited_for_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, away = Uri.below(tmp_path, "memory://outage/runs"), 0
    real, slept = MemoryFileSystem.pipe_file, []

    def pipe(self: MemoryFileSystem, path: str, value: bytes, **named: object) -> None:
        nonlocal away
        away -= 1
        if away >= 0:
            raise ConnectionError("AWS Error NETWORK_CONNECTION during Put: no route (Request ID)")
        real(self, path, value, **named)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe)
    monkeypatch.setattr(module.time, "sleep", slept.append)
    away = 3
    said: list[str] = []
    folder.patient(said.append).put("parts/1", b"1")
    assert folder.get("parts/1") == b"1" and slept == [0.5, 1.0, 2.0]
    assert said == [
        "memory://outage/runs: NETWORK_CONNECTION during Put: no route; it is waited for",
        "memory://outage/runs: answers again",
    ]
    away = 1
    with pytest.raises(OSError, match=r"^memory://outage/runs: NETWORK_CONNECTION .* no route$"):
        folder.put("parts/2", b"2")
    assert set(folder.list()) == {"parts/1"}


def test_a_piece_that_is_sent_twice_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray does where the driver's process was started again."""
    monkeypatch.setattr(relay, "PIECE", 10)
    served = desk(tmp_path / "home", tmp_path / "cache")
    folder, real = Near(tmp_path / "a", "results", served), served.take
    monkeypatch.setattr(served, "take", lambda *values: (real(*values), real(*values)))
    content = os.urandom(35)
    folder.put("x", made(tmp_path / "source", x=content) / "x")
    assert folder.get("x") == content and set(OnDisk(tmp_path / "home").list()) == {"x"}


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense://host/x", "nonsense"),
        ("s3:///x", "Missing bucket name"),
        ("s3://", "names no folder; write s3://BUCKET/FOLDER"),
        ("s3://me:secret@bucket/x", "leave its key to the environment"),
        ("adl://bucket/x", "adlfs"),
    ],
)
def test_an_address_that_is_none_or_wants_a_package_is_one_line(
    tmp_path: Path, address: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught:
        Uri.below(tmp_path, address).list()
    line = str(caught.value)
    assert says in line and "\n" not in line and "secret" not in line


def test_a_disk_keeps_what_is_hidden_and_linked(tmp_path: Path) -> None:
    """What is being written is no result; a part of a folder may lie on another disk."""
    folder = OnDisk(tmp_path / "runs")
    (tmp_path / "other").mkdir()
    folder.put("x", b"x")
    (folder.here / "models").symlink_to(tmp_path / "other")
    folder.put("models/m/fit.json", b"{}")
    (folder.here / ".half.tmp").write_bytes(b"?")
    assert (tmp_path / "other/m/fit.json").read_bytes() == b"{}"
    assert "models/m/fit.json" in folder.list("models") and ".half.tmp" not in folder.list()
