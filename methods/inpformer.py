"""INP-Former: a decoder rebuilds an image's tokens from a few normal prototypes of the same image.

Published (Luo et al., CVPR 2025; official repository `luow23/INP-Former`): encoder, view, groups,
optimiser, map and image score of Dinomaly, without class and register tokens; six learned tokens
become the image's prototypes by one cross-attention to its patches; a bottleneck without dropout;
eight decoder layers whose queries are patches and whose keys and values are prototypes: cosines
times a learned scale a head, through a ReLU, nothing added around them. Loss: one minus the cosine
of flattened patches, the gradient of each times (its distance / the mean of the batch)^3, plus 0.2
times the mean distance of patches to their nearest prototype. StableAdamW 1e-3 with AMSGrad,
warm-up over 100 steps, cosine to 1e-4, weight decay 1e-4, clip 0.1, 200 epochs, batch 16. ViT-L:
`layers=4,6,8,10,12,14,16,18`, `heads=16`.

Differs: no batch is dropped, their sizes differ by one at most; blocks are averaged before they are
kept in halves; maps are brought from 256 pixels to the size of the view.

Ours: `grid` > 0 takes the layers of any other backbone, aligned to that grid and standardised, as
tokens in one group. `quick` and `smoke` do, as no transformer's weights come as a package: they
show the decoder and its training, not what DINOv2 knows.

Shape legend: B images, C channels, g grid cells a side, T tokens, L numbers of a pyramid, S side of
the map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import Declaration, Keeper, Method, Preset, Scores
from methods.networks.prototype_decoder import PrototypeDecoder
from methods.parts.accelerating import accelerated, autocast
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches, Draws
from methods.parts.checks import at_least
from methods.parts.config import of_config
from methods.parts.cost import Cost
from methods.parts.maps import TOP_SEARCH
from methods.parts.mining import softly_mined
from methods.parts.progress import OnProgress, quiet
from methods.parts.tokens import (
    TokenReader,
    check_decoder,
    decoder_cost,
    decoder_of,
    mean_of,
    token_view,
)
from methods.parts.training import Recipe, optimise


class InpFormer(Method):
    """One minus the cosine between tokens and what prototypes of the image make of them."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; `mining` is the power of the relative distance."""

        backbone: str = "vit_base_patch14_reg4_dinov2.lvd142m"
        weights: str | None = None
        layers: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
        resize: int = 448
        crop: int | None = 392
        grid: int = 0
        precision: Literal["float32", "bfloat16"] = "float32"
        groups: int = 2
        prototypes: int = 6
        decoder_layers: int = 8
        heads: int = 12
        mining: float = 3.0
        gather: float = 0.2
        epochs: int = 200
        batch_size: int = 16
        learning_rate: float = 1e-3
        warmup: int = 100
        weight_decay: float = 1e-4
        eps: float = 1e-10
        clip: float = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning; sigma 0 does not blur."""

        scored_at: int = 256
        window: int = 5
        sigma: float = 4.0
        top: float = 0.01

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: InpFormer.Config = config
        self.reader = TokenReader(self.inputs(config))
        self.network = decoder_of(PrototypeDecoder, config, self.reader.layout)

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Two means of blocks, patches alone, or layers on a grid."""
        return token_view(config, prefix="none")

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Train prototypes, bottleneck and decoder."""
        self.reader.fit(train)
        how = {"optimiser": "stable_adamw", "schedule": "warm_cosine"}
        recipe = of_config(Recipe, self.config, **how)
        optimise(self.network, self.losses, train, recipe, self.seed, on_progress, keeper)

    def losses(self, rebuild: nn.Module, inputs: Tensor, draws: Draws) -> Tensor:
        """The mean over groups of one minus the cosine of all patches, softly mined, and the
        weighed gather loss: (B,)."""
        groups_BTC = self.reader(inputs)
        rebuilt_BTC, gathered_B = rebuild(mean_of(groups_BTC))
        losses_B = [
            softly_mined(*pair, self.config.mining, draws)
            for pair in zip(groups_BTC, rebuilt_BTC, strict=True)
        ]
        loss_B: Tensor = torch.stack(losses_B).mean(dim=0) + self.config.gather * gathered_B
        return loss_B

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """Tokens (B, L), or features (B, C, g, g), to maps (B, S, S) and image scores (B,)."""
        groups_BTC = self.reader(inputs.to(self.device))
        with autocast(self.device, self.config.precision):
            rebuilt_BTC, _ = accelerated(self.network)(mean_of(groups_BTC))
        return self.reader.compared(groups_BTC, rebuilt_BTC, knobs)


def check(config: InpFormer.Config, knobs: InpFormer.Knobs, images: int) -> None:
    """There is a prototype, and what `check_decoder` asks."""
    at_least(config, 1, "prototypes")
    at_least(config, 0, "mining", "gather")
    check_decoder(config, knobs, InpFormer.inputs(config))


def cost(config: InpFormer.Config, images: int) -> Cost:
    """Prototypes, bottleneck and decoder over every image in every epoch."""
    view, samples = InpFormer.inputs(config), images * config.epochs
    return decoder_cost(PrototypeDecoder, config, view, samples)


QUICK = InpFormer.Config(
    backbone=LITE0,
    layers=(0, 1, 2, 3),
    resize=224,
    crop=None,
    grid=14,
    precision="bfloat16",
    groups=1,
    decoder_layers=2,
    heads=6,
    # About 500 steps of a thousand images: the warm-up is shortened.
    epochs=8,
    warmup=20,
)
METHOD = Declaration(
    method=InpFormer,
    presets={
        "paper": Preset(InpFormer.Config(), InpFormer.Knobs()),
        "quick": Preset(QUICK, InpFormer.Knobs()),
        "smoke": Preset(
            replace(QUICK, resize=128, grid=8, precision="float32", epochs=10, batch_size=8),
            InpFormer.Knobs(scored_at=64, sigma=1.0),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: TOP_SEARCH,
    passes=lambda knobs: 1,
)
