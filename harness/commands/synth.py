"""`lafite-bench synth`: synthetic anomalies as files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.options import (
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
    anomalies: Anomalies = 1,
    seed: Annotated[int, searching(help="Other anomalies.")] = 0,
) -> None:
    """Write synthetic anomalies, made of normal images alone, and a contact sheet."""
    from rich.console import Console

    from benchmarks.parts.synthesis.pseudo import pseudo_validation
    from harness.cell import open_benchmark
    from harness.commands._progress import tally
    from harness.commands._synthetic_folder import check_new, write_synthetic
    from harness.plan import check_categories

    check_new(out)
    source = open_benchmark(benchmark, data)
    check_categories(benchmark, source, categories or ())
    pseudo = pseudo_validation(
        source, categories or None, share=share, seed=seed, anomalies=anomalies
    )
    with tally(f"synthesis on {benchmark}", Console(stderr=True)) as show_progress:
        typer.echo(str(write_synthetic(pseudo, out, show_progress)))
