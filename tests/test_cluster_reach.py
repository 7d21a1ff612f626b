"""Whose Ray is used, and what becomes of one that does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from harness.cluster import reach, session
from harness.cluster.reach import check_answers, watched
from harness.cluster.session import HOME, OURS, cluster
from harness.commands.doctor import listening
from harness.plan.registry import UsageError


@pytest.fixture(autouse=True)
def _ray_of_others_goes_on(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a cluster is only made up, its end is too."""
    if "ray_here" not in request.fixturenames:
        monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def at(server: socket.socket) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_an_address_where_nothing_is_ends_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = at(server)
    started = time.monotonic()
    with pytest.raises(UsageError, match=rf"^--address {address}: no Ray .*refused.* leave the a"):
        check_answers(address)
    assert time.monotonic() - started < 3


def test_an_address_where_something_else_listens_ends_soon(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 4)
    monkeypatch.setenv("RAY_ADDRESS", at(silent))
    started = time.monotonic()
    with pytest.raises(UsageError, match=rf"^RAY_ADDRESS={at(silent)}: no Ray cluster to work"):
        check_answers(at(silent))
    assert time.monotonic() - started < 15


def test_another_version_is_said_with_what_helps(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "Traceback ...\nRuntimeError: Ray version mismatch: cluster has Ray version 2.40.0"
    answer = SimpleNamespace(returncode=1, stdout="", stderr=said)
    monkeypatch.setattr(reach.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(UsageError, match=r"version 2\.40\.0\); install its version here, name ano"):
        check_answers(at(silent))


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:0", "::1", "auto"])
def test_words_that_are_no_address(
    address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if address == "auto" and not subprocess.run(["pgrep", "gcs_server"]).returncode:
        pytest.skip("another Ray runs on this machine, which the word names")
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray/ray_current_cluster").write_text("127.0.0.1:1")  # of one that was killed
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 4)
    with pytest.raises(UsageError, match=f"^--address {address}: no Ray cluster to work with"):
        check_answers(address)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How `ray.init` was called, and where: nothing is started."""
    calls: list[dict[str, Any]] = []

    def init(**named: Any) -> None:
        calls.append(named | {"cwd": Path.cwd()})

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(session, "check_answers", lambda address: None)
    context = SimpleNamespace(gcs_address="local")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(reach, "answers", lambda address: True)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of this test")
    monkeypatch.setenv("TMPDIR", "/tmp")
    return calls


@pytest.mark.parametrize(
    "option, variable, wanted",
    [
        (None, None, OURS),
        (None, "", OURS),
        ("", "", OURS),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        (None, "auto", "auto"),
    ],
)
def test_nobodys_cluster_is_joined_unasked(
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    option: str | None,
    variable: str | None,
    wanted: str,
) -> None:
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    with cluster(option):
        pass
    assert [call["address"] for call in asked] == [wanted]


def test_workers_find_our_packages_first(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with cluster(None):
        assert Path.cwd() == tmp_path, "only while Ray takes down the folder"
    assert asked[0]["cwd"] == HOME and (HOME / "kernels").is_dir()


@pytest.mark.parametrize(
    "variables, wanted",
    [
        ({}, "/tmp"),
        ({"TMPDIR": "/tmp/" + "a" * 90}, "/tmp"),
        ({"RAY_TMPDIR": "/tmp/" + "a" * 90}, "/tmp"),
        ({"RAY_TMPDIR": "/var/tmp", "TMPDIR": "/tmp/" + "a" * 90}, "/var/tmp"),
        ({"RAY_TMPDIR": ""}, "/tmp"),
    ],
)
def test_a_folder_too_long_for_sockets_is_replaced(
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    wanted: str,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with cluster(None):
        folder = Path(asked[0]["_temp_dir"])
        assert folder.parent == Path(wanted)
        assert folder.stat().st_mode & 0o777 == 0o700, "no other user gets at what Ray keeps there"
    assert not folder.exists()


def test_nobody_without_the_token_works_with_our_cluster(ray_here: None) -> None:
    """Ray listens on all interfaces: a client of another user finds it, and is refused."""
    address = ray.get_runtime_context().gcs_address
    stranger = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    ask = f"import ray; ray.init(address={address!r}, log_to_driver=False); print('ENTERED')"
    trying = [
        subprocess.Popen(
            [sys.executable, "-c", ask],
            env={**stranger, "RAY_AUTH_MODE": mode, "HOME": "/nonexistent"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for mode in ("disabled", "token")
    ]
    for client in trying:
        printed, _ = client.communicate(timeout=120)
        assert client.returncode and "ENTERED" not in printed, printed


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Version mismatch: The cluster was started with:\n   Ray: 2.40.0\n"),
        ConnectionError("no"),
        ValueError("odd"),
        OSError(13, "Permission denied", "/tmp/ray"),
        ray.exceptions.AuthenticationError("token"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("address", [None, "10.0.0.1:6379"])
def test_ray_that_does_not_start_is_one_line(
    asked: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    address: str | None,
) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(UsageError) as caught, cluster(address):
        pass
    said = str(caught.value)
    assert "\n" not in said
    assert said.startswith("--address 10.0.0.1:6379: " if address else "Ray can't start here: ")
    if isinstance(error, RuntimeError) and "2.40" in str(error):
        assert "Ray: 2.40.0" in said


def test_a_cluster_that_dies_ends_what_waits_for_it(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "WATCH_SECONDS", 0.2)
    threading.Timer(1, silent.close).start()
    started = time.monotonic()
    lost = pytest.raises(UsageError, match=r"answers no more; what was finished is kept")
    with lost, watched(at(silent)):
        while time.monotonic() < started + 30:
            time.sleep(0.1)  # as a call of Ray that waits
    assert time.monotonic() - started < 10


def test_an_error_of_ray_is_told_from_the_loss_of_all(silent: socket.socket) -> None:
    with pytest.raises(ray.exceptions.RayError, match="odd"), watched(at(silent)):
        raise ray.exceptions.RayError("odd")
    address = at(silent)
    silent.close()
    with pytest.raises(UsageError, match="answers no more"), watched(address):
        raise ray.exceptions.RayError("odd")


def test_rays_client_is_refused_with_the_way_to_do_it() -> None:
    refused = pytest.raises(UsageError, match=r"--address ray://h:1: .* ray job submit")
    with refused as caught, cluster("ray://h:1"):
        pass
    assert "\n" not in str(caught.value)


def test_doctor_says_what_listens(ray_here: None) -> None:
    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    lines = listening()
    assert [line for line in lines if line.startswith("gcs_server") and f"{port} from all" in line]
    assert any(line.startswith("raylet") for line in lines)
