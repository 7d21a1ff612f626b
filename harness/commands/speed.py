"""`lafite-bench speed`: what is ours beside what one would use instead."""

from __future__ import annotations

from functools import partial

import typer

from harness.options import RaceOptions
from harness.registry import UsageError, did_you_mean, load, names

DEFAULT = ("kernels", "backbone")


def command(options: RaceOptions) -> None:
    """Time kernels, networks, metrics and searches beside their alternatives.

    Example: lafite-bench speed --op metrics --quick
    """
    for name in DEFAULT if options.op is None else [_race(options.op)]:
        for line in load("races", name)(options, partial(typer.echo, err=True)):
            typer.echo(line)


def _race(op: str) -> str:
    """The race of this name; that of the kernels for a kernel's name."""
    kernels = [load("kernels", name).name for name in names("kernels")]
    if op not in (races := names("races")) and op not in kernels:
        raise UsageError(f"--op {op}: {did_you_mean(op, [*races, *kernels])}")
    return "kernels" if op in kernels else op
