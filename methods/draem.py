"""DRAEM: paint a defect, rebuild the image without it, tell from both where it was.

Published (Zavrtanik et al. 2021; official repository `DRAEM`): 256 pixels, BGR in [0, 1], no
ImageNet statistics; half of the samples are damaged where Perlin noise (1 to 32 cells, turned by
up to 90 degrees) exceeds 0.5, by a DTD texture with 3 of 10 augmentations and an opacity of 0.2 to
1; 3 of 10 images are turned by up to 90 degrees; a reconstruction network (base 128) and a U-Net
that segments (base 64), from scratch; squared error + SSIM + focal loss; Adam 1e-4, batches of 8,
700 epochs, a fifth of the rate after 80 % and again after 90 %. Map = probability of damage, image
score = maximum of 21x21 averages (zeros beyond the border never win, so none are added).

Differs: DTD has terms of its own and is a separate download. `textures=DIR` takes it, or any folder
of images, whose content stands in the row in place of weights; `own`, the default, takes training
images, moved cyclically, and procedural textures by halves, and the row says so. Images are RGB,
not BGR, which is all the same to networks that learn from scratch. Each image is seen once an
epoch; officially images are drawn anew. Draws derive from the seed, the epoch and the place in it;
officially workers may share them. Brightness and contrast change RGB, not another colour space.
Batch statistics are those of each worker's part of a batch.

Shape legend: B images, S side of the image, or of the window that is trained on, in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from methods.base import Declaration, Keeper, Method, Preset, Scores, Stage
from methods.networks.inpainting import RebuildAndTell, focal, ssim
from methods.painting import perlin
from methods.painting.augmentation import augment
from methods.painting.textures import (
    OWN,
    Source,
    folder_textures,
    own_textures,
    texture_files,
    textures_sha256,
)
from methods.parts.accelerating import accelerated, autocast
from methods.parts.backbone import Pixels
from methods.parts.batches import Batches, Draws
from methods.parts.checks import above_zero, at_least, check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost, training_cost
from methods.parts.maps import error_map, image_score
from methods.parts.progress import OnProgress, quiet
from methods.parts.training import Recipe, optimise
from methods.parts.windows import anywhere, crop

MULTIPLE = 32
"""Sides are multiples of it: the networks halve them five times."""


class Draem(Method):
    """Reconstruction and discrimination, learned from painted defects."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; `window`: the side of squares to train on, not on whole images."""

        image_size: int = 256
        window: int | None = None
        rebuild_width: int = 128
        segment_width: int = 64
        textures: str = OWN
        damaged: float = 0.5
        most_transparent: float = 0.8
        turned: float = 0.3
        epochs: int = 700
        batch_size: int = 8
        learning_rate: float = 1e-4
        schedule: Literal["step", "one_cycle"] = "step"
        precision: Literal["float32", "bfloat16"] = "float32"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning: the pooling of the image score."""

        pool: int = 21

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: Draem.Config = config
        network = of_config(RebuildAndTell, config)
        self.network = network.to(memory_format=torch.channels_last).eval()

    @classmethod
    def inputs(cls, config: Config) -> Pixels:
        """The whole image."""
        return Pixels(resize=config.image_size)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Train both networks together."""
        config = self.config
        source = (
            own_textures(train)
            if config.textures == OWN
            else folder_textures(_texture_folder(config), config.image_size, on_progress)
        )
        recipe = of_config(Recipe, config, drops=(0.8, 0.9), drop_to=0.2)
        losses = partial(self.losses, source)
        optimise(self.network, losses, train, recipe, self.seed, on_progress, keeper)

    def losses(
        self, source: Source, network: nn.Module, images_B3SS: Tensor, draws: Draws
    ) -> Tensor:
        """Squared error + (1 - SSIM) of the rebuilt image + focal loss of the logits: (B,)."""
        clean_B3SS = self._view(images_B3SS, draws)
        damaged_B3SS, mask_B1SS = self.damage(clean_B3SS, source, draws)
        damaged_B3SS = damaged_B3SS.contiguous(memory_format=torch.channels_last)
        rebuilt_B3SS, logits_B2SS = network(damaged_B3SS)
        with torch.autocast(self.device.type, enabled=False):
            rebuilt_B3SS, logits_B2SS = rebuilt_B3SS.float(), logits_B2SS.float()
            error_B = (rebuilt_B3SS - clean_B3SS).square().mean(dim=(1, 2, 3))
            rebuilding_B = error_B + 1 - ssim(rebuilt_B3SS, clean_B3SS)
            losses_B: Tensor = rebuilding_B + focal(logits_B2SS, mask_B1SS)
        return losses_B

    def _view(self, images_B3SS: Tensor, draws: Draws) -> Tensor:
        """Images (B, 3, S, S) as they are trained on: some turned, all cut to the window."""
        turned_B3SS = perlin.rotate(images_B3SS, 180 * draws.uniform() - 90)
        turn_B111 = draws.uniform(1, 1, 1) < self.config.turned
        images_B3SS = torch.where(turn_B111, turned_B3SS, images_B3SS)
        side = _window(self.config)
        return crop(images_B3SS, anywhere(draws, images_B3SS.shape[-1], side), side)

    def damage(self, clean_B3SS: Tensor, source: Source, draws: Draws) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S), some of them painted with textures, and where: (B, 1, S, S) bool."""
        side = clean_B3SS.shape[-1]
        mask_B1SS = perlin.masks(draws, side) & (draws.uniform(1, 1, 1) < self.config.damaged)
        transparency_B111 = self.config.most_transparent * draws.uniform(1, 1, 1)
        textures_B3SS = augment(source(draws, side), draws)
        painted_B3SS = torch.lerp(textures_B3SS, clean_B3SS, transparency_B111)
        return torch.where(mask_B1SS, painted_B3SS, clean_B3SS), mask_B1SS

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """Images (B, 3, S, S) to maps (B, S, S) and image scores (B,)."""
        _, logits_B2SS = self._segment(inputs)
        maps_BSS = logits_B2SS.softmax(dim=1)[:, 1]
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))

    @torch.inference_mode()
    def explain(self, inputs: Tensor, knobs: Knobs) -> dict[str, Tensor]:
        """The distance by which the first network changes the image."""
        rebuilt_B3SS, _ = self._segment(inputs)
        return {"original to rebuilt": error_map(inputs.to(self.device) - rebuilt_B3SS)}

    def _segment(self, images_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """The rebuilt images (B, 3, S, S) and the logits (B, 2, S, S) of normal and damaged."""
        images_B3SS = images_B3SS.to(self.device).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.config.precision):
            rebuilt_B3SS, logits_B2SS = accelerated(self.network)(images_B3SS)
        return rebuilt_B3SS.float(), logits_B2SS.float()


def check(config: Draem.Config, knobs: Draem.Knobs, images: int) -> None:
    """Sides must halve five times, shares lie in 0..1, and textures be readable."""
    at_least(config, 1, "rebuild_width", "segment_width", "epochs", "batch_size")
    above_zero(config, "learning_rate")
    for name, side in (("image_size", config.image_size), ("window", _window(config))):
        if side < 2 * MULTIPLE or side % MULTIPLE or side > config.image_size:
            raise ValueError(
                f"{name}={side}: must be a multiple of {MULTIPLE} from {2 * MULTIPLE} on, "
                "the window within the image"
            )
    for name in ("damaged", "most_transparent", "turned"):
        if not 0 <= getattr(config, name) <= 1:
            raise ValueError(f"{name}={getattr(config, name)}: must be in 0..1")
    check_map(knobs, config.image_size)
    if config.textures != OWN:
        texture_files(_texture_folder(config))


def cost(config: Draem.Config, images: int) -> Cost:
    """Both networks over every image in every epoch, and a folder's textures in memory."""
    side, held_bytes = _window(config), 0
    if config.textures != OWN:
        held_bytes = 3 * config.image_size**2 * len(texture_files(_texture_folder(config)))
    return Cost(held_bytes=held_bytes) + training_cost(
        lambda: of_config(RebuildAndTell, config),
        (3, side, side),
        samples=images * config.epochs,
    )


