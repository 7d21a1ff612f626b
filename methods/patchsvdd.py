"""PatchSVDD: patches of two sizes, embedded from scratch, far from the nearest normal patch.

Published (Yi & Yoon 2020; official repository `Anomaly-Detection-PatchSVDD-PyTorch`): 256 pixels,
the training images' mean image subtracted, no ImageNet statistics; a hierarchical encoder of
patches of 64 pixels made of one of 32, 64 numbers each; trained to tell in which of eight
directions a neighbouring patch lies (shift of colour and noise of 0.02) and to keep patches alike
that are a pixel or two apart (lambda); Adam 1e-4, batches of 64, 100 patches of each image an
epoch, 300 epochs. Test: distance to the nearest training patch, coarse ones 16 pixels apart, fine
ones 4, spread over the pixels that they cover, both maps multiplied; image score = maximum.

Differs: one mean image of all categories together; the nearest patches are searched exactly in a
greedy coreset of `coarse_rate` and `fine_rate` (the config in the row names them), as the 3,249
fine patches of each image are no bank that fits (the official code searches them all,
approximately). `--set patchsvdd.coarse_rate=1 --set patchsvdd.fine_rate=1` keeps them all: a choice
whose time grows with the square of the patches, so for few images only. The last epoch is scored,
not the best on the test set; all epochs train, of the official ones the first only evaluates.
Lambda is 1 by default; the paper tunes it by category. As in the official code the last layer that
tells directions is never trained, and a neighbour outside of the image is moved back into it.

An epoch draws `patches` samples of each image; `train_images_per_second` counts the images.

Shape legend: B images, S side of the image in pixels, K side of a patch, 4B four patches of each
image, D embedding, h and w grid cells of one scale. A leading 2 stands for the two scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import BankSearch, Declaration, Keeper, Method, Preset, Scores, Stage
from methods.networks.patch_encoder import (
    COARSE,
    FINE,
    Initial,
    Pretext,
    beside,
    cells,
    jittered,
    spread,
)
from methods.parts.accelerating import autocast
from methods.parts.backbone import Pixels
from methods.parts.bank import MemoryBank
from methods.parts.batches import Batches, Draws
from methods.parts.checks import above_zero, at_least, check_map, up_to_one
from methods.parts.config import of_config
from methods.parts.cost import Cost, bank_cost, training_cost
from methods.parts.dist import total
from methods.parts.maps import image_score
from methods.parts.progress import OnProgress, quiet
from methods.parts.training import Recipe, optimise
from methods.parts.windows import anywhere, crop


class PatchSVDD(Method):
    """Distance of each patch to the nearest normal one, at two scales."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; the rates are the shares of all training patches that are kept."""

        image_size: int = 256
        width: int = 32
        embedding: int = 64
        initial: Initial = "pytorch"
        coarse_stride: int = 16
        fine_stride: int = 4
        noise: float = 0.02
        svdd_weight: float = 1.0
        patches: int = 100
        epochs: int = 300
        batch_size: int = 64
        learning_rate: float = 1e-4
        schedule: Literal["step", "one_cycle"] = "step"
        precision: Literal["float32", "bfloat16"] = "float32"
        coarse_rate: float = 0.1
        fine_rate: float = 0.01

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning; the official code prints all four."""

        combine: Literal["coarse", "fine", "product", "sum"] = "product"
        pool: int = 1

    mean: Tensor
    """(3, S, S): the mean image."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: PatchSVDD.Config = config
        self.network = of_config(Pretext, config).to(memory_format=torch.channels_last)
        self.coarse, self.fine = MemoryBank(), MemoryBank()
        side = config.image_size
        self.register_buffer("mean", torch.zeros(3, side, side))

    @classmethod
    def inputs(cls, config: Config) -> Pixels:
        """The whole image."""
        return Pixels(resize=config.image_size)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Take the mean image, train the encoder, then fill the two banks with its embeddings."""
        config = self.config
        sum_3SS = torch.zeros(self.mean.shape, dtype=torch.float64)
        for batch in train.ordered(64):
            sum_3SS += batch.inputs.double().sum(dim=0)
        self.mean.copy_(total(sum_3SS.to(self.device)) / len(train))
        recipe = of_config(Recipe, config, drops=())
        samples = _repeated(train, config.patches)
        optimise(self.network, self.losses, samples, recipe, self.seed, on_progress, keeper)
        for index, (bank, scale) in enumerate(self._scales()):
            bank.fit(
                train,
                lambda images_B3SS, index=index: self.embed(images_B3SS)[index],  # type: ignore[misc]
                scale.rate,
                projection=None,
                seed=self.seed,
                on_progress=on_progress,
            )

    def losses(self, pretext: nn.Module, images_B3SS: Tensor, draws: Draws) -> Tensor:
        """Cross entropy of directions + lambda x distance of the jittered, of both scales: (B,)."""
        centred_B3SS = images_B3SS - self.mean
        (coarse_4B3KK, coarse_B), (fine_4B3KK, fine_B) = (
            self._patches(centred_B3SS, draws, patch) for patch in (COARSE, FINE)
        )
        logits_2B8, distances_2B = pretext(coarse_4B3KK, fine_4B3KK)
        labels_2B = torch.stack([coarse_B, fine_B])
        entropy = F.cross_entropy(logits_2B8.flatten(0, 1), labels_2B.flatten(), reduction="none")
        losses_2B: Tensor = entropy.view_as(distances_2B) + self.config.svdd_weight * distances_2B
        return losses_2B.sum(dim=0)

    def _patches(self, images_B3SS: Tensor, draws: Draws, patch: int) -> tuple[Tensor, Tensor]:
        """Four patches of each image, (4 B, 3, K, K), and the direction (B,) of the second.

        One patch, its neighbour, another patch, and that one jittered.
        """
        side = self.config.image_size
        first_B2, second_B2 = anywhere(draws, side, patch), anywhere(draws, side, patch)
        neighbour_B2, label_B = beside(first_B2, draws, side, patch)
        corners = first_B2, neighbour_B2, second_B2, jittered(second_B2, draws, side, patch)
        patches_B3KK = [crop(images_B3SS, corners_B2, patch) for corners_B2 in corners]
        for index in (0, 1):  # so that colours and noise do not tell the direction
            noise_B3KK = draws.normal(3, 1, 1) + draws.normal(3, patch, patch)
            patches_B3KK[index] = patches_B3KK[index] + self.config.noise * noise_B3KK
        return torch.cat(patches_B3KK).contiguous(memory_format=torch.channels_last), label_B

    @torch.inference_mode()
    def embed(self, images_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of the coarse and of the fine patches, each (B, D, h, w)."""
        centred_B3SS = images_B3SS.to(self.device) - self.mean
        with autocast(self.device, self.config.precision):
            coarse_BDhw, fine_BDhw = self.network.encoder.dense(
                centred_B3SS.contiguous(memory_format=torch.channels_last),
                coarse=self.config.coarse_stride,
                fine=self.config.fine_stride,
            )
        return coarse_BDhw.float(), fine_BDhw.float()

    def _scales(self) -> zip[tuple[MemoryBank, Scale]]:
        return zip((self.coarse, self.fine), scales(self.config), strict=True)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """Images (B, 3, S, S) to maps (B, S, S) and image scores (B,)."""
        scales_BSS = []
        for embedded_BDhw, (bank, scale) in zip(self.embed(inputs), self._scales(), strict=True):
            nearest = bank.search(embedded_BDhw, BankSearch(scale.rate, k=1))
            distances_Bhw, side = nearest.distances[..., 0], self.config.image_size
            scales_BSS.append(spread(distances_Bhw, side, scale.patch, scale.stride))
        coarse_BSS, fine_BSS = scales_BSS
        maps_BSS = {
            "coarse": coarse_BSS,
            "fine": fine_BSS,
            "product": coarse_BSS * fine_BSS,
            "sum": coarse_BSS + fine_BSS,
        }[knobs.combine]
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))


