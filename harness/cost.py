"""What cells will cost, counted before they run: memory, work, a schedule on machines."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.cell import Cell, Data
from harness.features import FeatureSet
from harness.registry import load
from methods.parts import vit
from methods.parts.backbone import Features, Tokens
from methods.parts.cost import Cost
from methods.parts.shapes import feature_numbers

READ_FLOPS = 1e9
"""Reading an image takes about as long."""
PROCESS_BYTES = 2**30
"""Of a process that has loaded torch, a backbone and Ray, beside what a cell holds."""


def cost_of(cell: Cell) -> Cost:
    """What its method says that learning the cell's model costs."""
    return _cost(cell.method, cell.config, cell.data.train_images)


@cache
def _cost(method: str, config: Any, images: int) -> Cost:
    cost: Cost = load("methods", method).cost(config, images)
    return cost


def memory_of(cell: Cell, *, on_gpu: bool = False) -> int:
    """Bytes of main memory that the cell is expected to need; a bank on a GPU takes none of it."""
    cost = cost_of(cell)
    held = cost.held_bytes if on_gpu else cost.bank_bytes + cost.training_bytes
    return PROCESS_BYTES + held


def fit_flops(cell: Cell) -> float:
    """FLOPs of learning its model."""
    cost = cost_of(cell)
    return cost.train_flops + cost.coreset_flops


def score_flops(cell: Cell) -> float:
    """FLOPs of scoring an image: passes of the network, and what is searched beside them."""
    cost = cost_of(cell)
    passes = load("methods", cell.method).passes(cell.knobs)
    return passes * cost.pass_flops + cost.score_flops / cell.data.train_images


def held_out(data: Data) -> int:
    """About how many normal images are held out, so that nothing has to be read to know it."""
    share = data.held.share if data.held else 0.0
    return round(data.train_images * share / (1 - share))


def work_of(cells: Sequence[Cell]) -> dict[str, float]:
    """FLOPs of cells that share a fit, by what is done, in that order."""
    calibrated = sum(held_out(cell.data) * score_flops(cell) for cell in cells if cell.calibrated)
    scored = sum(cell.data.test_images * score_flops(cell) for cell in cells)
    return {"fit": fit_flops(cells[0]), "calibrate": calibrated, "score": scored}


def feature_bytes(features: FeatureSet) -> float:
    """What a set takes in the cache: half precision for features, one byte a pixel's colour."""
    view = features.view
    each = 2.0 * feature_numbers(view) if isinstance(view, Features) else 3.0 * view.side**2
    return _images(features) * each


def feature_flops(features: FeatureSet) -> float:
    """FLOPs of making a set: those of its backbone, and coarsely of reading an image."""
    view = features.view
    each = _backbone_flops(view) if isinstance(view, Features) else 0.0
    return _images(features) * (READ_FLOPS + each)


@cache
def _backbone_flops(view: Features) -> float:
    """Of one image, counted on the meta device."""
    import timm

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        image = torch.zeros(1, 3, view.side, view.side)
        if isinstance(view, Tokens):
            network = vit.transformer(view.backbone, view.side).eval()
            vit.tokens(network, image, view.layers, view.prefix, view.norm)
        else:
            only = {"features_only": True, "out_indices": view.layers, "pretrained": False}
            timm.create_model(view.backbone, **only).eval()(image)
    return float(counter.get_total_flops())


def _images(features: FeatureSet) -> int:
    data = features.data
    if features.split == "calibration":
        return held_out(data)
    return data.train_images if features.split == "train" else data.test_images


class Job(NamedTuple):
    """Work that is done in one go on one node."""

    label: str
    seconds: float
    cpus: float
    gpus: float
    memory: float


class Node(NamedTuple):
    """What a machine has to give."""

    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Schedule:
    """When jobs would end."""

    makespan: float
    """Seconds from the first start to the last end."""
    busy: float
    """The share of the places for jobs, over the makespan, that have one."""
    tail: float
    """Seconds at the end in which less than half of the places that were taken still are."""
    last: str
    """The job that ends last."""


def schedule(jobs: Sequence[Job], nodes: Sequence[Node], begin: float = 0.0) -> Schedule:
    """Simulate how jobs are placed, in their order, each on the first node with room for it.

    As in Ray, a job that fits nowhere now waits and lets later ones pass. Those that start at once
    take `begin` seconds longer, in which their processes start. ValueError for a job that fits on
    no empty node; of memory it takes at most what the largest node has, as in `harness.cluster`.
    """
    most = max(node.memory for node in nodes)
    waiting = [job._replace(memory=min(job.memory, most)) for job in jobs]
    for job in waiting:
        if not any(_fits(job, node) for node in nodes):
            raise ValueError(f"{job.label}: fits on no node")
    free, running = list(nodes), list[tuple[float, int, int, Job]]()
    spans: list[tuple[float, float, str]] = []
    now = 0.0
    while waiting or running:
        left = []
        for job in waiting:
            where = next((i for i, room in enumerate(free) if _fits(job, room)), None)
            if where is None:
                left.append(job)
                continue
            free[where] = _less(free[where], job)
            end = now + job.seconds + (begin if now == 0 else 0)
            heapq.heappush(running, (end, len(spans), where, job))
            spans.append((now, end, job.label))
        waiting = left
        now, _, where, job = heapq.heappop(running)
        free[where] = _less(free[where], job, -1)
    return _measured(spans, now)


def _fits(job: Job, room: Node) -> bool:
    return all(need <= has + 1e-9 for need, has in zip(job[2:], room, strict=True))


def _less(room: Node, job: Job, sign: int = 1) -> Node:
    return Node(*(has - sign * need for has, need in zip(room, job[2:], strict=True)))


def _measured(spans: Sequence[tuple[float, float, str]], makespan: float) -> Schedule:
    """What a schedule of (start, end, label) amounts to."""
    changes = sorted([(start, 1) for start, *_ in spans] + [(end, -1) for _, end, _ in spans])
    levels = list(accumulate(change for _, change in changes))
    widest = max(levels, default=0)
    # The last moment up to which at least half of the places are taken.
    ends = (w for (w, c), n in zip(changes, levels, strict=True) if c < 0 and 2 * (n + 1) >= widest)
    half = max(ends, default=0.0)
    worked = sum(end - start for start, end, _ in spans)
    return Schedule(
        makespan=makespan,
        busy=worked / (widest * makespan) if makespan else 1.0,
        tail=makespan - half,
        last=max(spans, key=lambda span: span[1])[2] if spans else "",
    )
