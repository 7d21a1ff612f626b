"""PaDiM: a Gaussian of patch features at each position.

Published (Defard et al. 2021; there is no official code, `PaDiM-Anomaly-Detection-Localization` is
what everyone runs): WideResNet-50-2 layers 1 to 3 with 550 of 1792 channels, or ResNet-18 with 100
of 448; resize 256 and centre crop 224, 56x56 positions; deeper layers laid over the shallowest
one's grid by nearest neighbour; mean and covariance + 0.01 I per position; Mahalanobis distance;
Gaussian 4; image score = maximum of the map. ResNet-18 is
`--set padim.backbone=resnet18.tv_in1k --set padim.channels=100`.

Differs: sums of outer products instead of all features at once, in float64; a Cholesky factor and
a triangular solve instead of an inverse; maps are not rescaled with the test set's minimum and
maximum. Which channels are kept follows from the seed (`drawn_channels`), which stands in the row.
One Gaussian a position averages unlike objects in multi-class mode; that is the method.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from methods.base import (
    Batches,
    Declaration,
    Keeper,
    Method,
    OnProgress,
    Preset,
    Progress,
    Scores,
    Stage,
    quiet,
)
from methods.parts.aggregate import unflatten
from methods.parts.backbone import LITE0, Features, feature_channels, layer_shapes
from methods.parts.checks import check_map
from methods.parts.cost import Cost
from methods.parts.dist import total
from methods.parts.maps import SEARCH, image_score, smooth_upsample
from methods.parts.seeds import generator

AT_ONCE = 1 << 30
"""Bytes of outer products that are summed at once, if no more than a quarter of them; the rest
waits for another pass. So the sums take at most half of what their factors do."""
BATCH = 32
FACTORED = 64
"""Positions whose covariances are factored, or solved with, at once."""


class PaDiM(Method):
    """Mahalanobis distance of each patch to the normal patches at its position."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What is learned; `channels` are drawn from those of all layers, `ridge` is 0.01 I."""

        backbone: str = "wide_resnet50_2.tv_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (1, 2, 3)
        resize: int = 256
        crop: int | None = 224
        precision: Literal["float32", "bfloat16"] = "float32"
        channels: int = 550
        ridge: float = 0.01

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """What may change after learning."""

        sigma: float = 4.0
        pool: int = 1

    mean_PD: Tensor
    factor_PDD: Tensor
    drawn: Tensor

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: PaDiM.Config = config
        self.shapes = layer_shapes(self.inputs(config))
        self.side = self.shapes[0][1]
        positions, width = self.side**2, config.channels
        self.register_buffer("mean_PD", torch.empty(positions, width))
        self.register_buffer("factor_PDD", torch.empty(positions, width, width))
        channels = feature_channels(self.inputs(config))
        self.register_buffer("drawn", drawn_channels(channels, width, seed))

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The layers, each at its own resolution."""
        return Features.of(config, aggregate="pyramid", channels=None)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Mean and factored covariance, some positions at a time; nothing is trained."""
        parts = list(self._parts())
        for index, part in enumerate(parts):
            mean, covariance = self._moments(train, part, index, len(parts), on_progress)
            self.mean_PD[part] = mean.to(self.mean_PD)
            covariance.diagonal(dim1=1, dim2=2).add_(self.config.ridge)
            # A few at a time: the factors of all would need as much memory as the sums again.
            starts = range(part.start, part.stop, FACTORED)
            for start, piece in zip(starts, covariance.split(FACTORED), strict=True):
                factors = torch.linalg.cholesky(piece)
                self.factor_PDD[start : start + FACTORED][: len(piece)] = factors.to(self.mean_PD)

    def _parts(self) -> Iterator[slice]:
        positions, width = self.mean_PD.shape
        step = max(1, min(-(-positions // 4), AT_ONCE // (8 * width**2)))
        for start in range(0, positions, step):
            yield slice(start, min(start + step, positions))

    def _moments(
        self, train: Batches, part: slice, index: int, parts: int, on_progress: OnProgress
    ) -> tuple[Tensor, Tensor]:
        """Mean (P, D) and covariance (P, D, D) of some positions over all images of all ranks."""
        count, width = part.stop - part.start, self.config.channels
        sums = torch.zeros(count, 1, width, dtype=torch.float64, device=self.device)
        products = torch.zeros(count, width, width, dtype=torch.float64, device=self.device)
        done = index * len(train)
        for batch in train.ordered(BATCH):
            rows_PBD = self._rows(batch.inputs, part).double()
            sums += rows_PBD.sum(dim=1, keepdim=True)
            products.baddbmm_(rows_PBD.mT, rows_PBD)
            done += batch.size
            on_progress(Progress(stage="gaussians", step=done, steps=parts * len(train)))
        mean = total(sums) / len(train)
        covariance = total(products).baddbmm_(mean.mT, mean, alpha=-len(train))
        return mean[:, 0], covariance.div_(len(train) - 1)

    def _rows(self, inputs: Tensor, part: slice) -> Tensor:
        """A pyramid (B, L) to the drawn channels at some positions: (P, B, D)."""
        layers, first = unflatten(inputs.to(self.device), self.shapes), 0
        positions = torch.arange(self.side**2, device=self.device)[part]
        kept = []
        for layer in layers:
            here = (self.drawn >= first) & (self.drawn < first + layer.shape[1])
            cells = layer.shape[-1]
            # Deeper layers by nearest neighbour, without laying them over the whole grid.
            y, x = (
                at * cells // self.side for at in (positions // self.side, positions % self.side)
            )
            kept.append(layer[:, self.drawn[here] - first].flatten(2)[:, :, y * cells + x])
            first += layer.shape[1]
        return torch.cat(kept, dim=1).permute(2, 0, 1)

    @torch.inference_mode()
    def score(self, inputs: Tensor, keys: Sequence[str], knobs: Knobs) -> Scores:
        """A pyramid (B, L) to maps (B, S, S) and image scores (B,)."""
        away_PDB = (self._rows(inputs, slice(None)) - self.mean_PD[:, None]).mT
        # A few at a time: the solver copies the factors that it is given.
        pieces = zip(self.factor_PDD.split(FACTORED), away_PDB.split(FACTORED), strict=True)
        whitened = (torch.linalg.solve_triangular(f, away, upper=False) for f, away in pieces)
        distances = torch.cat([torch.linalg.vector_norm(one, dim=1) for one in whitened])
        grid = distances.T.unflatten(1, (self.side, self.side))
        maps = smooth_upsample(grid, self.inputs(self.config).side, knobs.sigma)
        return Scores(maps, image_score(maps, knobs.pool))


def check(config: PaDiM.Config, knobs: PaDiM.Knobs, images: int) -> None:
    """Ranges of channels and ridge; a covariance needs two images."""
    present = feature_channels(PaDiM.inputs(config))
    if not 1 <= config.channels <= present:
        raise ValueError(
            f"channels={config.channels}: must be in 1..{present}, "
            f"the channels of layers {config.layers}"
        )
    if not config.ridge > 0:
        raise ValueError(f"ridge={config.ridge}: must be above 0, or no covariance is regular")
    if images < 2:
        raise ValueError(f"{images} training image: a covariance needs at least 2")
    check_map(knobs, PaDiM.inputs(config).side)


def cost(config: PaDiM.Config, images: int) -> Cost:
    """The sums of outer products, their factors, and both at once in memory."""
    positions, width = layer_shapes(PaDiM.inputs(config))[0][1] ** 2, config.channels
    numbers = positions * width**2
    return Cost(
        train_flops=2.0 * images * numbers + numbers * width / 3,
        bank_bytes=4 * numbers + min(2 * numbers, AT_ONCE),
    )


def search(config: PaDiM.Config) -> tuple[Stage, ...]:
    """How maps become scores: nothing else is left after learning."""
    return SEARCH


def drawn_channels(channels: int, kept: int, seed: int) -> Tensor:
    """The channels that a seed keeps, ascending: the distance does not depend on their order."""
    return torch.randperm(channels, generator=generator(seed, "channels"))[:kept].sort().values


QUICK = PaDiM.Config(backbone=LITE0, resize=224, crop=None, precision="bfloat16", channels=100)
METHOD = Declaration(
    method=PaDiM,
    presets={
        "paper": Preset(PaDiM.Config(), PaDiM.Knobs()),
        "quick": Preset(QUICK, PaDiM.Knobs()),
        "smoke": Preset(
            replace(QUICK, resize=128, precision="float32", channels=40), PaDiM.Knobs(sigma=2.0)
        ),
    },
    check=check,
    cost=cost,
    search=search,
)
