"""Drivers of Ray that are stopped in the middle, and processes that work for one, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.work.place import Place
from harness.work.task import Task
from methods.parts.progress import OnProgress

PATIENCE = 400


def ended_when(
    command: Sequence[str], reached: Callable[[], bool], how: signal.Signals = signal.SIGKILL
) -> int:
    """Start a driver, send it a signal as soon as `reached`, and wait until its processes are gone.

    Its exit code.
    """
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert driver.poll() is None, "the command ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(how)
    code = driver.wait(PATIENCE)
    _wait_for_silence(driver.pid)
    return code


def workers_of(driver: int, title: str) -> list[int]:
    """Process ids of the workers of a driver's own Ray that have this word in their title."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            named = (folder / "cmdline").read_text()
            if title in named and _parent(_parent(int(folder.name))) == driver:
                found.append(int(folder.name))
        except OSError:
            continue
    assert found, f"no {title} runs"
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])


def _wait_for_silence(session: int) -> None:
    """Ray's processes notice by themselves that their driver is gone; wait, then make sure."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.5)
    os.killpg(session, signal.SIGKILL)


def most_at_once(names: str, place: Place, memory: int = 0) -> int:
    """How many of these tasks, of two seconds each, ran at the same time."""
    from harness.cluster.tasks import on_ray

    def stamping(name: str) -> Task:
        def run(place: Place, tell: OnProgress) -> None:
            began = time.time()
            time.sleep(2)
            (place.store.out / name).write_text(f"{began} {time.time()}")

        return Task(name, run, memory=memory)

    errors = [error for _, error in on_ray([*map(stamping, names)], place, lambda *_: None)]
    assert not any(errors), errors
    spans = [tuple(map(float, (place.store.out / name).read_text().split())) for name in names]
    return max(sum(begin <= start < end for begin, end in spans) for start, _ in spans)
