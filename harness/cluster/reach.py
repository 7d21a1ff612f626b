"""Whether a Ray cluster answers: before it is joined, and as long as it is worked with."""

from __future__ import annotations

import _thread
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
from unittest.mock import patch

import psutil
import ray

from harness.plan.registry import UsageError

ANSWER_SECONDS = 20
"""How long a cluster may take to answer before it is joined."""
WATCH_SECONDS, MISSES = 4, 3
"""How often it is looked for afterwards, and how often in a row it may be away."""
LAST_SECONDS = 15
"""How long Ray may take to let go of a cluster that is gone."""
GOODBYE_SECONDS = 2
"""How long a process of our own Ray may take to end by itself, when its node has ended."""


def check_address(address: str) -> None:
    """UsageError for Ray's client: its driver lives on another machine than the results."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--address {address}: Ray's client is not supported; run on a node of the cluster "
            "with --address HOST:6379, or by ray job submit (harness/cluster/README.md)"
        )


def check_answers(address: str) -> None:
    """UsageError unless a Ray cluster of our version answers at an address within a short time.

    `ray.init` waits 14 minutes for one that is no more, so another process asks first.
    """
    option = "RAY_ADDRESS=" if os.environ.get("RAY_ADDRESS") == address else "--address "
    ask = "import sys; from ray.scripts.scripts import main; sys.exit(main())"
    command = [sys.executable, "-c", ask, "health-check", "--address", address]
    try:
        _connect(address)
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        why = f"in {ANSWER_SECONDS} s"
    except (OSError, OverflowError) as error:
        why = str(error)
    else:
        if answer.returncode == 0:
            return
        why = ([*answer.stdout.splitlines(), *answer.stderr.splitlines()] or ["no reason"])[-1]
    first = "install its version here" if "mismatch" in why else "start it"
    raise UsageError(
        f"{option}{address}: no Ray cluster to work with answers there ({why}); {first}, name "
        "another, or leave the address out to work on this machine"
    )


@contextmanager
def watched(address: str) -> Iterator[None]:
    """Ends the block with UsageError, within a minute, when the cluster there answers no more.

    A call of Ray that waits for what is gone is interrupted as by Ctrl-C; where even that does not
    end it, the process ends, since nothing but waiting is left.
    """
    lost, ended = Event(), Event()
    line = (
        f"the Ray cluster at {address} answers no more; what was finished is kept: run the same "
        "command again when it is back"
    )

    def watch() -> None:
        misses = 0
        while not ended.wait(WATCH_SECONDS):
            misses = 0 if answers(address) else misses + 1
            if misses == MISSES:
                lost.set()
                _thread.interrupt_main()
                if not ended.wait(LAST_SECONDS):
                    print(f"lafite-bench: {line}", file=sys.stderr, flush=True)
                    os._exit(2)
                return

    Thread(target=watch, daemon=True).start()
    try:
        yield
        let_go()
    except BaseException as error:
        if not (lost.is_set() or (isinstance(error, ray.exceptions.RayError) and gone(address))):
            raise
        raise UsageError(line) from None
    finally:
        let_go()
        ended.set()


def let_go() -> None:
    """Leave the cluster, and end it where it is our own.

    Its processes then hear no SIGTERM, see `ending.deferred`: Ray would wait a second for each.
    What a node's raylet started ends when it misses it, but what was just starting may wait a
    minute for it first: it is killed.
    """
    started = {}
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            if child.name() == "raylet":
                started[child] = child.children(recursive=True)
    with patch.object(subprocess.Popen, "terminate", subprocess.Popen.kill):
        ray.shutdown()
    left = [process for raylet in started if not raylet.is_running() for process in started[raylet]]
    _, waiting = psutil.wait_procs(left, timeout=GOODBYE_SECONDS)
    for process in waiting:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def gone(address: str) -> bool:
    """Whether none of a few questions in a row is answered."""
    return not any(answers(address) for _ in range(MISSES))


def answers(address: str) -> bool:
    """Whether something takes connections at an address."""
    try:
        _connect(address)
    except (OSError, OverflowError):
        return False
    return True


def _connect(address: str) -> None:
    """OSError where the HOST:PORT of an address takes no connection; a word has none."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), WATCH_SECONDS).close()
