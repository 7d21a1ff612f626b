"""The costs of cells, counted before they run: memory and work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.plan.cell import Cell, Data
from harness.plan.registry import load
from harness.work.features import FeatureSet
from methods.parts import vit
from methods.parts.backbone import Features, Tokens
from methods.parts.cost import Cost
from methods.parts.shapes import feature_numbers

READ_FLOPS = 1e9
"""Reading an image takes about as long."""
PROCESS_BYTES = 2**30
"""Bytes of a process that has loaded torch, a backbone and Ray, beside what a cell holds."""


def cost_of(cell: Cell) -> Cost:
    """The cost of learning the cell's model, as its method declares it."""
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
    passes: int = load("methods", cell.method).passes(cell.knobs)
    return passes * cost.pass_flops + cost.score_flops / cell.data.train_images


def reserved(data: Data) -> int:
    """About how many normal images say where alarms begin; nothing is read to know it."""
    others = 1 - (data.held.share if data.held else 0.0)
    return round(data.train_images / others * data.reserved / (1 - data.reserved))


def work_of(cells: Sequence[Cell]) -> dict[str, float]:
    """FLOPs of cells that share a fit, by what is done, in that order."""
    work = {"fit": fit_flops(cells[0])}
    if calibrated := [cell for cell in cells if cell.calibrated]:
        work["calibrate"] = sum(reserved(cell.data) * score_flops(cell) for cell in calibrated)
    if cells[0].data.test_images:
        work["score"] = sum(cell.data.test_images * score_flops(cell) for cell in cells)
    return work


def feature_bytes(features: FeatureSet) -> float:
    """Bytes of a set in the cache: half precision for features, one byte a pixel's colour."""
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
    """FLOPs of a pass over one image, counted on the meta device."""
    import timm

    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        image = torch.zeros(1, 3, view.side, view.side)
        if isinstance(view, Tokens):
            network = vit.transformer(view.backbone, view.side).eval()
            vit.blocks(network, image, view.layers)
        else:
            only = {"features_only": True, "out_indices": view.layers, "pretrained": False}
            timm.create_model(view.backbone, **only).eval()(image)
    return float(counter.get_total_flops())


def _images(features: FeatureSet) -> int:
    data = features.data
    if features.split == "calibration":
        return reserved(data)
    return data.train_images if features.split == "train" else data.test_images