def files_sha256(config: Draem.Config) -> str:
    """The hash of the folder of textures; empty where none is named."""
    return "" if config.textures == OWN else textures_sha256(_texture_folder(config))


def _window(config: Draem.Config) -> int:
    """The side, in pixels, of the squares that are trained on."""
    return config.image_size if config.window is None else config.window


def _texture_folder(config: Draem.Config) -> Path:
    if not config.textures:
        raise ValueError(f"textures=: names no folder; give one of images, or '{OWN}'")
    return Path(config.textures)


QUICK = Draem.Config(
    image_size=128,
    window=64,
    rebuild_width=8,
    segment_width=8,
    precision="bfloat16",
    epochs=4,
    batch_size=4,
    learning_rate=1e-3,
    schedule="one_cycle",
)
METHOD = Declaration(
    method=Draem,
    presets={
        "paper": Preset(Draem.Config(), Draem.Knobs()),
        "ader": Preset(Draem.Config(epochs=100), Draem.Knobs()),
        "quick": Preset(QUICK, Draem.Knobs(pool=11)),
        "smoke": Preset(
            replace(
                QUICK,
                image_size=64,
                window=None,
                rebuild_width=4,
                # Few steps see more defects, and whole images alone.
                damaged=0.8,
                turned=0.0,
                precision="float32",
                epochs=20,
            ),
            Draem.Knobs(pool=5),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: (Stage({"pool": (1, 5, 11, 21, 41)}),),
    passes=lambda knobs: 1,
    files_sha256=files_sha256,
    # Published DRAEM draws from DTD: with other textures it is another method.
    named=lambda config: {"textures": OWN} if config.textures == OWN else {},
)
