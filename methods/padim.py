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

Shape legend: B images, C channels, D drawn channels, h and w a layer's own cells, g those of the
shallowest layer a side, P = g g positions, F positions that are factored at once, L numbers of a
pyramid, S side of the map in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from methods.base import Declaration, Keeper, Method, Preset, Scores
from methods.parts.aggregate import unflatten
from methods.parts.backbone import LITE0, Features
from methods.parts.batches import Batches
from methods.parts.checks import check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost
from methods.parts.dist import total
from methods.parts.maps import SEARCH, image_score, smooth_upsample
from methods.parts.progress import OnProgress, Progress, quiet
from methods.parts.seeds import generator
from methods.parts.shapes import feature_channels, layer_shapes

AT_ONCE = 1 << 30
"""Bytes of outer products that one pass over the data sums, a quarter of all of them at most. The
sums, in float64, then take at most half of the memory of the factors."""
BATCH = 32
FACTORED = 64
"""F, the positions whose covariances are factored, or solved with, at once."""


class PaDiM(Method):
    """Mahalanobis distance of each patch to the normal patches at its position."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; so many `channels` are drawn, covariances get `ridge` x I added."""

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
        """Settings that may change after learning."""

        sigma: float = 4.0
        pool: int = 1

    mean_PD: Tensor
    factor_PDD: Tensor
    drawn: Tensor
    """(D,) int64, ascending, among the channels of all layers."""

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
        self.inverted = False
        """Whether `factor_PDD` holds the factors' inverses."""

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """The layers, each at its own resolution."""
        return of_config(Features, config, aggregate="pyramid", channels=None)

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Mean and factored covariance, some positions at a time; nothing is trained."""
        positions, width = self.mean_PD.shape
        step = max(1, min(-(-positions // 4), AT_ONCE // (8 * width**2)))
        spans = [slice(start, min(start + step, positions)) for start in range(0, positions, step)]
        for number, span in enumerate(spans):
            mean_PD, covariance_PDD = self._moments(train, span, number, len(spans), on_progress)
            self.mean_PD[span] = mean_PD.to(self.mean_PD)
            covariance_PDD.diagonal(dim1=1, dim2=2).add_(self.config.ridge)
            # A few at a time: the factors of all would need as much memory as the sums again.
            starts = range(span.start, span.stop, FACTORED)
            for start, covariance_FDD in zip(starts, covariance_PDD.split(FACTORED), strict=True):
                factor_FDD = torch.linalg.cholesky(covariance_FDD).to(self.mean_PD)
                self.factor_PDD[start : start + len(factor_FDD)] = factor_FDD

    def _moments(
        self, train: Batches, span: slice, number: int, spans: int, on_progress: OnProgress
    ) -> tuple[Tensor, Tensor]:
        """Mean (P, D) and covariance (P, D, D) of a span over the images of all ranks, float64."""
        count, width = span.stop - span.start, self.config.channels
        sums_P1D = torch.zeros(count, 1, width, dtype=torch.float64, device=self.device)
        products_PDD = torch.zeros(count, width, width, dtype=torch.float64, device=self.device)
        step = number * len(train)
        for batch in train.ordered(BATCH):
            rows_PBD = self._rows(batch.inputs, span).double()
            sums_P1D += rows_PBD.sum(dim=1, keepdim=True)
            products_PDD.baddbmm_(rows_PBD.mT, rows_PBD)
            step += batch.size
            on_progress(Progress(stage="gaussians", step=step, steps=spans * len(train)))
        mean_P1D = total(sums_P1D) / len(train)
        scatter_PDD = total(products_PDD).baddbmm_(mean_P1D.mT, mean_P1D, alpha=-len(train))
        return mean_P1D[:, 0], scatter_PDD.div_(len(train) - 1)

    def _rows(self, pyramid_BL: Tensor, span: slice) -> Tensor:
        """The drawn channels at a span of positions: (P, B, D)."""
        positions_P = torch.arange(self.side**2, device=self.device)[span]
        y_P, x_P = positions_P // self.side, positions_P % self.side
        rows_BDP, first = [], 0
        for layer_BChw in unflatten(pyramid_BL.to(self.device), self.shapes):
            channels, cells = layer_BChw.shape[1], layer_BChw.shape[3]
            drawn_D = self.drawn[(self.drawn >= first) & (self.drawn < first + channels)] - first
            # Deeper layers by nearest neighbour, without laying them over the whole grid.
            cells_P = y_P * cells // self.side * cells + x_P * cells // self.side
            rows_BDP.append(layer_BChw[:, drawn_D].flatten(2)[:, :, cells_P])
            first += channels
        return torch.cat(rows_BDP, dim=1).permute(2, 0, 1)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        """A pyramid (B, L) to maps (B, S, S) and image scores (B,)."""
        centred_PDB = (self._rows(inputs, slice(None)) - self.mean_PD[:, None]).mT
        # A few at a time: the solver copies the factors that it is given.
        blocks = zip(self.factor_PDD.split(FACTORED), centred_PDB.split(FACTORED), strict=True)
        whitened_FDB = (
            factor_FDD @ x_FDB
            if self.inverted
            else torch.linalg.solve_triangular(factor_FDD, x_FDB, upper=False)
            for factor_FDD, x_FDB in blocks
        )
        distances_PB = torch.cat([torch.linalg.vector_norm(x_FDB, dim=1) for x_FDB in whitened_FDB])
        distances_Bgg = distances_PB.T.unflatten(1, (self.side, self.side))
        maps_BSS = smooth_upsample(distances_Bgg, self.inputs(self.config).side, knobs.sigma)
        return Scores(maps_BSS, image_score(maps_BSS, knobs.pool))

    def program(self) -> PaDiM:
        """A twin with products in place of triangular solves, which ONNX lacks."""
        twin = PaDiM(self.config, seed=self.seed)
        twin.load_state_dict(self.state_dict(), assign=True)
        twin.factor_PDD, twin.inverted = torch.linalg.inv(self.factor_PDD), True
        return twin.eval()


def check(config: PaDiM.Config, knobs: PaDiM.Knobs, images: int) -> None:
    """Ranges of channels and ridge; a covariance needs two images."""
    available = feature_channels(PaDiM.inputs(config))
    if not 1 <= config.channels <= available:
        raise ValueError(
            f"channels={config.channels}: must be in 1..{available}, "
            f"the channels of layers {config.layers}"
        )
    if not config.ridge > 0:
        raise ValueError(f"ridge={config.ridge}: must be above 0, or no covariance is regular")
    if images < 2:
        raise ValueError(f"{images} training image: a covariance needs at least 2")
    check_map(knobs, PaDiM.inputs(config).side)


def cost(config: PaDiM.Config, images: int) -> Cost:
    """FLOPs of the outer products and their factors; the bytes that both hold at once."""
    positions, width = layer_shapes(PaDiM.inputs(config))[0][1] ** 2, config.channels
    numbers = positions * width**2
    return Cost(
        train_flops=2.0 * images * numbers + numbers * width / 3,
        score_flops=2.0 * images * numbers,
        bank_bytes=4 * numbers + min(2 * numbers, AT_ONCE),
    )


def drawn_channels(channels: int, count: int, seed: int) -> Tensor:
    """The channels (D,) that a seed draws, ascending: no distance depends on their order."""
    return torch.randperm(channels, generator=generator(seed, "channels"))[:count].sort().values


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
    stages=lambda config, knobs: SEARCH,
)