def check(config: PatchSVDD.Config, knobs: PatchSVDD.Knobs, images: int) -> None:
    """Strides must fit the grids of the two encoders; rates lie in (0, 1]."""
    at_least(config, COARSE, "image_size")
    check_map(knobs, config.image_size)
    at_least(config, 1, "width", "embedding", "patches", "epochs", "batch_size")
    at_least(config, 0, "noise", "svdd_weight")
    above_zero(config, "learning_rate")
    if config.fine_stride < 2 or config.fine_stride % 2:
        raise ValueError(f"fine_stride={config.fine_stride}: must be even, at least 2")
    if config.coarse_stride < 2 or config.coarse_stride % 2 or FINE % config.coarse_stride:
        raise ValueError(f"coarse_stride={config.coarse_stride}: must be 2, 4, 8, 16 or 32")
    up_to_one(config, "coarse_rate", "fine_rate")


def cost(config: PatchSVDD.Config, images: int) -> Cost:
    """Two banks, and four patches of each size for each of an epoch's samples."""
    counts = [cells(config.image_size, each.patch, each.stride) ** 2 for each in scales(config)]
    costs = training_cost(
        lambda: of_config(Pretext, config),
        (3, COARSE, COARSE),
        (3, FINE, FINE),
        samples=images * config.patches * config.epochs,
        rows=4,
    )
    costs = replace(costs, pass_flops=costs.pass_flops / 4 * max(counts))
    for scale, count in zip(scales(config), counts, strict=True):
        costs += bank_cost(images * count, scale.rate, config.embedding, None)
    return costs


class Scale(NamedTuple):
    """Patches of one size: their side and their stride in pixels, the share that a bank keeps."""

    patch: int
    stride: int
    rate: float


def scales(config: PatchSVDD.Config) -> tuple[Scale, Scale]:
    """The coarse and the fine scale."""
    return (
        Scale(COARSE, config.coarse_stride, config.coarse_rate),
        Scale(FINE, config.fine_stride, config.fine_rate),
    )


def _repeated(train: Batches, times: int) -> Batches:
    """The batches of an epoch that shows each image so many times."""
    return Batches(
        len(train) * times,
        lambda indices: train.fetch([index % len(train) for index in indices]),
        seed=train.seed,
    )


QUICK = PatchSVDD.Config(
    image_size=192,
    width=8,
    initial="he",
    fine_stride=8,
    # With more of it, so short a training leaves the position task at chance, 2 ln 8 = 4.16.
    svdd_weight=0.001,
    patches=2,
    epochs=6,
    learning_rate=1e-3,
    batch_size=16,
    schedule="one_cycle",
    coarse_rate=0.05,
)
METHOD = Declaration(
    method=PatchSVDD,
    presets={
        "paper": Preset(PatchSVDD.Config(), PatchSVDD.Knobs()),
        "quick": Preset(QUICK, PatchSVDD.Knobs()),
        "smoke": Preset(
            replace(
                QUICK,
                image_size=256,
                width=4,
                noise=0.1,
                patches=8,
                epochs=4,
                batch_size=32,
                learning_rate=2e-3,
                fine_rate=0.05,
            ),
            PatchSVDD.Knobs(),
        ),
    },
    check=check,
    cost=cost,
    stages=lambda config, knobs: (
        Stage({"combine": ("coarse", "fine", "product", "sum")}),
        Stage({"pool": (1, 4, 16)}),
    ),
    passes=lambda knobs: 1,
)
