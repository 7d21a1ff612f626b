"""UniAD: a transformer auto-encoder that may not look at a token's own neighbourhood.

Published (You et al. 2022; official repository, `models/reconstructions/uniad.py`): EfficientNet-b4
stages 1 to 4 aligned to 14x14 (272 channels, 196 tokens); 4 encoder and 4 decoder layers of width
256, 8 heads, feed-forward 1024, dropout 0.1, post-norm; a 7x7 neighbour mask in every attention;
learned queries in each decoder layer; feature jitter by token norm; squared error; AdamW 1e-4,
gradient clip 0.1, a tenth of the rate after 800 of 1000 epochs; batch 8 on each of 8 GPUs.
Image score: maximum of 16x16 averages, no Gaussian.

Differs: the last epoch is scored, never the best on the test set. `k` > 0 puts LafitE's feature
editing in front (the paper's "UniAD w/ F.E.").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

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
from methods.networks.masked_transformer import Reconstructor
from methods.parts.accelerating import accelerated, autocast
from methods.parts.backbone import LITE0, Features, feature_channels
from methods.parts.bank import KS, MemoryBank, Weighting, coresets
from methods.parts.checks import above_zero, at_least, check_bank, check_map
from methods.parts.cost import Cost, bank_cost, training_cost
from methods.parts.maps import SEARCH, error_map, image_score, smooth_upsample
from methods.parts.training import Draws, Recipe, optimise

EDITING_K = 5
"""Neighbours of "UniAD w/ F.E." where the settings name none; LafitE's default."""


