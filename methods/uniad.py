"""UniAD: a transformer auto-encoder that may not look at a token's own neighbourhood.

Published (You et al. 2022; official repository, `models/reconstructions/uniad.py`): EfficientNet-b4
stages 1 to 4 aligned to 14x14 (272 channels, 196 tokens); 4 encoder and 4 decoder layers of width
256, 8 heads, feed-forward 1024, dropout 0.1, post-norm; a 7x7 neighbour mask in every attention;
learned queries in each decoder layer; feature jitter by token norm; squared error; AdamW 1e-4,
gradient clip 0.1, a tenth of the rate after 800 of 1000 epochs; batch 8 on each of 8 GPUs.
Image score: maximum of 16x16 averages, no Gaussian.

Differs: the last epoch is scored, never the best on the test set. `k` > 0 puts LafitE's feature
editing in front (the paper's "UniAD w/ F.E.").

Shape legend: B images, C channels, g grid cells a side, S side of the map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import BankSearch, Declaration, Keeper, Method, Neighbours, Preset, Scores, Stage
from methods.networks.masked_transformer import Reconstructor
from methods.parts.accelerating import accelerated, autocast
from methods.parts.backbone import LITE0, Features
from methods.parts.bank import (
    KS,
    MemoryBank,
    Standardise,
    TemperatureUnit,
    Weighting,
    coresets,
    editing_search,
)
from methods.parts.batches import Batches, Draws
from methods.parts.checks import above_zero, at_least, check_bank, check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost, bank_cost, training_cost
from methods.parts.maps import SEARCH, editing_maps, error_map, image_score, smooth_upsample
from methods.parts.progress import OnProgress, quiet
from methods.parts.shapes import feature_channels
from methods.parts.training import Recipe, duration, optimise, samples_seen

EDITING_K = 5
"""K of "UniAD w/ F.E." where the knobs have k = 0: LafitE's in `paper`, for every preset."""


class UniAD(Method):
    """Reconstruct every feature token from the others; the error is the score."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; `bank_rate` > 0 keeps a memory bank for editing.

        Iterations are counted where `epochs` is None.
        """

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
        epochs: int | None = 1000
        iterations: int | None = None
        batch_size: int = 64
        learning_rate: float = 1e-4
        weight_decay: float = 1e-4
        clip: float = 0.1
        schedule: Literal["step", "one_cycle"] = "step"
        bank_rate: float = 0.0
        projection: int | None = None

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change later; k > 0 edits first, without `rebuild` it only edits."""

        k: int = 0
        coreset: float = 0.1
        weighting: Weighting = "softmax"
        temperature: float = 1.0
        temperature_unit: TemperatureUnit = "absolute"
        rebuild: bool = True
        sigma: float = 0.0
        pool: int = 16

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: UniAD.Config = config
        self.bank = MemoryBank()
        channels = feature_channels(self.inputs(config))
        # Editing is LafitE's, in its space. The auto-encoder reads raw features, as published.
        self.standardise = Standardise(channels) if config.bank_rate else nn.Identity()
        # In eval mode until it is trained: a loaded model must not drop out while it scores.
        self.network = of_config(
            Reconstructor, config, channels=channels, grid=config.feature_size
        ).eval()

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The first stages of the backbone, aligned to one grid."""
        sizes = {"resize": config.image_size, "grid": config.feature_size}
        return of_config(Features, config, **sizes)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Fill the bank if there is one, then train the auto-encoder."""
        config = self.config
        if isinstance(self.standardise, Standardise) and self.bank.empty:
            self.standardise.fit(train)
            self.bank.fit(
                train,
                self._standardised,
                config.bank_rate,
                projection=config.projection,
                seed=self.seed,
                on_progress=on_progress,
            )
        lasting = duration(config, len(train))
        recipe = of_config(Recipe, config, optimiser="adamw", **lasting)
        optimise(self.network, self.losses, train, recipe, self.seed, on_progress, keeper)

    def losses(self, rebuild: nn.Module, features_BCgg: Tensor, draws: Draws) -> Tensor:
        """The mean squared error of features that are rebuilt from jittered ones, (B,)."""
        # Jitter, before the projection: noise as strong as the token's norm / C x `jitter`.
        norm_B1gg = features_BCgg.norm(dim=1, keepdim=True)
        strength_B1gg = norm_B1gg / features_BCgg.shape[1] * self.config.jitter
        jittered_BCgg = features_BCgg + draws.normal(*features_BCgg.shape[1:]) * strength_B1gg
        rebuilt_BCgg: Tensor = rebuild(jittered_BCgg)
        return (rebuilt_BCgg.float() - features_BCgg).square().mean(dim=(1, 2, 3))

    bank_search = staticmethod(editing_search)

    @torch.inference_mode()
    def neighbours(self, inputs: Tensor, search: BankSearch) -> Neighbours:
        """The nearest rows of raw features (B, C, g, g)."""
        return self.bank.search(self._standardised(inputs), search)

    def _standardised(self, features_BCgg: Tensor) -> Tensor:
        standardised_BCgg: Tensor = self.standardise(features_BCgg.to(self.device))
        return standardised_BCgg

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs, neighbours: Neighbours | None = None) -> Scores:
        """Features (B, C, g, g) to maps (B, S, S) and image scores (B,)."""
        features_BCgg = inputs.to(self.device)
        rebuilt_BCgg = self.edit(features_BCgg, knobs, neighbours)
        if knobs.rebuild:
            rebuilt_BCgg = self.reconstruct(rebuilt_BCgg)
        error_Bgg = error_map(features_BCgg - rebuilt_BCgg)
        side = self.config.image_size
        maps_BSS = smooth_upsample(error_Bgg, side, knobs.sigma, align_corners=True)
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))

    @torch.inference_mode()
    def explain(self, inputs: Tensor, knobs: Knobs) -> dict[str, Tensor]:
        """Figure 1: how far editing and the auto-encoder each move the features."""
        features_BCgg = inputs.to(self.device)
        edited_BCgg = self.edit(features_BCgg, knobs)
        return editing_maps(features_BCgg, edited_BCgg, self.reconstruct(edited_BCgg))

    def edit(
        self, features_BCgg: Tensor, knobs: Knobs, neighbours: Neighbours | None = None
    ) -> Tensor:
        """LafitE's eq. 10 on raw features; the features themselves where k = 0."""
        if knobs.k == 0:
            return features_BCgg
        assert isinstance(self.standardise, Standardise), "k > 0 was refused without a bank"
        edited_BCgg = self.bank.edit(self._standardised(features_BCgg), knobs, neighbours)
        return self.standardise.inverse(edited_BCgg)

    def reconstruct(self, edited_BCgg: Tensor) -> Tensor:
        """The auto-encoder's reconstruction of features, (B, C, g, g)."""
        with autocast(self.device, self.config.precision):
            rebuilt_BCgg: Tensor = accelerated(self.network)(edited_BCgg)
        return rebuilt_BCgg.float()


