"""FastFlow: a normalising flow on each frozen layer; what it finds unlikely is anomalous.

Published (Yu et al. 2021; there is no official code, `gathierry/FastFlow` is what everyone runs):
WideResNet-50-2 layers 1 to 3 at 256 pixels; a trained LayerNorm over each layer, which the paper
does not have; 8 flow steps a layer whose convolutions are 3x3 and 1x1 in turn, log scales within
+-2; Adam 1e-3, weight decay 1e-5, batch 32, 500 epochs; map = minus exp(-mean z^2 / 2), averaged
over layers, no smoothing; image score = maximum of the map (left open by the paper).
ResNet-18 has 3x3 convolutions alone: `--set fastflow.backbone=resnet18.tv_in1k
--set fastflow.kernels=3`. DeiT is one layer of 20 steps: `--set fastflow.layers=7
--set fastflow.backbone=deit_base_distilled_patch16_384.fb_in1k --set fastflow.image_size=384
--set fastflow.flow_steps=20 --set fastflow.hidden_ratio=0.16`; so is CaiT, with layer 40 of
`cait_m48_448.fb_dist_in1k` at 448 pixels.

Differs: the last epoch is scored, though it is known to be worse than the best one on the test set.
A transformer's layer passes our trained LayerNorm, not the transformer's own frozen last one.
`log_jacobian` puts the whole negative log-likelihood into the map, as users of that code propose.

Shape legend: B images, C channels, h and w a layer's own cells, L numbers of a pyramid, S side of
the map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import Declaration, Keeper, Method, Preset, Scores, Stage
from methods.networks.flow import Flows
from methods.parts.accelerating import accelerated, autocast
from methods.parts.aggregate import unflatten
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches, Draws
from methods.parts.checks import above_zero, at_least, check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost, training_cost
from methods.parts.maps import SEARCH, TILTS, image_score, layer_weights, smooth_upsample
from methods.parts.progress import OnProgress, quiet
from methods.parts.shapes import layer_shapes
from methods.parts.training import Recipe, optimise


class FastFlow(Method):
    """Negative likelihood of each location's features under a flow."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning: `kernels` are the sizes that the steps take in turn."""

        backbone: str = "wide_resnet50_2.racm_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (1, 2, 3)
        image_size: int = 256
        precision: Literal["float32", "bfloat16"] = "float32"
        flow_steps: int = 8
        kernels: tuple[int, ...] = (3, 1)
        hidden_ratio: float = 1.0
        clamp: float = 2.0
        layer_norm: bool = True
        epochs: int = 500
        batch_size: int = 32
        learning_rate: float = 1e-3
        weight_decay: float = 1e-5
        schedule: Literal["constant", "one_cycle"] = "constant"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning."""

        log_jacobian: bool = False
        sigma: float = 0.0
        pool: int = 1
        layer_tilt: float = 0.0
        """Above 0 the coarse layers weigh more, see `layer_weights`; published: all weigh alike."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: FastFlow.Config = config
        self.shapes = layer_shapes(self.inputs(config))
        self.flows = of_config(Flows, config, shapes=self.shapes)

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The layers, each at its own resolution."""
        return of_config(Features, config, resize=config.image_size, aggregate="pyramid")

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Train the flows, and the norms in front of them, by maximum likelihood."""
        recipe = of_config(Recipe, self.config)
        optimise(self.flows, self.losses, train, recipe, self.seed, on_progress, keeper)

    def losses(self, flows: nn.Module, pyramid_BL: Tensor, draws: Draws) -> Tensor:
        """Negative log-likelihood but for a constant, summed over layers: (B,)."""
        losses_B = [
            0.5 * z_BChw.square().sum(dim=(1, 2, 3)) - log_det_Bhw.sum(dim=(1, 2))
            for z_BChw, log_det_Bhw in flows(*unflatten(pyramid_BL.to(self.device), self.shapes))
        ]
        return torch.stack(losses_B).sum(dim=0)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """A pyramid (B, L) to maps (B, S, S) and image scores (B,)."""
        with autocast(self.device, self.config.precision):
            latents = accelerated(self.flows)(*unflatten(inputs.to(self.device), self.shapes))
        layers_BSS = []
        weights = layer_weights(len(self.shapes), knobs.layer_tilt)
        for weight, (z_BChw, log_det_Bhw) in zip(weights, latents, strict=True):
            energy_Bhw = 0.5 * z_BChw.square().mean(dim=1)
            if knobs.log_jacobian:
                scores_Bhw = energy_Bhw - log_det_Bhw / z_BChw.shape[1]
            else:
                scores_Bhw = -torch.exp(-energy_Bhw)
            side = self.config.image_size
            layers_BSS.append(smooth_upsample(weight * scores_Bhw, side, knobs.sigma))
        maps_BSS = torch.stack(layers_BSS).mean(dim=0)
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))


def check(config: FastFlow.Config, knobs: FastFlow.Knobs, images: int) -> None:
    """Ranges of the training and of the steps."""
    at_least(config, 1, "epochs", "batch_size", "flow_steps")
    at_least(config, 0, "weight_decay")
    above_zero(config, "learning_rate", "hidden_ratio", "clamp")
    check_map(knobs, config.image_size)
    if not config.kernels or any(size < 1 or size % 2 == 0 for size in config.kernels):
        raise ValueError(f"kernels={config.kernels}: give odd sizes, e.g. 3,1")


def cost(config: FastFlow.Config, images: int) -> Cost:
    """The flows over every image in every epoch."""
    shapes = layer_shapes(FastFlow.inputs(config))
    return training_cost(
        lambda: of_config(Flows, config, shapes=shapes), *shapes, samples=images * config.epochs
    )


QUICK = FastFlow.Config(
    backbone=LITE0,
    image_size=224,
    precision="bfloat16",
    flow_steps=4,
    epochs=8,
    # Small batches: few images and epochs leave too few steps at 32. A higher rate lowers the
    # loss and ruins the map.
    batch_size=8,
    schedule="one_cycle",
)
METHOD = Declaration(
    method=FastFlow,
    presets={
        "paper": Preset(FastFlow.Config(), FastFlow.Knobs()),
        "quick": Preset(QUICK, FastFlow.Knobs()),
        "smoke": Preset(
            replace(
                QUICK,
                layers=(2, 3),
                image_size=128,
                precision="float32",
                epochs=15,
                learning_rate=3e-3,
            ),
            FastFlow.Knobs(),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: (
        Stage({"log_jacobian": (False, True)}),
        Stage({"layer_tilt": TILTS}),
        *SEARCH,
    ),
    passes=lambda knobs: 1,
)
