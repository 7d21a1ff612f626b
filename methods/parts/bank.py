"""The memory bank of normal patch features (eq. 9), its coreset, search and editing (eq. 10).

Shape legend: B images, C channels, h and w grid cells, N patches, M bank rows, D = C.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.edit import mix, topk_edit, weights
from kernels.topk import topk_l2
from methods.base import BankSearch, Batches, Neighbours, OnProgress
from methods.parts.coreset import choose
from methods.parts.cost import coreset_rows
from methods.parts.dist import rank, total, world_size

Weighting = Literal["softmax", "inverse", "uniform"]
KS = (1, 3, 5, 7, 9)
"""Numbers of neighbours that a search for knobs tries."""


def coresets(bank_rate: float) -> tuple[float, ...]:
    """Coreset rates that a search for knobs tries: parts of the bank."""
    return tuple(bank_rate * part for part in (0.25, 0.5, 1.0))


def patches(features_BChw: Tensor) -> Tensor:
    """One row a location: (B h w, C)."""
    return features_BChw.permute(0, 2, 3, 1).flatten(0, 2)


class MemoryBank(nn.Module):
    """Normal patches in the order of greedy k-center: a smaller coreset is a prefix.

    Kept as `dtype`; halves are searched as float32.
    """

    rows_MD: Tensor
    source: Tensor

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("rows_MD", torch.empty(0, 0, dtype=dtype))
        self.register_buffer("source", torch.zeros((), dtype=torch.int64))
        self._prefixes: tuple[Tensor, dict[int, Tensor]] = (self.rows_MD, {})

    @property
    def empty(self) -> bool:
        """Whether nothing was kept yet."""
        return len(self.rows_MD) == 0

    def fit(
        self,
        train: Batches,
        transform: Callable[[Tensor], Tensor],
        rate: float,
        *,
        projection: int | None,
        starts: int = 0,
        seed: int,
        on_progress: OnProgress,
    ) -> None:
        """Keep the first `rate` of all training patches, greedily chosen to cover the rest.

        `transform` maps features (B, C, h, w) to the bank's space. `projection` runs the choice
        on a seeded random projection to so many numbers (PatchCore's approximation); None is
        exact, and so is `starts` = 0, see `choose`. Rows are kept whole either way.
        """
        points_ND = self._collect(train, transform)
        self.rows_MD, patches = choose(
            points_ND,
            len(train),
            rate,
            projection=projection,
            starts=starts,
            seed=seed,
            on_progress=on_progress,
        )
        self.source.fill_(patches)

    def _collect(self, train: Batches, transform: Callable[[Tensor], Tensor]) -> Tensor:
        """This rank's training patches (N, D), in the order of the samples."""
        points_ND: Tensor | None = None
        filled = 0
        for batch in train.ordered(64):
            features_BChw = transform(batch.inputs)
            cells = features_BChw.shape[-2] * features_BChw.shape[-1]
            rows_ND = patches(features_BChw)
            if points_ND is None:
                # Filled in place: joining a list of batches would hold everything twice.
                images = -(-(len(train) - rank()) // world_size())
                shape = images * cells, rows_ND.shape[1]
                points_ND = rows_ND.new_empty(shape, dtype=self.rows_MD.dtype)
            points_ND[filled : filled + len(rows_ND)] = rows_ND
            filled += len(rows_ND)
        if points_ND is None:
            raise ValueError("the memory bank got no training images")
        return points_ND

    def prefix(self, rate: float) -> Tensor:
        """The coreset of `rate` of all training patches: (M, D).

        One tensor as long as the bank stays: the search keeps what it prepares with the tensor.
        """
        whole, prefixes = self._prefixes
        if whole is not self.rows_MD:
            prefixes = {}
            self._prefixes = (self.rows_MD, prefixes)
        rows = coreset_rows(int(self.source), rate)
        return prefixes.setdefault(rows, self.rows_MD[:rows])

    def search(self, features_BChw: Tensor, search: BankSearch) -> Neighbours:
        """The k nearest rows of each location, or all rows where there are fewer."""
        bank_MD = self.prefix(search.coreset)
        nearest = topk_l2(patches(features_BChw), bank_MD, min(search.k, len(bank_MD)))
        batch, _, height, width = features_BChw.shape
        return Neighbours(*(part_NK.view(batch, height, width, -1) for part_NK in nearest))

    def edit(
        self,
        features_BChw: Tensor,
        k: int,
        rate: float,
        weighting: Weighting,
        temperature: float,
        neighbours: Neighbours | None = None,
    ) -> Tensor:
        """Eq. 10: each location becomes a weighted mix of its k nearest rows."""
        bank_MD = self.prefix(rate)
        if neighbours is None:
            edited_ND = topk_edit(patches(features_BChw), bank_MD, k, weighting, temperature)
        else:
            distances_NK, rows_NK = (part.flatten(0, 2)[:, :k] for part in neighbours)
            edited_ND = mix(bank_MD, rows_NK, weights(distances_NK, weighting, temperature))
        batch, _, height, width = features_BChw.shape
        return edited_ND.view(batch, height, width, -1).permute(0, 3, 1, 2)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # The number of rows is data, not architecture: take the stored one.
        stored = state_dict.get(f"{prefix}rows_MD")
        if stored is not None:
            self.rows_MD = torch.empty_like(stored, device=self.source.device)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Standardise(nn.Module):
    """Per-channel zero mean and unit variance, from the training set."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def fit(self, train: Batches) -> None:
        """One pass over the training features, sums in float64."""
        channels = self.mean.shape[1]
        sums = torch.zeros(2 * channels + 1, dtype=torch.float64)
        for batch in train.ordered(64):
            values = batch.inputs.double()
            sums[:channels] += values.sum(dim=(0, 2, 3))
            sums[channels:-1] += values.square().sum(dim=(0, 2, 3))
            sums[-1] += values.numel() / channels
        sums = total(sums.to(self.mean.device)).cpu()
        mean = sums[:channels] / sums[-1]
        variance = (sums[channels:-1] / sums[-1] - mean.square()).clamp(min=0)
        self.mean.copy_(mean.view_as(self.mean))
        # A channel that never moves carries nothing; dividing by its zero would carry NaN.
        self.std.copy_(variance.sqrt().clamp(min=1e-6).view_as(self.std))

    def forward(self, features_BChw: Tensor) -> Tensor:
        """Features to standardised features, (B, C, h, w)."""
        return (features_BChw - self.mean) / self.std
