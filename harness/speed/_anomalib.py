"""anomalib, in an environment of its own: it asks for other versions than ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from harness.registry import UsageError

VARIABLE = "LAFITE_BENCH_ANOMALIB"
"""Names the python of that environment."""
ROOT = Path(__file__).parents[2]


def python() -> str:
    """That python; empty where none is named."""
    return os.environ.get(VARIABLE, "")


def printed(*arguments: str) -> list[str]:
    """The words of the last line that it prints; UsageError, in one line, where it fails."""
    done = subprocess.run(
        [python(), "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    if done.returncode:
        why = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UsageError(f"speed: {VARIABLE}={python()}: {why[-1]}")
    return done.stdout.splitlines()[-1].split()
