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
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.base import (
    BankSearch,
    Batches,
    Declaration,
    Keeper,
    Method,
    OnProgress,
    Preset,
    Scores,
    Stage,
    quiet,
)
from methods.networks.patch_encoder import (
    COARSE,
    FINE,
    Initial,
    Pretext,
    anywhere,
    beside,
    cells,
    crop,
    jittered,
    spread,
)
from methods.parts.accelerating import autocast
from methods.parts.backbone import Pixels
from methods.parts.bank import MemoryBank
from methods.parts.checks import above_zero, at_least
from methods.parts.cost import Cost, bank_cost, training_cost
from methods.parts.dist import total
from methods.parts.maps import image_score
from methods.parts.training import Draws, Recipe, optimise


class PatchSVDD(Method):
    """Distance of each patch to the nearest normal one, at two scales."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is learned; the rates are the share of all training patches that is kept."""

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
        """What may change after learning; the official code prints all four."""

        combine: Literal["coarse", "fine", "product", "sum"] = "product"

    mean: Tensor

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: PatchSVDD.Config = config
        network = Pretext(config.width, config.embedding, config.initial)
        self.network = network.to(memory_format=torch.channels_last)
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
        """The mean image, then the encoder, then the two banks of what it makes of the images."""
        config = self.config
        self._fit_mean(train)
        optimise(
            self.network,
            self.losses,
            _repeated(train, config.patches),
            Recipe.of(config, drops=()),
            seed=self.seed,
            on_progress=on_progress,
            keeper=keeper,
        )
        for number, bank in enumerate((self.coarse, self.fine)):
            bank.fit(
                train,
                partial(self._embed_scale, number),
                _scales(config)[number].rate,
                projection=None,
                seed=self.seed,
                on_progress=on_progress,
            )

    def _fit_mean(self, train: Batches) -> None:
        """The mean image of all categories."""
        whole = torch.zeros(self.mean.shape, dtype=torch.float64)
        for batch in train.ordered(64):
            whole += batch.inputs.double().sum(dim=0)
        self.mean.copy_(total(whole.to(self.device)) / len(train))

    def losses(self, pretext: nn.Module, images: Tensor, draws: Draws) -> Tensor:
        """Cross entropy of the directions and lambda x distance of the jittered, (B,)."""
        centred = images - self.mean
        sizes = [self._patches(centred, draws, patch) for patch in (COARSE, FINE)]
        labels = torch.stack([label for _, label in sizes])
        logits, distances = pretext(*(patches for patches, _ in sizes))
        apart = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        both: Tensor = apart.view_as(distances) + self.config.svdd_weight * distances
        return both.sum(dim=0)

    def _patches(self, images: Tensor, draws: Draws, patch: int) -> tuple[Tensor, Tensor]:
        """A patch, its neighbour, another and that one jittered, (4 B, 3, K, K), and directions."""
        side = self.config.image_size
        first, second = anywhere(draws, side, patch), anywhere(draws, side, patch)
        neighbour, label = beside(first, draws, side, patch)
        moved = jittered(second, draws, side, patch)
        cut = [crop(images, corners, patch) for corners in (first, neighbour, second, moved)]
        for index in (0, 1):  # so that colours and noise do not tell the direction
            shift, grain = draws.normal(3, 1, 1), draws.normal(3, patch, patch)
            cut[index] = cut[index] + self.config.noise * (shift + grain)
        return torch.cat(cut).contiguous(memory_format=torch.channels_last), label

    @torch.inference_mode()
    def embed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) to embeddings of coarse and fine patches, each (B, D, h, w)."""
        images = (inputs.to(self.device) - self.mean).contiguous(memory_format=torch.channels_last)
        with autocast(self.device, self.config.precision):
            coarse, fine = self.network.encoder.dense(
                images, coarse=self.config.coarse_stride, fine=self.config.fine_stride
            )
        return coarse.float(), fine.float()

    def _embed_scale(self, number: int, inputs: Tensor) -> Tensor:
        return self.embed(inputs)[number]

    @torch.inference_mode()
    def score(self, inputs: Tensor, keys: Sequence[str], knobs: Knobs) -> Scores:
        """Images (B, 3, S, S) to maps (B, S, S) and image scores (B,)."""
        maps = []
        for bank, embedded, scale in zip(
            (self.coarse, self.fine), self.embed(inputs), _scales(self.config), strict=True
        ):
            distances = bank.search(embedded, BankSearch(scale.rate, k=1)).distances[..., 0]
            maps.append(spread(distances, self.config.image_size, scale.patch, scale.stride))
        coarse, fine = maps
        both = {"coarse": coarse, "fine": fine, "product": coarse * fine, "sum": coarse + fine}
        return Scores(both[knobs.combine], image_score(both[knobs.combine], 1))


def check(config: PatchSVDD.Config, knobs: PatchSVDD.Knobs, images: int) -> None:
    """Strides must meet the grids of the two encoders, rates must keep something."""
    at_least(config, COARSE, "image_size")
    at_least(config, 1, "width", "embedding", "patches", "epochs", "batch_size")
    at_least(config, 0, "noise", "svdd_weight")
    above_zero(config, "learning_rate")
    if config.fine_stride < 2 or config.fine_stride % 2:
        raise ValueError(f"fine_stride={config.fine_stride}: must be even, at least 2")
    if config.coarse_stride < 2 or config.coarse_stride % 2 or FINE % config.coarse_stride:
        raise ValueError(f"coarse_stride={config.coarse_stride}: must be 2, 4, 8, 16 or 32")
    for name in ("coarse_rate", "fine_rate"):
        if not 0 < getattr(config, name) <= 1:
            raise ValueError(f"{name}={getattr(config, name)}: must be in (0, 1]")


def cost(config: PatchSVDD.Config, images: int) -> Cost:
    """Two banks, and four patches of each size for each of an epoch's samples."""
    banks = Cost()
    for scale in _scales(config):
        patches = images * cells(config.image_size, scale.patch, scale.stride) ** 2
        banks += bank_cost(patches, scale.rate, config.embedding, None)
    return training_cost(
        banks,
        lambda: Pretext(config.width, config.embedding),
        (4, 3, COARSE, COARSE),
        (4, 3, FINE, FINE),
        samples=images * config.patches * config.epochs,
    )


def search(config: PatchSVDD.Config) -> tuple[Stage, ...]:
    """Which scale, or how both together."""
    return (Stage({"combine": ("coarse", "fine", "product", "sum")}),)


def passes(knobs: PatchSVDD.Knobs) -> int:
    """One for both scales."""
    return 1


class Scale(NamedTuple):
    """Patches of one size: their side and distance in pixels, the share of them that is kept."""

    patch: int
    stride: int
    rate: float


def _scales(config: PatchSVDD.Config) -> tuple[Scale, Scale]:
    """The coarse and the fine one."""
    return (
        Scale(COARSE, config.coarse_stride, config.coarse_rate),
        Scale(FINE, config.fine_stride, config.fine_rate),
    )


def _repeated(train: Batches, times: int) -> Batches:
    """The same images so many times an epoch."""
    images = len(train)
    return Batches(
        train.keys * times,
        lambda indices: train.fetch([index % images for index in indices]),
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
    search=search,
    passes=passes,
    scores_while_training=False,  # the banks are filled at the end
)
