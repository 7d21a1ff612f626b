"""RAD: each patch beside the patches of the most similar normal images, in several layers; no
training.

Published ("Is Training Necessary for Anomaly Detection?", arXiv 2601.22763; official repository
`longkukuhi/RAD`): DINOv3 ViT-B/16; resize 512, centre crop 448; blocks 3, 6, 9 and 11, counted from
0, each through the final norm; all training images are kept. Of an image the `k_image` normal ones
with the nearest class token of the last block are taken; the distance of a patch is one minus the
largest cosine among their patches at most `radius` cells away; mean over blocks. Map: 256 pixels a
side, Gaussian of 5 x 5 taps and sigma 1; image score: the mean of the top 1 %. Both numbers are set
by hand for each data set: MVTec AD 150 and 1 (the `paper` preset), VisA 900 and 2, Real-IAD 900 and
0; here `tune` chooses them without anomalies. A `radius` that reaches across the grid looks
everywhere, as AnomalyDINO does (Damm et al., WACV 2025).

Weights of DINOv3 are given to those who agree to its licence; DINOv2's are free:
`backbone=vit_base_patch14_reg4_dinov2.lvd142m`.

Differs: features are kept in halves; where there are fewer images than `k_image`, all are taken;
maps are brought from 256 pixels to the size of the view.

Ours: `bank_rate` below 1 keeps a part of the images, those that cover the others by their class
tokens; at 1 nothing is drawn and every seed gives the same model. `grid` > 0 takes the layers of
any other backbone, aligned to that grid; the mean of the deepest stands for the class token.
`quick` and `smoke` do, as no transformer's weights come as a package.

Shape legend: B images, C channels, g grid cells a side, L numbers of an image, K similar images, S
side of the map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kernels.topk import topk_l2
from methods.base import Declaration, Keeper, Method, Preset, Scores, Stage
from methods.parts.aggregate import Shape, unflatten
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches
from methods.parts.checks import at_least, check_evaluated, up_to_one
from methods.parts.cost import Cost, coreset_rows
from methods.parts.image_bank import ImageBank
from methods.parts.maps import evaluated
from methods.parts.progress import OnProgress, quiet
from methods.parts.shapes import feature_numbers, layer_shapes
from methods.parts.tokens import token_view

EVERYWHERE = 1000
"""A radius that reaches across every grid."""


class Rad(Method):
    """One minus the largest cosine with nearby patches of similar normal images."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of the bank."""

        backbone: str = "vit_base_patch16_dinov3.lvd1689m"
        weights: str | None = None
        layers: tuple[int, ...] = (3, 6, 9, 11)
        resize: int = 512
        crop: int | None = 448
        grid: int = 0
        precision: Literal["float32", "bfloat16"] = "float32"
        bank_rate: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning; `radius` is in cells, sigma 0 does not blur."""

        k_image: int = 150
        radius: int = 1
        scored_at: int = 256
        window: int = 5
        sigma: float = 1.0
        top: float = 0.01

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: Rad.Config = config
        self.shapes = _shapes(config)
        self.bank = ImageBank()

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Class token and patches after each block, or layers on a grid."""
        return token_view(config, prefix="class", norm=True)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Fill the bank; nothing is trained by gradients."""
        self.bank.fit(
            train, self.vector, self.config.bank_rate, seed=self.seed, on_progress=on_progress
        )

    def vector(self, inputs: Tensor) -> Tensor:
        """The class token of the last block, or the mean of the deepest layer: (B, C)."""
        parts = unflatten(inputs.flatten(1), self.shapes)
        return parts[-1].mean(dim=(2, 3)) if self.config.grid else parts[-2].flatten(1)

    def layers(self, flat_BL: Tensor) -> list[Tensor]:
        """The patches of each layer (B, C, g, g), which are views."""
        parts_BChw = unflatten(flat_BL, self.shapes)
        # A transformer's class token stands before the patches of each block.
        return parts_BChw if self.config.grid else parts_BChw[1::2]

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """Tokens (B, L), or features (B, C, g, g), to maps (B, S, S) and image scores (B,)."""
        # Halves, as the normal ones: an image that was kept is at distance 0.
        values = inputs.to(self.device).half()
        rows_BK = self.bank.nearest(self.vector(values.float()), knobs.k_image)
        errors_gg = [
            self._distances(one_1L, rows_K, knobs.radius)
            for one_1L, rows_K in zip(values.flatten(1).split(1), rows_BK, strict=True)
        ]
        return evaluated(torch.stack(errors_gg), self.inputs(self.config).side, knobs)

    def _distances(self, one_1L: Tensor, rows_K: Tensor, radius: int) -> Tensor:
        """The mean over layers of each patch's distance to the nearest similar one: (g, g)."""
        pairs = zip(self.layers(one_1L), self.layers(self.bank.images_ML), strict=True)
        # One layer of the similar images at a time: 900 of them take 8 GB in float32.
        distances_gg = [
            nearby(directions(one_1Cgg.float())[0], directions(all_MCgg[rows_K].float()), radius)
            for one_1Cgg, all_MCgg in pairs
        ]
        return torch.stack(distances_gg).mean(dim=0)