def check(config: UniAD.Config, knobs: UniAD.Knobs, images: int) -> None:
    """Width must split over heads and rows + columns; editing needs a bank."""
    at_least(config, 1, "epochs", "iterations", "batch_size", "projection")
    at_least(config, 1, "encoder_layers", "decoder_layers", "heads")
    if config.epochs is None and config.iterations is None:
        raise ValueError("epochs or iterations: one of them must be a number")
    above_zero(config, "learning_rate", "clip")
    above_zero(knobs, "temperature")
    check_map(knobs, config.image_size)
    if config.width % config.heads or config.width % 2:
        raise ValueError(f"width={config.width}: must be even and a multiple of heads")
    if config.neighbours % 2 == 0 or config.neighbours >= 2 * config.feature_size:
        raise ValueError(f"neighbours={config.neighbours}: must be odd and leave tokens to see")
    at_least(knobs, 0, "k")
    if not (knobs.rebuild or knobs.k):
        raise ValueError("rebuild=False and k=0: neither editing nor the auto-encoder is left")
    if knobs.k:
        check_bank(config, knobs, images * config.feature_size**2)


def cost(config: UniAD.Config, images: int) -> Cost:
    """The bank if there is one, and the network over every image in every epoch."""
    channels, grid = feature_channels(UniAD.inputs(config)), config.feature_size
    bank = bank_cost(images * grid**2, config.bank_rate, channels, config.projection)
    return bank + training_cost(
        lambda: of_config(Reconstructor, config, channels=channels, grid=grid),
        (channels, grid, grid),
        samples=samples_seen(config, images),
    )


def stages(config: UniAD.Config, knobs: UniAD.Knobs) -> tuple[Stage, ...]:
    """Editing where a bank is kept, then how maps become scores."""
    if config.bank_rate:
        return Stage({"k": (0, *KS)}), Stage({"coreset": coresets(config.bank_rate)}), *SEARCH
    return SEARCH


def ablation(
    config: UniAD.Config, knobs: UniAD.Knobs
) -> dict[str, tuple[UniAD.Config, UniAD.Knobs]]:
    """Table 4's last two rows, and edit-only; all keep a bank, so that they share a fit."""
    banked = replace(config, bank_rate=knobs.coreset)
    edited = replace(knobs, k=knobs.k or EDITING_K)
    return {
        "": (banked, replace(knobs, k=0)),
        "with editing": (banked, edited),
        "edit-only": (banked, replace(edited, rebuild=False)),
    }


QUICK = UniAD.Config(
    backbone=LITE0,
    precision="bfloat16",
    width=96,
    heads=2,
    dropout=0.0,
    encoder_layers=1,
    decoder_layers=1,
    feed_forward=256,
    # A tenth of the published: pseudo-validation put it before 20 within its own noise alone, and
    # test scores of both had been seen (results/measured/presets.md).
    jitter=2.0,
    # Two minutes of one AVX2 core, however many images there are (results/measured/presets.md).
    epochs=None,
    iterations=1200,
    # Small batches: a step of 64 takes eight times as long, and so there would be too few.
    batch_size=8,
    learning_rate=5e-3,
    schedule="one_cycle",
)
METHOD = Declaration(
    method=UniAD,
    presets={
        "paper": Preset(UniAD.Config(), UniAD.Knobs()),
        # At ADer a window of 8 reaches 4 tokens to each side, which are 9.
        "ader": Preset(
            UniAD.Config(image_size=256, feature_size=16, neighbours=9, batch_size=8, epochs=100),
            UniAD.Knobs(),
        ),
        "quick": Preset(QUICK, UniAD.Knobs(temperature=0.1, temperature_unit="root_channels")),
        "smoke": Preset(
            replace(
                QUICK,
                image_size=128,
                feature_size=8,
                precision="float32",
                neighbours=3,
                width=64,
                heads=4,
                epochs=40,
            ),
            UniAD.Knobs(pool=4),
        ),
    },
    check=check,
    cost=cost,
    stages=stages,
    ablation=ablation,
    passes=lambda knobs: int(knobs.rebuild),
)