class UniAD(Method):
    """Reconstruct every feature token from the others; the error is the score."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is learned; `bank_rate` > 0 keeps a memory bank for editing."""

        backbone: str = "tf_efficientnet_b4.aa_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (0, 1, 2, 3)
        image_size: int = 224
        feature_size: int = 14
        precision: Literal["float32", "bfloat16"] = "float32"
        width: int = 256
        encoder_layers: int = 4
        decoder_layers: int = 4
        heads: int = 8
        feed_forward: int = 1024
        dropout: float = 0.1
        neighbours: int = 7
        jitter: float = 20.0
        epochs: int = 1000
        batch_size: int = 64
        learning_rate: float = 1e-4
        weight_decay: float = 1e-4
        clip: float = 0.1
        schedule: Literal["step", "one_cycle"] = "step"
        bank_rate: float = 0.0
        projection: int | None = None

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """What may change after learning: k > 0 edits the features first."""

        k: int = 0
        coreset: float = 0.1
        weighting: Weighting = "softmax"
        temperature: float = 1.0
        sigma: float = 0.0
        pool: int = 16

    _quick = Config(
        backbone=LITE0,
        precision="bfloat16",
        width=96,
        heads=2,
        dropout=0.0,
        encoder_layers=1,
        decoder_layers=1,
        feed_forward=256,
        # Weaker than published: at full strength the few steps of this preset teach little.
        jitter=2.0,
        epochs=24,
        # Small batches: few images and epochs leave too few steps at 64.
        batch_size=8,
        learning_rate=5e-3,
        schedule="one_cycle",
    )
    presets: ClassVar = {
        "paper": Preset(Config(), Knobs()),
        "quick": Preset(_quick, Knobs(coreset=0.01)),
        "smoke": Preset(
            replace(
                _quick,
                image_size=128,
                feature_size=8,
                precision="float32",
                neighbours=3,
                width=64,
                heads=4,
                epochs=40,
            ),
            Knobs(pool=4),
        ),
    }

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: UniAD.Config = config
        self.bank = MemoryBank()
        # In eval mode until it is trained: a loaded model must not drop out while it scores.
        self.network = Reconstructor(feature_channels(self.inputs(config)), config).eval()

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The first stages of the backbone, aligned to one grid."""
        return Features(
            resize=config.image_size,
            backbone=config.backbone,
            weights=config.weights,
            layers=config.layers,
            grid=config.feature_size,
            precision=config.precision,
        )

    @classmethod
    def check(cls, config: Config, knobs: Knobs, images: int) -> None:
        """Width must split over heads and rows + columns; editing needs a bank."""
        at_least(config, 1, "epochs", "batch_size", "encoder_layers", "decoder_layers", "heads")
        at_least(config, 1, "projection")
        above_zero(config, "learning_rate", "clip")
        above_zero(knobs, "temperature")
        check_map(knobs, config.image_size)
        if config.width % config.heads or config.width % 2:
            raise ValueError(f"width={config.width}: must be even and a multiple of heads")
        if config.neighbours % 2 == 0 or config.neighbours >= 2 * config.feature_size:
            raise ValueError(f"neighbours={config.neighbours}: must be odd and leave tokens to see")
        at_least(knobs, 0, "k")
        if knobs.k:
            patches = images * config.feature_size**2
            check_bank(config.bank_rate, knobs.coreset, knobs.k, patches)

    @classmethod
    def ablation(cls, config: Config, knobs: Knobs) -> dict[str, tuple[Config, Knobs]]:
        """Table 4's last two rows; both keep a bank, so that they share a fit."""
        banked = replace(config, bank_rate=knobs.coreset)
        return {
            "": (banked, replace(knobs, k=0)),
            "with editing": (banked, replace(knobs, k=knobs.k or EDITING_K)),
        }

    @classmethod
    def search(cls, config: Config) -> tuple[Stage, ...]:
        """Editing where a bank is kept, else how maps become scores."""
        if config.bank_rate:
            return Stage({"k": (0, *KS)}), Stage({"coreset": coresets(config.bank_rate)})
        return SEARCH

    @classmethod
    def passes(cls, knobs: Knobs) -> int:
        """One reconstruction."""
        return 1

    @classmethod
    def cost(cls, config: Config, images: int) -> Cost:
        """The bank if there is one, and the network over every image in every epoch."""
        channels, grid = feature_channels(cls.inputs(config)), config.feature_size
        bank = bank_cost(images * grid**2, config.bank_rate, channels, config.projection)
        build, shape = lambda: Reconstructor(channels, config), (1, channels, grid, grid)
        return training_cost(bank, build, shape, samples=images * config.epochs)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Fill the bank if there is one, then train the auto-encoder."""
        config = self.config
        if config.bank_rate and self.bank.empty:
            self.bank.fit(
                train,
                lambda features: features.to(self.device),
                config.bank_rate,
                projection=config.projection,
                seed=self.seed,
                on_progress=on_progress,
            )
        optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=True,
        )
        optimise(
            self.network,
            self.losses,
            train,
            optimiser,
            Recipe.of(config),
            seed=self.seed,
            on_progress=on_progress,
            keeper=keeper,
        )

    def losses(self, rebuild: nn.Module, features: Tensor, draws: Draws) -> Tensor:
        """Squared error between the features and what the jittered ones are rebuilt to (B,)."""
        # Jitter: noise as strong as the token's norm / C x 20, before the projection.
        strength = features.norm(dim=1, keepdim=True) / features.shape[1] * self.config.jitter
        jittered = features + draws.normal(*features.shape[1:]) * strength
        rebuilt: Tensor = rebuild(jittered)
        return (rebuilt.float() - features).square().mean(dim=(1, 2, 3))

    @torch.inference_mode()
    def neighbours(self, inputs: Tensor, k: int, coreset: float) -> Neighbours | None:
        """The nearest rows of features (B, C, g, g), where a bank is kept."""
        return None if self.bank.empty else self.bank.search(inputs.to(self.device), k, coreset)

    @torch.inference_mode()
    def score(
        self, inputs: Tensor, keys: Sequence[str], knobs: Knobs, found: Neighbours | None = None
    ) -> Scores:
        """Features (B, C, g, g) to maps (B, S, S) and image scores (B,)."""
        features, _, rebuilt = self._reconstruct(inputs, knobs, found)
        maps = smooth_upsample(
            error_map(features, rebuilt), self.config.image_size, knobs.sigma, align_corners=True
        )
        return Scores(maps, image_score(maps, knobs.pool))

    @torch.inference_mode()
    def explain(self, inputs: Tensor, keys: Sequence[str], knobs: Knobs) -> dict[str, Tensor]:
        """Figure 1: how far editing and the auto-encoder each move the features."""
        features, edited, rebuilt = self._reconstruct(inputs, knobs)
        return {
            "original to edited": error_map(features, edited),
            "edited to rebuilt": error_map(edited, rebuilt),
            "original to rebuilt": error_map(features, rebuilt),
        }

    def _reconstruct(
        self, inputs: Tensor, knobs: Knobs, found: Neighbours | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The features, the edited ones (the same where k = 0) and what those are rebuilt to."""
        features = inputs.to(self.device)
        edited = features
        if knobs.k:
            edited = self.bank.edit(
                features, knobs.k, knobs.coreset, knobs.weighting, knobs.temperature, found
            )
        with autocast(self.device, self.config.precision):
            rebuilt = accelerated(self.network)(edited).float()
        return features, edited, rebuilt


METHOD = UniAD
