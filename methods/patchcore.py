"""PatchCore: nearest neighbours in a coreset of normal patches.

Published (Roth et al. 2022; official repository `patchcore-inspection`): WideResNet-50-2 layers 2
and 3, 3x3 neighbourhoods pooled to 1024 numbers, Gaussian 4, k = 1, image score = maximum over
patches, and two sizes of view and coreset:

- IM224, 10 %: resize 256, centre crop 224 (the `paper` preset);
- IM320, 1 %: `--set patchcore.resize=366 --set patchcore.crop=320 --set patchcore.grid=40
  --set patchcore.bank_rate=0.01 --set patchcore.coreset=0.01`.

Greedy k-center chooses the coreset: approximately, as the official code does and `paper` too, on a
random projection to 128 numbers and from the mean distance to 10 random patches (`projection=128`,
`starts=10`); or exactly, as in the paper, from one random patch (`projection=none`, `starts=0`).
The paper's re-weighting of the image score is absent from the official code; here it is the knob
`reweight`, off by default. `bank_precision=float16` halves what the rows take. `channels=none`
concatenates the layers, averaged over 3x3, as anomalib does.

Differs: maps are not rescaled with the test set's minimum and maximum (that leaks test statistics).

Shape legend: B images, C channels, g grid cells a side, S side of the map in pixels, M bank rows, K
neighbours of the nearest row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from kernels.topk import topk_l2
from methods.base import BankSearch, Declaration, Keeper, Method, Neighbours, Preset, Scores, Stage
from methods.parts.backbone import LITE0, Features
from methods.parts.bank import KS, MemoryBank, coresets
from methods.parts.batches import Batches
from methods.parts.checks import at_least, check_bank, check_map
from methods.parts.config import of_config
from methods.parts.cost import Cost, bank_cost, coreset_rows
from methods.parts.maps import image_score, smooth_upsample
from methods.parts.progress import OnProgress, quiet
from methods.parts.shapes import feature_channels


class PatchCore(Method):
    """Mean squared distance of each patch to its k nearest normal patches."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Settings of learning; `projection` None and `starts` 0 make the greedy choice exact."""

        backbone: str = "wide_resnet50_2.tv_in1k"
        weights: str | None = None
        layers: tuple[int, ...] = (2, 3)
        resize: int = 256
        crop: int | None = 224
        grid: int = 28
        channels: int | None = 1024
        precision: Literal["float32", "bfloat16"] = "float32"
        bank_rate: float = 0.1
        projection: int | None = 128
        starts: int = 10
        bank_precision: Literal["float32", "float16"] = "float32"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        """Settings that may change after learning; `reweight` is b of the paper, 0 officially."""

        k: int = 1
        coreset: float = 0.1
        reweight: int = 0
        sigma: float = 4.0
        pool: int = 1
        image_score: Literal["patches", "map"] = "patches"
        """The maximum over patches, as officially, or over the smoothed map, as in ADer."""

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        self.config: PatchCore.Config = config
        self.bank = MemoryBank(getattr(torch, config.bank_precision))

    @classmethod
    def inputs(cls, config: Config) -> Features:
        """Locally aware patch features."""
        return of_config(Features, config, aggregate="patches")

    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Fill the bank; nothing is trained by gradients."""
        self.bank.fit(
            train,
            lambda features: features.to(self.device),
            self.config.bank_rate,
            projection=self.config.projection,
            starts=self.config.starts,
            seed=self.seed,
            on_progress=on_progress,
        )

    @classmethod
    def bank_search(cls, knobs: Knobs) -> BankSearch:
        """The search for the k nearest rows."""
        return BankSearch(knobs.coreset, knobs.k)

    @torch.inference_mode()
    def neighbours(self, inputs: Tensor, search: BankSearch) -> Neighbours:
        """The nearest rows of features (B, C, g, g)."""
        return self.bank.search(inputs.to(self.device), search)

    @torch.inference_mode()
    def score(self, inputs: Tensor, knobs: Knobs, neighbours: Neighbours | None = None) -> Scores:
        """Features (B, C, g, g) to maps (B, S, S) and image scores (B,)."""
        features_BCgg = inputs.to(self.device)
        nearest = neighbours or self.bank.search(features_BCgg, self.bank_search(knobs))
        # Squared, as faiss gives it to the official code.
        distances_Bgg = nearest.distances[..., : knobs.k].square().mean(dim=-1)
        maps_BSS = smooth_upsample(distances_Bgg, self.inputs(self.config).side, knobs.sigma)
        if knobs.reweight:
            rows_Bgg = nearest.rows[..., 0]
            return Scores(maps_BSS, self._reweighted(features_BCgg, distances_Bgg, rows_Bgg, knobs))
        if knobs.image_score == "map":
            return Scores(maps_BSS, maps_BSS.amax(dim=(1, 2)))
        # The official image score is the maximum over patches, before any smoothing.
        return Scores(maps_BSS, image_score(distances_Bgg, knobs.pool))

    def _reweighted(
        self, features_BCgg: Tensor, distances_Bgg: Tensor, rows_Bgg: Tensor, knobs: Knobs
    ) -> Tensor:
        """Eq. 7 of the paper: image scores (B,) from squared distances.

        The largest distance is the score, less where its nearest row has near neighbours, of which
        there are b = `knobs.reweight`.
        """
        largest_B, cell_B = distances_Bgg.flatten(1).max(dim=1)
        images_B = torch.arange(len(features_BCgg), device=features_BCgg.device)
        patch_BC = features_BCgg.flatten(2)[images_B, :, cell_B]
        nearest_B = rows_Bgg.flatten(1)[images_B, cell_B]
        bank_MC = self.bank.prefix(knobs.coreset)
        # The nearest row is the first of its own neighbours.
        rows_BK = topk_l2(bank_MC[nearest_B], bank_MC, knobs.reweight)[1]
        distances_BK = torch.linalg.vector_norm(bank_MC[rows_BK].float() - patch_BC[:, None], dim=2)
        distance_B = torch.linalg.vector_norm(bank_MC[nearest_B].float() - patch_BC, dim=1)
        share_B = torch.exp(distance_B - torch.logsumexp(distances_BK, dim=1))
        return (1 - share_B) * largest_B.sqrt()


def check(config: PatchCore.Config, knobs: PatchCore.Knobs, images: int) -> None:
    """Ranges of k, the coreset, b and the pooling."""
    at_least(knobs, 1, "k")
    at_least(knobs, 0, "reweight")
    at_least(config, 1, "channels", "projection")
    at_least(config, 0, "starts")
    check_map(knobs, config.grid)
    patches = images * config.grid**2
    check_bank(config, knobs, patches)
    rows = coreset_rows(patches, knobs.coreset)
    if knobs.reweight == 1 or knobs.reweight > rows:
        raise ValueError(
            f"reweight={knobs.reweight}: must be 0 or in 2..{rows}, the rows of the bank; "
            "the nearest row alone weighs nothing"
        )
    if knobs.image_score == "map" and (knobs.reweight or knobs.pool > 1):
        raise ValueError("image_score=map: is the maximum of the map; set reweight=0 and pool=1")
    if knobs.reweight and knobs.pool > 1:
        raise ValueError(f"pool={knobs.pool}: re-weighting takes the maximum; set pool=1")


def cost(config: PatchCore.Config, images: int) -> Cost:
    """The bank."""
    return bank_cost(
        images * config.grid**2,
        config.bank_rate,
        feature_channels(PatchCore.inputs(config)),
        config.projection,
        getattr(torch, config.bank_precision).itemsize,
    )


def stages(config: PatchCore.Config, knobs: PatchCore.Knobs) -> tuple[Stage, ...]:
    """k, then the coreset, then how distances become an image score.

    That is re-weighting, or the smoothing where the score is the maximum of the smoothed map.
    """
    last = {"sigma": (0.0, 2.0, 4.0)} if knobs.image_score == "map" else {"reweight": (0, 3, 9)}
    if knobs.pool > 1:  # which leaves no room for re-weighting
        last = {"pool": (1, 2, 3)}
    return Stage({"k": KS}), Stage({"coreset": coresets(config.bank_rate)}), Stage(last)


QUICK = PatchCore.Config(
    backbone=LITE0,
    resize=224,
    crop=None,
    grid=14,
    channels=128,
    precision="bfloat16",
    bank_rate=0.02,
    projection=None,
    starts=0,
)
METHOD = Declaration(
    method=PatchCore,
    presets={
        "paper": Preset(PatchCore.Config(), PatchCore.Knobs()),
        "ader": Preset(
            PatchCore.Config(resize=256, crop=256, grid=32), PatchCore.Knobs(image_score="map")
        ),
        "quick": Preset(QUICK, PatchCore.Knobs(coreset=0.02)),
        "smoke": Preset(
            replace(QUICK, resize=128, grid=8, precision="float32", bank_rate=0.05),
            PatchCore.Knobs(coreset=0.05, sigma=1.0),
        ),
    },
    check=check,
    cost=cost,
    stages=stages,
)
