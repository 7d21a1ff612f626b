"""`lafite-bench synth`: synthetic anomalies as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.plan.options import (
    ANOMALIES,
    CATEGORIES,
    Anomalies,
    Benchmark,
    DataRoot,
    Share,
    keeping,
    searching,
)


def command(
    benchmark: Benchmark,
    *,
    out: Annotated[Path, keeping(help="A new folder, in the MVTec layout.")],
    categories: Annotated[list[str] | None, CATEGORIES] = None,
    data: DataRoot = None,
    share: Share = 0.1,
    anomalies: Anomalies = ANOMALIES,
    seed: Annotated[int, searching(help="Other anomalies.")] = 0,
) -> None:
    """Write synthetic anomalies of all families, made of normal images, and a contact sheet.

    Example: lafite-bench synth shapes --out my-parts
    """
    from rich.console import Console

    from harness.checks.synthetic_folder import check_new, write_synthetic
    from harness.plan.cell import Held, open_benchmark
    from harness.plan.datasets import check_categories, held_and_seen
    from harness.screen.progress import noting, tally

    check_new(out)
    source = open_benchmark(benchmark, data)
    check_categories(benchmark, source, categories or ())
    console, wanted = Console(stderr=True), tuple(categories or source.categories())
    held = Held(share, seed, anomalies)
    with console.status("drawing the anomalies"):
        _, pseudo = held_and_seen(source, wanted, held, noting(console))
    with tally(f"synthesis on {benchmark}", console) as show_progress:
        typer.echo(str(write_synthetic(pseudo, out, show_progress)))
