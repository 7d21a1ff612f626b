"""LafitE: latent diffusion on frozen features whose input is edited first.

Published (Yin et al., "LafitE: Latent Diffusion Model with Feature Editing for Unsupervised
Multi-class Anomaly Detection"): EfficientNet-b4 stages 1 to 4 aligned to one grid; a U-Net (base
256, multipliers 1, 2, 3, 4) trained on T = 1000 cosine steps; AdamW, batch 64, 1000 epochs, a
tenth of the rate after 800; a 10 % greedy coreset; each patch edited to a weighted mix of its K
nearest, noised to step t, denoised with DDIM, compared with the *unedited* patch; Gaussian 4.

The paper leaves open, and we named: standardised features (raw EfficientNet stages differ in
scale, unit noise would drown or vanish), the grid (32), learning rate and weight decay (1e-4), the
weighting (softmax of negative distances), the number of DDIM steps (10), t and K, the pool of the
image score (16, as UniAD), residual blocks (2) and attention (the two coarsest levels). The U-Net
then has 354 million parameters.

Differs: at test all images are corrupted with one noise, which the seed draws and the model keeps.
So a picture has one score under any name, in any batch and in an exported program, and none stands
above another because its noise was kinder; what a draw of it does is seen between seeds.

Ours: `parameterisation="preconditioned"` (`networks/preconditioning.py`), for a U-Net that is
narrower than its features: as published its loss can't fall below 1 - base / C. `quick` and `smoke`
have it.

Shape legend: B images, C channels, g grid cells a side, S pixels a side of the map, N steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import BankSearch, Declaration, Keeper, Method, Neighbours, Preset, Scores, Stage
from methods.networks import diffusion
from methods.networks.preconditioning import PrincipalAxes, too_narrow
from methods.networks.unet import UNet
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
from methods.parts.maps import editing_maps, error_map, image_score, smooth_upsample
from methods.parts.progress import OnProgress, Progress, quiet
from methods.parts.seeds import generator
from methods.parts.shapes import feature_channels
from methods.parts.training import Recipe, optimise

TS = range(50, 601, 50)
"""Corruption steps that a search for knobs tries."""
NARROW = 96
"""The widest U-Net (`base`) of which a search takes all combinations of t and K."""


class LafitE(Method):
    """Feature editing, then diffusion to step t and back, then the distance to the original."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; `weights` names a local file of backbone weights."""

        backbone: str = "tf_efficientnet_b4.aa_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (0, 1, 2, 3)
        image_size: int = 224
        feature_size: int = 32
        precision: Literal["float32", "bfloat16"] = "float32"
        base: int = 256
        multipliers: tuple[int, ...] = (1, 2, 3, 4)
        blocks: int = 2
        attention_levels: int = 2
        diffusion_steps: int = 1000
        train_t: int | None = None
        epochs: int = 1000
        batch_size: int = 64
        learning_rate: float = 1e-4
        weight_decay: float = 1e-4
        schedule: Literal["step", "one_cycle"] = "step"
        bank_rate: float = 0.1
        projection: int | None = None
        parameterisation: Literal["noise", "preconditioned"] = "noise"
        loss_weights: Literal["equal", "min_snr"] = "equal"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning; t = 0 only edits, k = 0 does not edit."""

        t: int = 200
        k: int = 5
        steps: int = 10
        coreset: float = 0.1
        weighting: Weighting = "softmax"
        temperature: float = 1.0
        temperature_unit: TemperatureUnit = "absolute"
        score_space: Literal["standardised", "raw"] = "standardised"
        sigma: float = 4.0
        pool: int = 16

    alpha_bar_N: Tensor
    weights_N: Tensor
    noise_Cgg: Tensor
    """The noise that every image is corrupted with."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: LafitE.Config = config
        channels = feature_channels(self.inputs(config))
        self.standardise = Standardise(channels)
        self.bank = MemoryBank()
        self.axes = PrincipalAxes(channels)
        self.unet = of_config(UNet, config, channels=channels)
        # Shapes are the same either way: a state says itself what its U-Net was taught.
        taught = torch.tensor(config.parameterisation == "preconditioned")
        self.register_buffer("preconditioned", taught)
        alpha_bar_N = diffusion.cosine_schedule(config.diffusion_steps)
        self.register_buffer("alpha_bar_N", alpha_bar_N, persistent=False)
        self.alpha_bar: list[float] = alpha_bar_N.tolist()
        level_N, equal = self._trained_levels(), config.loss_weights == "equal"
        weights_N = torch.ones_like(level_N) if equal else diffusion.min_snr_weights(level_N)
        self.register_buffer("weights_N", weights_N.float(), persistent=False)
        shape = channels, config.feature_size, config.feature_size
        # Drawn once: a picture has one score, whatever it is called and whoever scores it.
        noise_Cgg = torch.randn(*shape, generator=generator(seed, "corruption"))
        self.register_buffer("noise_Cgg", noise_Cgg)

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Eq. 1: the first stages of the backbone, aligned to one grid."""
        sizes = {"resize": config.image_size, "grid": config.feature_size}
        return of_config(Features, config, **sizes)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Standardise, fill the bank, then train the noise predictor (eq. 6)."""
        config = self.config
        if self.bank.empty:  # else a resumed training brought all three with it
            self.standardise.fit(train)
            self.axes.fit(train, self._standardised)
            self.bank.fit(
                train,
                self._standardised,
                config.bank_rate,
                projection=config.projection,
                seed=self.seed,
                on_progress=on_progress,
            )
        recipe, yardsticks = of_config(Recipe, config, optimiser="adamw"), self.yardsticks()

        def tell(progress: Progress) -> None:
            on_progress(replace(progress, yardsticks=yardsticks))

        optimise(self.unet, self.losses, train, recipe, self.seed, tell, keeper)

    def losses(self, network: nn.Module, features_BCgg: Tensor, draws: Draws) -> Tensor:
        """Eq. 6: the mean squared error of the predicted noise, (B,)."""
        clean_BCgg = self.standardise(features_BCgg)
        steps_B = draws.integers(1, len(self.weights_N) + 1)
        noise_BCgg = draws.normal(*clean_BCgg.shape[1:])
        noisy_BCgg = diffusion.corrupt(clean_BCgg, steps_B, noise_BCgg, self.alpha_bar_N)
        errors_BCgg = self._noise(network, noisy_BCgg, steps_B) - noise_BCgg
        return self.weights_N[steps_B - 1] * errors_BCgg.square().mean(dim=(1, 2, 3))

    def yardsticks(self) -> dict[str, float]:
        """The loss of three predictors that need no training, over the steps that are trained."""
        return self.axes.yardsticks(self._trained_levels().cpu(), self.weights_N.cpu())

    def _trained_levels(self) -> Tensor:
        """alpha_bar of the steps 1, 2, ... that are trained: (N,)."""
        return self.alpha_bar_N[1 : last_trained_step(self.config) + 1]

    bank_search = staticmethod(editing_search)

    @torch.inference_mode()
    def neighbours(self, inputs: Tensor, search: BankSearch) -> Neighbours:
        """The nearest rows to raw features (B, C, g, g)."""
        return self.bank.search(self._standardised(inputs), search)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs, neighbours: Neighbours | None = None) -> Scores:
        """Features (B, C, g, g) to maps (B, S, S) and image scores (B,)."""
        features_BCgg = self._standardised(inputs)
        edited_BCgg = self.edit(features_BCgg, knobs, neighbours)
        difference_BCgg = features_BCgg - self.reconstruct(edited_BCgg, knobs)
        if knobs.score_space == "raw":
            difference_BCgg = difference_BCgg * self.standardise.std
        # Aligned as the layers were laid on the grid (`align`).
        maps_BSS = smooth_upsample(
            error_map(difference_BCgg), self.config.image_size, knobs.sigma, align_corners=True
        )
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))

    @torch.inference_mode()
    def explain(self, inputs: Tensor, knobs: Knobs) -> dict[str, Tensor]:
        """Figure 1: how far editing and diffusion each move the features."""
        features_BCgg = self._standardised(inputs)
        edited_BCgg = self.edit(features_BCgg, knobs)
        rebuilt_BCgg = self.reconstruct(edited_BCgg, knobs)
        return editing_maps(features_BCgg, edited_BCgg, rebuilt_BCgg)

    def edit(
        self, features_BCgg: Tensor, knobs: Knobs, neighbours: Neighbours | None = None
    ) -> Tensor:
        """Eq. 10 on standardised features; the features themselves where k = 0."""
        if knobs.k == 0:
            return features_BCgg
        # The bank's rows come channels-last, in which a CPU convolves slower.
        return self.bank.edit(features_BCgg, knobs, neighbours).contiguous()

    def reconstruct(self, edited_BCgg: Tensor, knobs: Knobs) -> Tensor:
        """Eqs. 11 and 7 on standardised features: corrupt to step t, denoise; none if t = 0."""
        if knobs.t == 0:
            return edited_BCgg
        noisy_BCgg = self._corrupt(edited_BCgg, knobs.t)
        return diffusion.ddim_denoise(
            noisy_BCgg, self._predict, knobs.t, knobs.steps, self.alpha_bar
        )

    def _standardised(self, features_BCgg: Tensor) -> Tensor:
        standardised_BCgg: Tensor = self.standardise(features_BCgg.to(self.device))
        return standardised_BCgg

    def _corrupt(self, features_BCgg: Tensor, t: int) -> Tensor:
        steps_B = torch.full((len(features_BCgg),), t, device=self.device)
        return diffusion.corrupt(features_BCgg, steps_B, self.noise_Cgg, self.alpha_bar_N)

    def _predict(self, noisy_BCgg: Tensor, steps_B: Tensor) -> Tensor:
        with autocast(self.device, self.config.precision):
            return self._noise(accelerated(self.unet), noisy_BCgg, steps_B)

    def _noise(self, network: diffusion.Predictor, noisy_BCgg: Tensor, steps_B: Tensor) -> Tensor:
        """The noise in features that are corrupted to these steps, in float32."""
        if self.config.parameterisation == "noise":
            return network(noisy_BCgg, steps_B).float()
        return self.axes.noise(network, noisy_BCgg, steps_B, self.alpha_bar_N)