def directions(patches_BCgg: Tensor) -> Tensor:
    """Patches with a length of 1: (B, C, g, g)."""
    return F.normalize(patches_BCgg, dim=1)


def nearby(patches_Cgg: Tensor, similar_KCgg: Tensor, radius: int) -> Tensor:
    """One minus the largest cosine with patches at most `radius` rows and columns away: (g, g).

    One product for each row of patches, with whole rows of the similar images: columns that are too
    far are masked, which costs less than to gather those that are not.
    """
    side = patches_Cgg.shape[-1]
    if radius >= side - 1:
        return everywhere(patches_Cgg, similar_KCgg)
    columns_g = torch.arange(side, device=patches_Cgg.device)
    far_gg = (columns_g[:, None] - columns_g).abs() > radius
    best_g = []
    for row in range(side):
        around_KCN = similar_KCgg[:, :, max(0, row - radius) : row + radius + 1].flatten(2)
        cosines_KgN = patches_Cgg[:, row].T @ around_KCN
        near_KgRg = cosines_KgN.unflatten(2, (-1, side)).masked_fill(far_gg[:, None], -1.0)
        best_g.append(near_KgRg.amax(dim=(0, 2, 3)))
    return 1 - torch.stack(best_g)


def everywhere(patches_Cgg: Tensor, similar_KCgg: Tensor) -> Tensor:
    """One minus the largest cosine with any patch of the similar images: (g, g)."""
    rows_KC = similar_KCgg.movedim(1, 3).flatten(0, 2)
    distances, _ = topk_l2(patches_Cgg.flatten(1).T, rows_KC, 1)
    # Of unit vectors the squared Euclidean distance is twice one minus the cosine.
    return distances.square().div(2).view(patches_Cgg.shape[1:])


def _shapes(config: Rad.Config) -> tuple[Shape, ...]:
    """Shapes that the bank keeps: each layer on the grid, or class token and patches in turn."""
    shapes = layer_shapes(Rad.inputs(config))
    if not config.grid:
        return shapes
    return tuple((channels, config.grid, config.grid) for channels, _, _ in shapes)


def check(config: Rad.Config, knobs: Rad.Knobs, images: int) -> None:
    """Ranges of the bank and of the search in it."""
    at_least(config, 0, "grid")
    check_evaluated(knobs)
    at_least(knobs, 1, "k_image")
    at_least(knobs, 0, "radius")
    up_to_one(config, "bank_rate")


def cost(config: Rad.Config, images: int) -> Cost:
    """The images in halves, all of them while a part is chosen; scoring as with `paper`'s knobs."""
    kept = coreset_rows(images, config.bank_rate)
    numbers = feature_numbers(Rad.inputs(config))
    shapes = _shapes(config)
    choosing, knobs = config.bank_rate < 1, Rad.Knobs()
    beside = min(knobs.k_image, kept) * (2 * knobs.radius + 1) ** 2
    return Cost(
        bank_rows=kept * shapes[-1][1] ** 2,
        bank_bytes=2 * numbers * (images + kept if choosing else images),
        coreset_flops=2.0 * kept * images * shapes[-1][0] if choosing else 0.0,
        score_flops=2.0 * images * (kept * shapes[-1][0] + beside * numbers),
    )


QUICK = Rad.Config(
    backbone=LITE0,
    # Those that other methods which compare layers take: the first is edges alone.
    layers=(1, 2, 3),
    resize=224,
    crop=None,
    grid=14,
    precision="bfloat16",
)
METHOD = Declaration(
    method=Rad,
    presets={
        "paper": Preset(Rad.Config(), Rad.Knobs()),
        "quick": Preset(QUICK, Rad.Knobs(k_image=50)),
        "smoke": Preset(
            replace(QUICK, resize=128, grid=8, precision="float32", bank_rate=0.5),
            Rad.Knobs(k_image=10, scored_at=64),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: (
        Stage({"k_image": (10, 50, 150, 900), "radius": (0, 1, 2, EVERYWHERE)}),
    ),
)
