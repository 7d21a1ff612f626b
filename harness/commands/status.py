"""`lafite-bench status`: what runs, from anywhere that sees the folder of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.options import DEFAULT_OUT, Results
from harness.registry import UsageError

if TYPE_CHECKING:
    from rich.table import Table

SILENT = 120
"""Seconds after which a command that wrote nothing may be gone."""


def command(path: Results = DEFAULT_OUT) -> None:
    """Say what runs where, since when, how far it is, and what is done or failed.

    Example: lafite-bench status results/runs
    """
    import time

    from rich.console import Console

    from harness.commands._running import what_runs

    if not path.is_dir():
        raise UsageError(f"{path}: no such folder of results; name the --out of a run")
    console, now = Console(), time.time()
    done, failed = _count(path, "parts"), _count(path, "failures")
    console.print(f"{done} cells done, {failed} failed attempts", highlight=False)
    commands = what_runs(path)
    if not commands:
        console.print("nothing runs", highlight=False)
    for one in commands:
        console.print(_headline(one, now), highlight=False, markup=False, soft_wrap=True)
        if one["work"]:
            console.print(_work(one["work"], now))


def _count(out: Path, kind: str) -> int:
    return len(list((out / kind).glob("[!.]*.parquet")))


def _headline(one: dict[str, Any], now: float) -> str:
    from harness.commands._estimate import duration

    left = one.get("left", 0)
    eta = f", about {duration(left)} left" if left else ""
    silent = now - one["heard"]
    gone = f"; silent for {duration(silent)}: is it still there?" if silent > SILENT else ""
    return (
        f"{one['command']}, {one['title']}: {one['done']} of {one['total']} "
        f"in {duration(one['heard'] - one['since'])}{eta}{gone}"
    )


def _work(items: list[dict[str, Any]], now: float) -> Table:
    from rich.box import SIMPLE
    from rich.table import Table

    from harness.commands._estimate import duration

    table = Table(box=SIMPLE)
    for name in ("what", "where", "stage", "step", "loss", "for"):
        table.add_column(name, justify="left" if name in ("what", "where", "stage") else "right")
    for item in items:
        loss = "" if item["loss"] is None else f"{item['loss']:.4f}"
        step = f"{item['step']} of {item['steps']}"
        table.add_row(
            item["label"], item["where"], item["stage"], step, loss, duration(now - item["since"])
        )
    return table
