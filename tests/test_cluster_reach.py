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

import pytest
import ray

from harness.cluster import reach
from harness.cluster.reach import check_answers, watched
from harness.cluster.session import cluster, named
from harness.commands.doctor import listening
from harness.plan.registry import UsageError


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
    with pytest.raises(UsageError, match=rf"^--address {address}: no Ray .*refused.* leave the a"):
        check_answers(address)


def test_an_address_where_something_else_listens_ends_soon(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ANSWER_SECONDS", 4)
    monkeypatch.setenv("RAY_ADDRESS", at(silent))
    with pytest.raises(UsageError, match=rf"^RAY_ADDRESS={at(silent)}: no Ray cluster to work"):
        check_answers(at(silent))


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


@pytest.mark.parametrize(
    "option, variable, wanted",
    [
        (None, None, None),
        ("", "", None),
        (None, "10.0.0.1:6379", "10.0.0.1:6379"),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379"),
        (None, "auto", "auto"),
    ],
)
def test_nobodys_cluster_is_joined_unasked(
    monkeypatch: pytest.MonkeyPatch, option: str | None, variable: str | None, wanted: str | None
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if variable is not None:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    assert named(option) == wanted


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


def test_ray_that_does_not_start_is_one_line_with_what_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    refused = pytest.raises(UsageError, match=r"^Ray can't start here: .*; set RAY_TMPDIR to a.*$")
    with refused, cluster(None):
        pass


def test_a_cluster_that_dies_ends_what_waits_for_it(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)  # that of other tests goes on
    monkeypatch.setattr(reach, "WATCH_SECONDS", 0.2)
    threading.Timer(1, silent.close).start()
    lost = pytest.raises(UsageError, match=r"answers no more; what was finished is kept")
    with lost, watched(at(silent)):
        for _ in range(300):
            time.sleep(0.1)  # as a call of Ray that waits


def test_an_error_of_ray_is_told_from_the_loss_of_all(
    silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(ray.exceptions.RayError, match="odd"), watched(at(silent)):
        raise ray.exceptions.RayError("odd")
    address = at(silent)
    silent.close()
    with pytest.raises(UsageError, match="answers no more"), watched(address):
        raise ray.exceptions.RayError("odd")


def test_rays_client_is_refused_with_the_way_to_do_it() -> None:
    refused = pytest.raises(UsageError, match=r"^--address ray://h:1: .* ray job submit.*$")
    with refused, cluster("ray://h:1"):
        pass


def test_doctor_says_what_listens(ray_here: None) -> None:
    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    lines = listening()
    assert [line for line in lines if line.startswith("gcs_server") and f"{port} from all" in line]
    assert any(line.startswith("raylet") for line in lines)
