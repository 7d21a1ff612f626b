"""What a plan will cost, before it runs: cells, banks, disk, time."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import polars as pl
import torch
from rich.box import SIMPLE
from rich.console import JustifyMethod
from rich.table import Table

from harness.cache import FeatureCache, missing_features
from harness.cell import Cell
from harness.cost import cost_of, feature_bytes, work_of
from harness.plan import MISSING
from harness.registry import load
from harness.store.store import Store
from methods.parts.cost import Cost
from results.table import read

GIGA = 1e9
GPU = "H100"
GPU_PEAK = {"bfloat16": 989e12, "float32": 67e12}
"""Dense FLOP/s of an H100 SXM by its data sheet, by the precision of the settings."""
GPU_BYTES = 3.35e12
"""Bytes/s of its memory, which bound a coreset."""
GPU_SHARE = 0.4
"""The share of either that is assumed to be reached."""
COLUMNS = ("data", "method", "cells", "to do", "bank GB", "train GB", "here", GPU)


def estimate(
    cells: Sequence[Cell],
    store: Store,
    known: Mapping[tuple[str, str], tuple[float, float]],
    rate: float,
) -> Table:
    """A line for each row of the report, with the time of what is to do, and the sum of all.

    Time here is that of like cells in the store (as seen), else counted FLOPs at this machine's
    measured matrix-product rate (~); on one GPU it is only assumed.
    """
    table = Table(box=SIMPLE, caption=_rate(rate), caption_justify="left", show_footer=True)
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.data.label, f"{cell.method} {cell.variant}".strip()), []).append(cell)
    lines, here, there = [], 0.0, 0.0
    for (data, method), of_row in rows.items():
        first, todo = of_row[0], [cell for cell in of_row if not store.done(cell)]
        cost = cost_of(first)
        each = [seconds_here(cell, known, rate) for cell in todo]
        on_gpu = gpu_seconds(cost, precision_of(first)) * len(todo)
        here, there = here + sum(seconds for seconds, _ in each), there + on_gpu
        mark = "" if all(seen for _, seen in each) else "~"
        lines.append(
            [
                data,
                method,
                str(len(of_row)),
                "no weights" if first.weights_sha256 == MISSING else str(len(todo)),
                f"{cost.bank_bytes / GIGA:.2f}",
                f"{cost.training_bytes / GIGA:.2f}",
                f"{mark}{duration(sum(seconds for seconds, _ in each))}",
                duration(on_gpu),
            ]
        )
    undone = sum(not store.done(cell) for cell in cells)
    sums = ["all", "", str(len(cells)), str(undone), "", "", f"~{duration(here)}", duration(there)]
    for name, footer in zip(COLUMNS, sums, strict=True):
        side: JustifyMethod = "left" if name in COLUMNS[:2] else "right"
        table.add_column(name, footer=footer, justify=side, no_wrap=name not in COLUMNS[:2])
    for line in lines:
        table.add_row(*line)
    return table


def seconds_here(
    cell: Cell, known: Mapping[tuple[str, str], tuple[float, float]], rate: float
) -> tuple[float, bool]:
    """What a cell takes on this machine, and whether like ones were seen."""
    if seen := known.get((cell.config_hash, cell.data.train_fingerprint)):
        return sum(seen), True
    return sum(work_of([cell]).values()) / rate, False


def cautions(cells: Sequence[Cell]) -> list[str]:
    """What is to be read before these cells are trained, a line for each setting."""
    lines: dict[str, None] = {}
    for cell in cells:
        if caution := load("methods", cell.method).caution(cell.config):
            name = f"{cell.method} ({cell.variant})" if cell.variant else cell.method
            lines[f"warning: {name}, {cell.preset}: {caution}"] = None
    return list(lines)


def precision_of(cell: Cell) -> str:
    """Of its network; a method from elsewhere may have no such setting."""
    return getattr(cell.config, "precision", "float32")


def gpu_seconds(cost: Cost, precision: str) -> float:
    """Seconds of a fit on one GPU at the assumed rates: a projection, never a measurement."""
    train = cost.train_flops / (GPU_PEAK[precision] * GPU_SHARE)
    return train + cost.coreset_bytes / (GPU_BYTES * GPU_SHARE)


def _rate(rate: float) -> str:
    here = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "this CPU"
    peaks = ", ".join(f"{peak / 1e12:.0f} TFLOP/s in {name}" for name, peak in GPU_PEAK.items())
    return (
        f"here: single cells, summed; ~ is FLOPs at {rate / GIGA:,.0f} GFLOP/s, just measured on "
        f"{here}\n"
        f"{GPU}: assumed, not measured: one {GPU} that reaches {GPU_SHARE:.0%} of {peaks}, and of "
        f"{GPU_BYTES / 1e12} TB/s for the coreset; fit only\n"
        "train GB: weights, gradients, two moments and textures; activations come on top. bank GB: "
        "while it is chosen"
    )


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"


def disk(cells: Sequence[Cell], cache: FeatureCache) -> str:
    """What is to be written: cached features; models and rows are small beside them."""
    missing = missing_features(cells, cache)
    size = sum(map(feature_bytes, missing))
    return f"{len(missing)} sets of features or pixels to make, {size / GIGA:.2f} GB of cache"


def known_seconds(store: Store) -> dict[tuple[str, str], tuple[float, float]]:
    """Mean seconds of learning, and of scoring and measuring, of finished cells, by settings and
    training data."""
    try:
        frame = read(store.out)
    except ValueError:
        return {}
    seconds = (
        frame.filter(pl.col("fit_seconds").is_not_null())
        .unique("cell_id")
        .with_columns(train=pl.col("data_fingerprint").str.head(16))
        .group_by("config_hash", "train")
        .agg(
            pl.col("fit_seconds").mean(),
            (pl.col("finished_at") - pl.col("started_at")).dt.total_microseconds().mean() / 1e6,
        )
    )
    return {(a, b): (fit, rest) for a, b, fit, rest in seconds.iter_rows()}


def flops_per_second() -> float:
    """A large matrix product on this machine's best device, timed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 4096 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device)
    (a @ a).sum().item()
    started = time.perf_counter()
    (a @ a).sum().item()
    return 2 * side**3 / (time.perf_counter() - started)
