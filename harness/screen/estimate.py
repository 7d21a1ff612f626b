"""The costs of a plan before it runs: cells, FLOPs, banks, disk, memory."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import torch
from rich.box import SIMPLE
from rich.table import Table

from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.plan.plan import MISSING
from harness.plan.registry import load
from harness.screen.progress import lasting
from harness.work.cache import FeatureCache, missing_features
from harness.work.cost import cost_of, feature_bytes, feature_flops, memory_of, work_of
from harness.work.features import in_one_pass
from harness.work.jobs import jobs
from harness.work.memory import machine_memory

GIGA, TERA = 1e9, 1e12
COLUMNS = ("cells", "to do", "bank GB", "train GB", "fit", "score")
CAPTION = (
    "fit, score: TFLOP of what is to do. train GB: weights, gradients, two moments and textures; "
    "activations come on top. bank GB: while it is chosen"
)


def estimate(cells: Sequence[Cell], todo: Sequence[Cell]) -> Table:
    """A line for each row of the report, and their sum; cells that share a fit learn once."""
    table = Table("data", "method", box=SIMPLE, caption=CAPTION, caption_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    rows: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault((cell.data.label, f"{cell.method} {cell.variant}".strip()), []).append(cell)
    undone = {cell.cell_id for cell in todo}
    fits, scores = 0.0, 0.0
    for row, of_row in rows.items():
        first, left = of_row[0], [cell for cell in of_row if cell.cell_id in undone]
        cost, works = cost_of(first), [work_of(group) for group in jobs(left)]
        fit = sum(work["fit"] for work in works)
        score = sum(sum(work.values()) for work in works) - fit
        fits, scores = fits + fit, scores + score
        to_do = "no weights" if first.weights_sha256 == MISSING else str(len(left))
        sizes = (f"{size / GIGA:.2f}" for size in (cost.bank_bytes, cost.training_bytes))
        table.add_row(*row, str(len(of_row)), to_do, *sizes, _tera(fit), _tera(score))
    table.add_section()
    table.add_row("all", "", str(len(cells)), str(len(todo)), "", "", _tera(fits), _tera(scores))
    return table


def totals(cells: Sequence[Cell], cache: FeatureCache, resources: Resources) -> list[str]:
    """Lines on what the cells still take here: work, disk and memory."""
    if not cells:
        return ["nothing to do"]
    missing, groups, rate = missing_features(cells, cache), jobs(cells), flops_per_second()
    passes, size = in_one_pass(missing), sum(map(feature_bytes, missing))
    making = sum(feature_flops(sets[0]) for sets in passes)
    flops = making + sum(sum(work_of(group).values()) for group in groups)
    a_gpu = resources.gpus if resources.gpus is not None else torch.cuda.device_count()
    needs = {group[0].label: memory_of(group[0], on_gpu=bool(a_gpu)) for group in groups}
    largest = max(needs, key=needs.__getitem__)
    here = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "this CPU"
    return [
        f"features: {len(missing)} sets to make in {len(passes)} passes, {_tera(making)} "
        f"TFLOP with reading images, {size / GIGA:.2f} GB of cache",
        f"here: features, fits and scoring are {_tera(flops)} TFLOP, at least "
        f"{lasting(flops / rate)} at the {rate / GIGA:,.0f} GFLOP/s that a matrix product just "
        f"reached on {here} ({os.cpu_count()} CPUs); a run measures what it really takes",
        f"memory: {largest} needs {needs[largest] / GIGA:.1f} of {machine_memory() / GIGA:.0f} GB",
    ]


def cautions(cells: Sequence[Cell]) -> list[str]:
    """Warnings to read before these cells are trained, a line for each setting."""
    lines: dict[str, None] = {}
    for cell in cells:
        if caution := load("methods", cell.method).caution(cell.config):
            name = f"{cell.method} ({cell.variant})" if cell.variant else cell.method
            lines[f"warning: {name}, {cell.preset}: {caution}"] = None
    return list(lines)


def flops_per_second() -> float:
    """A large matrix product on this machine's best device, timed."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = 4096 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device)
    (a @ a).sum().item()
    started = time.perf_counter()
    (a @ a).sum().item()
    return 2 * side**3 / (time.perf_counter() - started)


def _tera(flops: float) -> str:
    return f"{flops / TERA:,.2f}"
