"""`lafite-bench status`: what runs, from anywhere that sees the folder of results."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import typer

from harness.plan.options import DEFAULT_OUT, Results
from harness.plan.registry import UsageError

SILENT = 120
"""Seconds after which a command that wrote nothing may be gone."""


def command(path: Results = DEFAULT_OUT) -> None:
    """Say what runs where, since when, how far it is, and what is done or failed.

    Example: lafite-bench status results/runs
    """
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder of results; name the --out of a run")
    done, failed = (len(list((path / k).glob("[!.]*.parquet"))) for k in ("parts", "failures"))
    typer.echo(f"{done} cells done, {failed} failed attempts")
    for line in list(what_runs(path)) or ["nothing runs"]:
        typer.echo(line)


def what_runs(out: Path) -> Iterator[str]:
    """The last news of all commands that work into a folder: a line each, and one a task."""
    from harness.screen.progress import lasting
    from results.files import record_in

    for path in sorted((out / "running").glob("[!.]*.json")):
        # It ended while we looked, or is no file of ours.
        with suppress(OSError, ValueError, TypeError, KeyError):
            told = record_in(path.read_bytes())
            silent, (head, *doing) = time.time() - told["heard"], told["lines"]
            gone = f"; silent for {lasting(silent)}: is it still there?" if silent > SILENT else ""
            yield f"{path.stem}, {head}{gone}"
            yield from (f"  {line}" for line in doing)
