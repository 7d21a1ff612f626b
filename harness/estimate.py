"""What a plan will cost, before it runs: cells, banks, disk, time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import polars as pl
import torch
from rich.box import SIMPLE
from rich.table import Table

from harness.features import FeatureCache, missing_features
from harness.plan import MISSING
from harness.registry import load
from harness.spec import Cell
from harness.store import Store
from methods.parts.backbone import feature_channels
from results.table import read

GIGA = 1e9


def estimate(cells: Sequence[Cell], store: Store, cache: FeatureCache) -> Table:
    """A table of the cells; time is that of like cells in the store (as seen), else counted FLOPs
    at this machine's measured matrix-product rate (~)."""
    rate = _flops_per_second()
    table = Table(box=SIMPLE, caption=f"{_disk(cells, cache)}; {_rate(rate)}")
    for name in ("cell", "what", "state", "bank rows", "bank GB", "PFLOP", "time"):
        table.add_column(name, no_wrap=True)
    known = _known_seconds(store)
    for cell in cells:
        cost = load("methods", cell.method).cost(cell.config, cell.data.train_images)
        measured = known.get((cell.config_hash, cell.data.train_fingerprint))
        counted = (cost.train_flops + cost.coreset_flops) / rate
        table.add_row(
            cell.cell_id,
            cell.label,
            _state(cell, store),
            f"{cost.bank_rows:,}",
            f"{cost.bank_bytes / GIGA:.2f}",
            f"{(cost.train_flops + cost.coreset_flops) / 1e15:,.3g}",
            f"{_span(measured)} seen" if measured else f"~{_span(counted)}",
        )
    return table


def _state(cell: Cell, store: Store) -> str:
    if cell.weights_sha256 == MISSING:
        return "weights missing"
    return "done" if store.done(cell) else "to do"


def _rate(rate: float) -> str:
    gpu = f"{torch.cuda.get_device_name(0)}" if torch.cuda.is_available() else "this CPU"
    return f"~ assumes {rate / GIGA:,.0f} GFLOP/s, just measured on {gpu}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"


def _disk(cells: Sequence[Cell], cache: FeatureCache) -> str:
    missing = missing_features(cells, cache)
    size = 0.0
    for task in missing:
        images = task.data.train_images if task.split == "train" else task.data.test_images
        size += 2.0 * images * feature_channels(task.features) * task.features.grid**2
    return f"{len(missing)} sets of frozen features to compute, {size / GIGA:.2f} GB of cache"


def _known_seconds(store: Store) -> dict[tuple[str, str], float]:
    """Mean fit + score seconds of finished cells, by settings and training data."""
    try:
        frame = read(store.out)
    except ValueError:
        return {}
    seconds = (
        frame.filter(pl.col("fit_seconds").is_not_null())
        .unique("cell_id")
        .with_columns(train=pl.col("data_fingerprint").str.head(16))
        .group_by("config_hash", "train")
        .agg((pl.col("fit_seconds") + pl.col("score_seconds")).mean().alias("seconds"))
    )
    return {(a, b): s for a, b, s in seconds.iter_rows()}


def _flops_per_second() -> float:
    """A large matrix product on this machine's best device, timed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 4096 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device)
    (a @ a).sum().item()
    started = time.perf_counter()
    (a @ a).sum().item()
    return 2 * side**3 / (time.perf_counter() - started)