def last_trained_step(config: LafitE.Config) -> int:
    """The largest t that training draws."""
    return config.diffusion_steps if config.train_t is None else config.train_t


def check(config: LafitE.Config, knobs: LafitE.Knobs, images: int) -> None:
    """Ranges of t, k, steps, coreset and the trained part of the schedule."""
    at_least(config, 1, "epochs", "batch_size", "base", "blocks", "diffusion_steps", "projection")
    above_zero(config, "learning_rate")
    above_zero(knobs, "temperature")
    check_map(knobs, config.image_size)
    last_step = last_trained_step(config)
    if not 0 < last_step <= config.diffusion_steps:
        raise ValueError(f"train_t={last_step}: must be in 1..{config.diffusion_steps}")
    if not 0 <= knobs.t <= last_step:
        raise ValueError(f"t={knobs.t}: must be in 0..{last_step}, the steps that are trained")
    if knobs.t and not 1 <= knobs.steps <= knobs.t:
        raise ValueError(f"steps={knobs.steps}: must be in 1..t={knobs.t}")
    if knobs.t == knobs.k == 0:
        raise ValueError("t=0 and k=0: neither editing nor diffusion is left")
    check_bank(config, knobs, images * config.feature_size**2)


def caution(config: LafitE.Config) -> str:
    """A warning where the U-Net is too narrow to predict white noise; else empty."""
    channels, width = feature_channels(LafitE.inputs(config)), config.base * config.multipliers[0]
    why = too_narrow(channels, width, config.feature_size, len(config.multipliers) - 1)
    if not why or config.parameterisation == "preconditioned":
        return ""
    wider = config.base * -(-channels // width)
    return f"{why}; --set lafite.parameterisation=preconditioned, or --set lafite.base={wider}"


def cost(config: LafitE.Config, images: int) -> Cost:
    """The bank, and the U-Net over every image in every epoch."""
    channels, grid = feature_channels(LafitE.inputs(config)), config.feature_size
    bank = bank_cost(images * grid**2, config.bank_rate, channels, config.projection)
    return bank + training_cost(
        lambda: of_config(UNet, config, channels=channels),
        (channels, grid, grid),
        (),
        samples=images * config.epochs,
    )


def stages(config: LafitE.Config, knobs: LafitE.Knobs) -> tuple[Stage, ...]:
    """t and K, then the coreset.

    Together where the U-Net is narrow, so that a pass is cheap. Else as in the paper, t without
    editing and then K: that tunes t for a model without editing, which is not the one that is used.
    """
    ts = tuple(t for t in TS if t <= last_trained_step(config))
    coreset = Stage({"coreset": coresets(config.bank_rate)})
    if config.base <= NARROW:
        return Stage({"t": ts, "k": KS}), coreset
    return Stage({"t": ts}, {"k": 0}), Stage({"k": KS}), coreset


def ablation(
    config: LafitE.Config, knobs: LafitE.Knobs
) -> dict[str, tuple[LafitE.Config, LafitE.Knobs]]:
    """Table 4's first two rows, and edit-only, which the paper lacks."""
    return {
        "": (config, knobs),
        "without editing": (config, replace(knobs, k=0)),
        "edit-only": (config, replace(knobs, t=0)),
    }


def passes(knobs: LafitE.Knobs) -> int:
    """The number of DDIM steps."""
    return knobs.steps if knobs.t else 0


# Chosen on held-out normal images and anomalies made of them; the first t, k and train_t came from
# test scores. By held-out loss against seconds of a core at float32 (results/measured/presets.md):
# base, batch, epochs. By training loss at equal time (results/measured/denoiser.md):
# parameterisation, multipliers, learning rate. By pseudo-validation there: train_t, the weights of
# the loss, and jointly t, k, steps, temperature.
QUICK = LafitE.Config(
    backbone=LITE0,
    feature_size=14,
    precision="bfloat16",
    base=64,
    multipliers=(1, 1),
    blocks=1,
    attention_levels=1,
    train_t=600,
    epochs=4,
    # Small batches: few images and epochs leave too few steps at 64.
    batch_size=8,
    learning_rate=2e-3,
    schedule="one_cycle",
    parameterisation="preconditioned",
    loss_weights="min_snr",
)
METHOD = Declaration(
    method=LafitE,
    presets={
        "paper": Preset(LafitE.Config(), LafitE.Knobs()),
        "quick": Preset(
            QUICK, LafitE.Knobs(k=3, steps=1, temperature=0.1, temperature_unit="root_channels")
        ),
        "smoke": Preset(
            replace(
                QUICK,
                image_size=128,
                feature_size=8,
                precision="float32",
                base=32,
                multipliers=(1, 2),
                train_t=400,
                epochs=8,
                learning_rate=3e-3,
            ),
            LafitE.Knobs(t=100, steps=2, pool=4, sigma=1.0),
        ),
    },
    check=check,
    cost=cost,
    stages=stages,
    ablation=ablation,
    passes=passes,
    caution=caution,
    # 1: one noise for all images.
    revision=lambda config: 1,
)
