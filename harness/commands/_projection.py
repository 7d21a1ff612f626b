"""How long a plan would take on other machines: its cells, placed as Ray places them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch

from harness.cache import FeatureCache
from harness.cell import Cell
from harness.commands._estimate import GIGA, disk, duration, gpu_seconds, precision_of
from harness.cost import Job, Node, cost_of, memory_of, schedule, work_of
from harness.execute import jobs
from harness.memory import machine_memory
from harness.options import Resources
from harness.registry import UsageError

Seen = Mapping[tuple[str, str], tuple[float, float]]
"""Seconds of learning and of all that follows, by settings and training data."""


class Machines(NamedTuple):
    """What a plan is laid out on: nodes, all their GPUs together, and the CPUs of each."""

    nodes: int
    gpus: int
    cpus: int


def machines(nodes: int | None, gpus: int | None, cpus: int | None) -> Machines | None:
    """From the options; None where none was asked for, UsageError where they don't fit."""
    if nodes is None and gpus is None and cpus is None:
        return None
    nodes, gpus = nodes or 1, gpus or 0
    if gpus % nodes:
        raise UsageError(f"--gpus {gpus} --nodes {nodes}: give a multiple of the nodes")
    return Machines(nodes, gpus, cpus or os.cpu_count() or 1)


def projected(
    cells: Sequence[Cell], on: Machines, resources: Resources, seen: Seen, rate: float
) -> list[str]:
    """Makespan, cost and tail, in lines; `rate` is FLOP/s here, for cells unlike any seen."""
    if not cells:
        return []
    a_gpu = resources.gpus if resources.gpus is not None else float(on.gpus > 0)
    room = Node(on.cpus, on.gpus / on.nodes, machine_memory())
    needs = partial(Job, cpus=resources.cpus * resources.workers, gpus=a_gpu * resources.workers)
    groups = jobs(cells)
    lengths = [_seconds(group, bool(a_gpu), seen, rate) for group in groups]
    work = [
        needs(label=group[0].label, seconds=seconds, memory=memory_of(group[0], on_gpu=bool(a_gpu)))
        for group, (seconds, _) in zip(groups, lengths, strict=True)
    ]
    try:
        plan = schedule(work, [room] * on.nodes, begin=_start_seconds())
    except ValueError as error:
        raise UsageError(
            f"--nodes {on.nodes} of {on.cpus} CPU, --gpus {on.gpus}: {error}"
        ) from None
    hours = plan.makespan * on.nodes / 3600
    gpus = f", {plan.makespan * on.gpus / 3600:,.2f} GPU hours" if on.gpus else ""
    measured = sum(known for _, known in lengths)
    each = f"{on.nodes} nodes of {on.cpus} CPU" + (f" and {room.gpus:g} GPU" if on.gpus else "")
    return [
        f"projected on {each}: {len(cells)} cells in about {duration(plan.makespan)} "
        f"({plan.makespan:.0f} s); {hours:,.2f} node hours{gpus}",
        f"places are {plan.busy:.0%} busy; in the last {duration(plan.tail)} less than half of "
        f"them are; the last to end is {plan.last}",
        f"{measured} of {len(groups)} jobs take what like cells took that are stored here, "
        f"{len(groups) - measured} are counted FLOPs" + (" of learning alone" if a_gpu else ""),
    ]


def totals(
    cells: Sequence[Cell], cache: FeatureCache, resources: Resources, seen: Seen, rate: float
) -> list[str]:
    """What is to do takes here, side by side: time, disk, memory, in lines."""
    if not cells:
        return ["nothing to do"]
    cpus = os.cpu_count() or 1
    room = Node(cpus, torch.cuda.device_count(), machine_memory())
    a_gpu = resources.gpus if resources.gpus is not None else float(room.gpus > 0)
    groups = jobs(cells)
    work = [
        Job(
            group[0].label,
            _seconds(group, False, seen, rate)[0],
            min(float(resources.cpus * resources.workers), cpus),
            min(a_gpu * resources.workers, room.gpus),
            memory_of(group[0], on_gpu=bool(a_gpu)),
        )
        for group in groups
    ]
    plan = schedule(work, [room])
    largest = max(work, key=lambda job: job.memory)
    return [
        f"here: about {duration(plan.makespan)} on {cpus} CPUs, beside reading images and scoring; "
        f"the last to end is {plan.last}",
        f"disk: {disk(cells, cache)}",
        f"memory: {largest.label} needs {largest.memory / GIGA:.1f} of {room.memory / GIGA:.0f} GB",
    ]


def _seconds(group: Sequence[Cell], on_gpu: bool, seen: Seen, rate: float) -> tuple[float, bool]:
    """How long cells that share a fit take, and whether like ones were seen."""
    first = group[0]
    if on_gpu:  # what was seen here was seen on other hardware
        return gpu_seconds(cost_of(first), precision_of(first)), False
    known = [seen.get((cell.config_hash, cell.data.train_fingerprint)) for cell in group]
    if None in known:
        return sum(work_of(group).values()) / rate, False
    fits, rests = zip(*filter(None, known), strict=True)
    return max(fits) + sum(rests), True


def _start_seconds() -> float:
    """How long a process takes here that imports what does the work."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import harness.cluster.tasks"], check=False)
    return time.perf_counter() - started
