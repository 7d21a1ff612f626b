"""RevDistill: a student rebuilds a frozen teacher's layers from a one-class embedding of them.

Published (Deng and Li 2022; official repository `RD4AD`): WideResNet-50-2 layers 1 to 3 at 256
pixels; a trained bottleneck that merges them (OCBE) and a decoder that mirrors the teacher, of
residual blocks; one minus the cosine between each teacher layer and its reconstruction, both laid
out flat as one vector; Adam 5e-3 with betas 0.5 and 0.999, batch 16, 200 epochs; map = sum over
layers of one minus the cosine at each location, upsampled with aligned corners, Gaussian 4; image
score = maximum of the map.

Differs: the last epoch is scored, never the best on the test set. `loss=per_location` is the
formula of the paper, a mean over locations. Other backbones get the same blocks, mirrored from
their own channels; where `relu` is not given, their rebuilt layers are non-negative if the
teacher's are, which end in a ReLU (ResNet, WideResNet, ResNeXt), and unbounded for all others.
The published rate is high, and a training may collapse; where its loss stays finite it is scored
like any other, and its AUROC stands as it is.

Shape legend: B images, C channels, h and w a layer's own cells, L numbers of a pyramid, N cosines
of a layer, S side of the map in pixels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import Declaration, Keeper, Method, Preset, Scores, Stage
from methods.networks.mirrored_student import Student
from methods.parts.accelerating import accelerated, autocast
from methods.parts.aggregate import Shape, unflatten
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches, Draws
from methods.parts.checks import above_zero, at_least, check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost, training_cost
from methods.parts.maps import SEARCH, TILTS, image_score, layer_weights, smooth_upsample
from methods.parts.progress import OnProgress, quiet
from methods.parts.shapes import layer_shapes
from methods.parts.training import Recipe, optimise

RELU_LAST = re.compile(r"(wide_)?(resnet|resnext)\d+[cdst]?(_2|_\d+x\d+d)?")
"""ResNets that end each layer in a ReLU, e.g. resnet18, wide_resnet50_2, resnext50_32x4d."""


class RevDistill(Method):
    """One minus the cosine between teacher and student, location by location."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning: `decoder_blocks` count from the deepest layer.

        `relu` makes rebuilt layers non-negative; None does so if the backbone's surely are.
        """

        backbone: str = "wide_resnet50_2.tv_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (1, 2, 3)
        image_size: int = 256
        precision: Literal["float32", "bfloat16"] = "float32"
        bottleneck_blocks: int = 3
        decoder_blocks: tuple[int, ...] = (3, 4, 6)
        relu: bool | None = None
        loss: Literal["flattened", "per_location"] = "flattened"
        epochs: int = 200
        batch_size: int = 16
        learning_rate: float = 5e-3
        schedule: Literal["constant", "one_cycle"] = "constant"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning."""

        sigma: float = 4.0
        pool: int = 1
        layer_tilt: float = 0.0
        """Above 0 the coarse layers weigh more, see `layer_weights`; officially all weigh alike."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: RevDistill.Config = config
        self.shapes = layer_shapes(self.inputs(config))
        # In eval mode until it is trained: a loaded model must not look at its batch.
        self.student = _student(config, self.shapes).eval()

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The teacher's layers, each at its own resolution."""
        return of_config(Features, config, resize=config.image_size, aggregate="pyramid")

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Train the student; the teacher is frozen."""
        recipe = of_config(Recipe, self.config, betas=(0.5, 0.999))
        optimise(self.student, self.losses, train, recipe, self.seed, on_progress, keeper)

    def losses(self, rebuild: nn.Module, pyramid_BL: Tensor, draws: Draws) -> Tensor:
        """One minus the cosine of a layer, or its mean over locations, summed over layers: (B,)."""
        teacher_BChw = unflatten(pyramid_BL.to(self.device), self.shapes)
        start = 1 if self.config.loss == "flattened" else 2
        losses_B = []
        for layer_BChw, rebuilt_BChw in zip(teacher_BChw, rebuild(*teacher_BChw), strict=True):
            cosine_BN = F.cosine_similarity(
                layer_BChw.flatten(start), rebuilt_BChw.float().flatten(start)
            ).view(len(pyramid_BL), -1)
            losses_B.append(1 - cosine_BN.mean(dim=1))
        return torch.stack(losses_B).sum(dim=0)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """A pyramid (B, L) to maps (B, S, S) and image scores (B,)."""
        teacher_BChw = unflatten(inputs.to(self.device), self.shapes)
        with autocast(self.device, self.config.precision):
            student_BChw = accelerated(self.student)(*teacher_BChw)
        apart = (
            1 - F.cosine_similarity(layer_BChw, rebuilt_BChw.float())
            for layer_BChw, rebuilt_BChw in zip(teacher_BChw, student_BChw, strict=True)
        )
        side = self.config.image_size
        weights = layer_weights(len(self.shapes), knobs.layer_tilt)
        layers_BSS = [
            smooth_upsample(weight * distances_Bhw, side, knobs.sigma, align_corners=True)
            for weight, distances_Bhw in zip(weights, apart, strict=True)
        ]
        maps_BSS = torch.stack(layers_BSS).sum(dim=0)
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))


def check(config: RevDistill.Config, knobs: RevDistill.Knobs, images: int) -> None:
    """Ranges of the training, and layers on grids that halve."""
    at_least(config, 1, "epochs", "batch_size", "bottleneck_blocks")
    above_zero(config, "learning_rate")
    check_map(knobs, config.image_size)
    blocks = config.decoder_blocks
    if len(blocks) != len(config.layers) or min(blocks) < 1:
        raise ValueError(f"decoder_blocks={blocks}: give one for each of {config.layers}")
    sides = [height for _, height, _ in layer_shapes(RevDistill.inputs(config))]
    halving = all(side == 2 * deeper for side, deeper in pairwise(sides))
    # Two cells would be embedded in one, of which a batch norm learns nothing.
    if not halving or sides[-1] < 4 or sides[-1] % 2:
        raise ValueError(
            f"image_size={config.image_size}: layers of {sides} cells a side, but each must be "
            "half of the one before and the last even and 4 or more; take a multiple of 32, 64 "
            "or more, and layers in a row"
        )


def cost(config: RevDistill.Config, images: int) -> Cost:
    """The student over every image in every epoch."""
    shapes = layer_shapes(RevDistill.inputs(config))
    return training_cost(lambda: _student(config, shapes), *shapes, samples=images * config.epochs)


def _student(config: RevDistill.Config, shapes: Sequence[Shape]) -> Student:
    relu = ends_in_relu(config.backbone) if config.relu is None else config.relu
    return of_config(Student, config, channels=[shape[0] for shape in shapes], relu=relu)


def ends_in_relu(backbone: str) -> bool:
    """Whether a backbone's layers are surely non-negative, by its name in timm.

    Variants with another activation or none at the end (`resnet51q`, `resnetv2_50`) are left out.
    """
    return RELU_LAST.fullmatch(backbone.split(".")[0]) is not None


QUICK = RevDistill.Config(
    backbone=LITE0,
    image_size=224,
    precision="bfloat16",
    bottleneck_blocks=1,
    decoder_blocks=(1, 1, 1),
    relu=False,
    epochs=6,
    schedule="one_cycle",
)
METHOD = Declaration(
    method=RevDistill,
    presets={
        "paper": Preset(RevDistill.Config(), RevDistill.Knobs()),
        # At ADer the teacher has timm's default weights.
        "ader": Preset(
            RevDistill.Config(backbone="wide_resnet50_2.racm_in1k", epochs=100), RevDistill.Knobs()
        ),
        "quick": Preset(QUICK, RevDistill.Knobs()),
        "smoke": Preset(
            replace(QUICK, image_size=128, precision="float32", epochs=15, batch_size=8),
            RevDistill.Knobs(sigma=2.0),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: (Stage({"layer_tilt": TILTS}), *SEARCH),
    passes=lambda knobs: 1,
)
