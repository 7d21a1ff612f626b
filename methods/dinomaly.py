"""Dinomaly: a decoder that can't copy rebuilds the blocks of a frozen DINOv2.

Published (Guo et al., CVPR 2025; official repository `guojiajeremy/Dinomaly`): DINOv2 with
registers, ViT-B/14; resize 448, centre crop 392; blocks 2 to 9, counted from 0, without the final
norm, as two means of four; the mean of all eight through a noisy bottleneck (MLP, dropout 0.2) and
eight decoder layers with linear attention on all 789 tokens; the decoder's outputs in reverse, in
two groups; one minus the cosine of flattened patches, with a tenth of the gradient for the share of
easy ones, which rises to 0.9 in 1000 steps; StableAdamW 2e-3 with AMSGrad, warm-up over 100 steps,
cosine to 2e-4, weight decay 1e-4, clip 0.1, 10,000 steps of 16. Map: the mean of the groups'
cosine distances, 256 pixels a side, Gaussian of 5 x 5 taps and sigma 4; image score: the mean of
the top 1 %. Real-IAD: `dropout=0.4`, `iterations=50000`. ViT-L: `layers=4,6,8,10,12,14,16,18`,
`heads=16`.

Named: anomalib's port is `mlp_bias=false`, `eps=1e-8`, `iterations=5000`, `sigma=0`.

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
from methods.networks.noisy_decoder import NoisyDecoder
from methods.parts.accelerating import accelerated, autocast
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches, Draws
from methods.parts.checks import at_least
from methods.parts.config import of_config
from methods.parts.cost import Cost
from methods.parts.maps import TOP_SEARCH
from methods.parts.mining import easy_share, hard_mined
from methods.parts.progress import OnProgress, quiet
from methods.parts.tokens import (
    TokenReader,
    check_decoder,
    decoder_cost,
    decoder_of,
    mean_of,
    token_view,
)
from methods.parts.training import Recipe, duration, optimise, samples_seen


class Dinomaly(Method):
    """One minus the cosine between tokens and what the decoder makes of them."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; with `epochs` these are counted instead of `iterations`."""

        backbone: str = "vit_base_patch14_reg4_dinov2.lvd142m"
        weights: str | None = None
        layers: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8, 9)
        resize: int = 448
        crop: int | None = 392
        grid: int = 0
        precision: Literal["float32", "bfloat16"] = "float32"
        groups: int = 2
        decoder_layers: int = 8
        heads: int = 12
        dropout: float = 0.2
        mlp_bias: bool = True
        easy: float = 0.9
        easy_after: int = 1000
        easy_factor: float = 0.1
        epochs: int | None = None
        iterations: int = 10_000
        batch_size: int = 16
        learning_rate: float = 2e-3
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
        self.config: Dinomaly.Config = config
        self.reader = TokenReader(self.inputs(config))
        self.network = decoder_of(NoisyDecoder, config, self.reader.layout)

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Two means of blocks, with class and register tokens, or layers on a grid."""
        return token_view(config, prefix="all")

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Train bottleneck and decoder."""
        self.reader.fit(train)
        how = {"optimiser": "stable_adamw", "schedule": "warm_cosine"}
        recipe = of_config(Recipe, self.config, **how, **duration(self.config, len(train)))
        optimise(self.network, self.losses, train, recipe, self.seed, on_progress, keeper)

    def losses(self, rebuild: nn.Module, inputs: Tensor, draws: Draws) -> Tensor:
        """The mean over groups of one minus the cosine of all patches, hard ones mined: (B,)."""
        config = self.config
        groups_BTC = self.reader(inputs)
        rebuilt_BTC = rebuild(mean_of(groups_BTC))
        easy = easy_share(draws.step, config.easy, config.easy_after)
        patches = self.reader.patches
        pairs = zip(map(patches, groups_BTC), map(patches, rebuilt_BTC), strict=True)
        losses_B = [hard_mined(*pair, easy, config.easy_factor, draws) for pair in pairs]
        return torch.stack(losses_B).mean(dim=0)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """Tokens (B, L), or features (B, C, g, g), to maps (B, S, S) and image scores (B,)."""
        groups_BTC = self.reader(inputs.to(self.device))
        with autocast(self.device, self.config.precision):
            rebuilt_BTC = accelerated(self.network)(mean_of(groups_BTC))
        return self.reader.compared(groups_BTC, rebuilt_BTC, knobs)


def check(config: Dinomaly.Config, knobs: Dinomaly.Knobs, images: int) -> None:
    """Shares lie in [0, 1); what `check_decoder` asks."""
    at_least(config, 1, "iterations")
    at_least(config, 0, "easy_after", "easy_factor")
    for name in ("dropout", "easy"):
        if not 0 <= getattr(config, name) < 1:
            raise ValueError(f"{name}={getattr(config, name)}: must be in [0, 1)")
    check_decoder(config, knobs, Dinomaly.inputs(config))


def cost(config: Dinomaly.Config, images: int) -> Cost:
    """Bottleneck and decoder over every image of every step."""
    view, samples = Dinomaly.inputs(config), samples_seen(config, images)
    return decoder_cost(NoisyDecoder, config, view, samples)


QUICK = Dinomaly.Config(
    backbone=LITE0,
    layers=(0, 1, 2, 3),
    resize=224,
    crop=None,
    grid=14,
    precision="bfloat16",
    groups=1,
    decoder_layers=2,
    heads=6,
    # About 500 steps of a thousand images: warm-up and rise of the easy share are shortened.
    epochs=8,
    warmup=20,
    easy_after=100,
)
METHOD = Declaration(
    method=Dinomaly,
    presets={
        "paper": Preset(Dinomaly.Config(), Dinomaly.Knobs()),
        "quick": Preset(QUICK, Dinomaly.Knobs()),
        "smoke": Preset(
            replace(QUICK, resize=128, grid=8, precision="float32", epochs=10, batch_size=8),
            Dinomaly.Knobs(scored_at=64, sigma=1.0),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: TOP_SEARCH,
    passes=lambda knobs: 1,
)
