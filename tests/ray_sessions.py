"""Drivers of Ray that are killed in the middle, for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

PATIENCE = 400


def killed_when(command: Sequence[str], reached: Callable[[], bool]) -> None:
    """Start a driver, kill it (-9) as soon as `reached`, and wait until its processes are gone."""
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert driver.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    _wait_for_silence(driver.pid)


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
