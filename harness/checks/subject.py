"""A method on the made data set `shapes`: what it reads, learns and scores there, for the contract.

Shape legend: B images, S side of a map, g grid cells a side.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.base import Sample, SealedError, sealed
from benchmarks.parts.images import load_masks
from benchmarks.shapes import BENCHMARK
from harness.plan.registry import load
from harness.work.cache import FeatureCache
from harness.work.features import BATCH, inputs_of, read_ahead
from methods.base import Declaration, Method, Scores
from methods.parts.backbone import Extractor, Features, Pixels, file_sha256, find_weights
from methods.parts.batches import Batches
from methods.parts.progress import Progress, quiet
from results.metrics import image_metrics

SMOKE = "smoke"
BRIEF_SEED = 3


@cache
def training_samples() -> list[Sample]:
    """The training split of `shapes`."""
    return BENCHMARK(None).train()


@cache
def unseen() -> list[Sample]:
    """The test split of `shapes`."""
    return BENCHMARK(None).test()


@cache
def _extractor(view: Features) -> Extractor | None:
    weights, cpu = find_weights(view), torch.device("cpu")
    return FeatureCache.default().extractor([view], weights, file_sha256(weights), cpu, quiet)


@cache
def inputs(view: Pixels, split: str) -> Tensor:
    """The inputs of a method with this view, of a split of `shapes`; computed once a process."""
    samples = training_samples() if split == "train" else unseen()
    extractor = _extractor(view) if isinstance(view, Features) else None
    pieces = read_ahead(BENCHMARK(None), samples, view, BATCH["cpu"])
    return torch.cat([inputs_of(views, extractor) for views in pieces])


def batches(view: Pixels, seed: int = 0) -> Batches:
    """The training split of `shapes`, as a method reads it."""
    values = inputs(view, "train")
    return Batches(len(values), lambda indices: values[list(indices)], seed=seed)


def score(method: Method, knobs: Any, order: Sequence[int] | None = None, size: int = 32) -> Scores:
    """Scores of test images in this order (all of them, as listed), in batches of `size`."""
    values = inputs(method.inputs(method.config), "test")
    order = range(len(values)) if order is None else order
    method.eval()
    scores = []
    for start in range(0, len(order), size):
        chosen = list(order[start : start + size])
        scores.append(method.score(values[chosen], knobs))
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


class Aurocs(NamedTuple):
    """AUROC of images, the mean over categories, and of all pixels together."""

    image: float
    pixel: float


@dataclass(frozen=True)
class Subject:
    """A method that is held to the promises, with what is asked less of it, and why it is less."""

    name: str
    floor: float = 0.8
    """Mean image AUROC on `shapes` that it must exceed."""
    margins: tuple[float, float] | None = (0.2, 0.2)
    """The least gains of image and pixel AUROC by training; None: not asked."""
    unlearned: Mapping[str, Any] = field(default_factory=dict)
    """Settings of a twin that has learned nothing, beside a rate of nothing."""

    @property
    def declared(self) -> Declaration:
        """The declaration in the method's file."""
        declared: Declaration = load("methods", self.name)
        return declared

    @property
    def config(self) -> Any:
        """The settings of its `smoke` preset."""
        return self.declared.presets[SMOKE].config

    @property
    def knobs(self) -> Any:
        """The knobs of its `smoke` preset."""
        return self.declared.presets[SMOKE].knobs

    @property
    def short(self) -> Any:
        """The smoke settings with one epoch, where there are epochs."""
        config = self.config
        return dataclasses.replace(config, epochs=1) if hasattr(config, "epochs") else config

    @property
    def of_the_network(self) -> Any:
        """Knobs with which nothing scores but what gradients taught: no editing of the input."""
        knobs = self.knobs
        return dataclasses.replace(knobs, k=0) if hasattr(knobs, "weighting") else knobs

    @cached_property
    def learned(self) -> tuple[Method, list[Progress]]:
        """The method after its whole smoke fit, and what it told meanwhile."""
        return self.fitted(self.config, seed=0)

    @property
    def method(self) -> Method:
        """The method after its whole smoke fit."""
        return self.learned[0]

    @cached_property
    def scored(self) -> Scores:
        """Its scores of all test images."""
        return score(self.method, self.knobs)

    @cached_property
    def brief(self) -> Method:
        """A method that learned with the `short` settings and a seed of its own."""
        return self.fitted(self.short, BRIEF_SEED)[0]

    def fitted(self, config: Any, seed: int) -> tuple[Method, list[Progress]]:
        """A method that learned from `shapes` while the test split was sealed."""
        reports: list[Progress] = []
        with sealed():
            method: Method = self.declared.method(config, seed=seed)
            method.fit(batches(method.inputs(config), seed), on_progress=reports.append)
            try:
                BENCHMARK(None).test()
            except SealedError:
                return method, reports
        raise AssertionError("the test split was open while it learned")

    def twin(self, seed: int) -> Aurocs:
        """One that differs from the learned one in its gradient steps alone: they go nowhere."""
        still = dataclasses.replace(self.short, learning_rate=1e-12, **self.unlearned)
        return aurocs(score(self.fitted(still, seed)[0], self.of_the_network))


def aurocs(scores: Scores) -> Aurocs:
    """How well scores tell images and pixels apart."""
    side = scores.maps.shape[-1]
    inside = anomalous_share(side, side) > 0
    pixel = float(roc_auc_score(inside.flatten().numpy(), scores.maps.flatten().numpy()))
    return Aurocs(mean_image_auroc(scores.images), pixel)
