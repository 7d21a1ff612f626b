"""PatchCore: nearest neighbours in a coreset of normal patches.

Published (Roth et al. 2022; official repository `patchcore-inspection`): WideResNet-50-2 layers 2
and 3, 3x3 neighbourhoods pooled to 1024 numbers, resize 256 and centre crop 224, a 10 % coreset
by greedy k-center on a 128-number random projection, k = 1, Gaussian 4, image score = maximum.

Differs: the greedy choice starts at one seeded point instead of the mean distance to ten; maps are
not rescaled with the test set's minimum and maximum (that leaks test statistics). The paper's
re-weighting of the image score is absent from the official code and from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from methods.base import (
    Batches,
    Keeper,
    Method,
    Neighbours,
    OnProgress,
    Preset,
    Scores,
    Stage,
    quiet,
)
from methods.parts.backbone import LITE0, Features
from methods.parts.bank import KS, MemoryBank, coresets
from methods.parts.checks import at_least, check_bank, check_map
from methods.parts.cost import Cost, bank_cost
from methods.parts.maps import image_score, smooth_upsample


class PatchCore(Method):
    """Mean squared distance of each patch to its k nearest normal patches."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is kept; `projection` is the approximation of the greedy choice (None: exact)."""

        backbone: str = "wide_resnet50_2.tv_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (2, 3)
        resize: int = 256
        crop: int | None = 224
        grid: int = 28
        channels: int = 1024
        precision: Literal["float32", "bfloat16"] = "float32"
        bank_rate: float = 0.1
        projection: int | None = 128

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """What may change after learning."""

        k: int = 1
        coreset: float = 0.1
        sigma: float = 4.0
        pool: int = 1

    _quick = Config(
        backbone=LITE0,
        resize=224,
        crop=None,
        grid=14,
        channels=128,
        precision="bfloat16",
        bank_rate=0.02,
        projection=None,
    )
    presets: ClassVar = {
        "paper": Preset(Config(), Knobs()),
        "quick": Preset(_quick, Knobs(coreset=0.02)),
        "smoke": Preset(
            replace(_quick, resize=128, grid=8, precision="float32", bank_rate=0.05),
            Knobs(coreset=0.05, sigma=1.0),
        ),
    }

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: PatchCore.Config = config
        self.bank = MemoryBank()

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Locally aware patch features."""
        return Features(
            resize=config.resize,
            crop=config.crop,
            backbone=config.backbone,
            weights=config.weights,
            layers=config.layers,
            grid=config.grid,
            aggregate="patches",
            channels=config.channels,
            precision=config.precision,
        )

    @classmethod
    def check(cls, config: Config, knobs: Knobs, images: int) -> None:
        """Ranges of k and coreset."""
        at_least(knobs, 1, "k")
        at_least(config, 1, "channels")
        check_map(knobs, config.grid)
        check_bank(config.bank_rate, knobs.coreset, knobs.k, images * config.grid**2)

    @classmethod
    def search(cls, config: Config) -> tuple[Stage, ...]:
        """k, then the coreset."""
        return Stage({"k": KS}), Stage({"coreset": coresets(config.bank_rate)})

    @classmethod
    def cost(cls, config: Config, images: int) -> Cost:
        """The bank."""
        patches = images * config.grid**2
        return bank_cost(patches, config.bank_rate, config.channels, config.projection)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Fill the bank; nothing is trained by gradients."""
        self.bank.fit(
            train,
            lambda features: features.to(self.device),
            self.config.bank_rate,
            projection=self.config.projection,
            seed=self.seed,
            on_progress=on_progress,
        )

    @torch.inference_mode()
    def neighbours(self, inputs: Tensor, k: int, coreset: float) -> Neighbours:
        """The nearest rows of features (B, C, g, g)."""
        return self.bank.search(inputs.to(self.device), k, coreset)

    @torch.inference_mode()
    def score(
        self, inputs: Tensor, keys: Sequence[str], knobs: Knobs, found: Neighbours | None = None
    ) -> Scores:
        """Features (B, C, g, g) to maps (B, S, S) and image scores (B,)."""
        distances = self.bank.nearest(inputs.to(self.device), knobs.k, knobs.coreset, found)
        side = self.inputs(self.config).side
        return Scores(
            smooth_upsample(distances, side, knobs.sigma),
            # The official image score is the maximum over patches, before any smoothing.
            image_score(distances, knobs.pool),
        )


METHOD = PatchCore
