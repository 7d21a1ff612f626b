"""`lafite-bench list`: what there is."""

from __future__ import annotations

import typer

from harness.registry import KINDS, installed, names, package_of


def command() -> None:
    """Print what there is: methods, data sets, kernels, metrics, races of `speed`."""
    from results.metrics import METRICS

    known = {kind: names(kind) for kind in ("methods", "benchmarks", "kernels", "races")}
    for kind, words in (known | {"metrics": list(METRICS)}).items():
        typer.echo(f"{kind}: {', '.join(words)}")
        for name, entry in installed(kind).items() if kind in KINDS else ():
            typer.echo(f"  {name} ({package_of(entry)})")
