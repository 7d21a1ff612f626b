"""The memory bank of normal patch features (eq. 9), its coreset, search and editing (eq. 10).

Shape legend: B images, C channels, h and w grid cells, N patches, M bank rows, D = C numbers of a
row, K neighbours, X = 2 C + 1 sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels.edit import mix, topk_edit, weights
from kernels.topk import topk_l2
from methods.base import BankSearch, Neighbours
from methods.parts.batches import Batches
from methods.parts.coreset import choose
from methods.parts.cost import coreset_rows
from methods.parts.dist import local_count, rank, total
from methods.parts.progress import OnProgress

Weighting = Literal["softmax", "inverse", "uniform"]
TemperatureUnit = Literal["absolute", "root_channels"]
"""The unit of a temperature in eq. 10: a distance of 1, or of sqrt(C). Distances of features of C
channels grow with sqrt(C), so that only the latter means the same for every backbone."""
KS = (1, 3, 5, 7, 9)
"""Numbers of neighbours that a search for knobs tries."""


def editing_search(knobs: Any) -> BankSearch | None:
    """The search that editing with these knobs begins with; None where they do not edit."""
    return BankSearch(knobs.coreset, knobs.k) if knobs.k else None


def coresets(bank_rate: float) -> tuple[float, ...]:
    """Coreset rates that a search for knobs tries: a quarter, half and all of the bank."""
    return tuple(bank_rate * share for share in (0.25, 0.5, 1.0))


def patches(features_BChw: Tensor) -> Tensor:
    """One row for each location: (B h w, C)."""
    return features_BChw.permute(0, 2, 3, 1).flatten(0, 2)


class Sized(nn.Module):
    """A module whose buffers hold as many rows as were learned: that is data, not architecture."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for name, rows in [*self.named_buffers(recurse=False)]:
            if (stored := state_dict.get(f"{prefix}{name}")) is not None:
                setattr(self, name, torch.empty_like(stored, device=rows.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class MemoryBank(Sized):
    """Normal patches in the order of greedy k-center: a smaller coreset is a prefix.

    Rows are stored as `dtype`; halves are searched as float32.
    """

    rows_MD: Tensor
    source: int
    """The number of training patches that the rows were chosen from; stored with the rows."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("rows_MD", torch.empty(0, 0, dtype=dtype))
        self.source = 0
        self._prefixes: tuple[Tensor, dict[int, Tensor]] = (self.rows_MD, {})

    @property
    def empty(self) -> bool:
        """Whether it was not fitted yet."""
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
        """Store `rate` of all training patches, chosen greedily to cover the others.

        `transform` maps features (B, C, h, w) to the bank's space. `projection` and `starts`
        approximate the choice, see `choose`; rows are stored unprojected either way.
        """
        points_ND = self._collect(train, transform)
        self.rows_MD, self.source = choose(
            points_ND, len(train), rate, projection, starts, seed, on_progress
        )

    def _collect(self, train: Batches, transform: Callable[[Tensor], Tensor]) -> Tensor:
        """This rank's training patches (N, D), in the order of the samples."""
        points_ND: Tensor | None = None
        filled = 0
        for batch in train.ordered(64):
            batch_ND = patches(transform(batch.inputs))
            if points_ND is None:
                # Filled in place: joining a list of batches would hold everything twice.
                cells = len(batch_ND) // len(batch.inputs)
                shape = local_count(len(train), rank()) * cells, batch_ND.shape[1]
                points_ND = batch_ND.new_empty(shape, dtype=self.rows_MD.dtype)
            points_ND[filled : filled + len(batch_ND)] = batch_ND
            filled += len(batch_ND)
        assert points_ND is not None, "no data set without training images is opened"
        return points_ND

    def prefix(self, rate: float) -> Tensor:
        """The coreset of `rate` of all training patches: (M, D).

        It is the same tensor while the bank stays: the search caches its preparations by tensor.
        """
        rows_MD, prefixes = self._prefixes
        if rows_MD is not self.rows_MD:
            prefixes = {}
            self._prefixes = (self.rows_MD, prefixes)
        rows = coreset_rows(self.source, rate)
        return prefixes.setdefault(rows, self.rows_MD[:rows])

    def search(self, features_BChw: Tensor, search: BankSearch) -> Neighbours:
        """The k nearest rows of each location, or all rows where there are fewer."""
        bank_MD = self.prefix(search.coreset)
        nearest_NK = topk_l2(patches(features_BChw), bank_MD, min(search.k, len(bank_MD)))
        cells = features_BChw[:, 0].shape
        return Neighbours(*(numbers_NK.view(*cells, -1) for numbers_NK in nearest_NK))

    def edit(
        self, features_BChw: Tensor, knobs: Any, neighbours: Neighbours | None = None
    ) -> Tensor:
        """Eq. 10: each location becomes a weighted mix of its `knobs.k` nearest rows.

        `neighbours` come of a search that serves the knobs.
        """
        bank_MD = self.prefix(knobs.coreset)
        unit = math.sqrt(bank_MD.shape[1]) if knobs.temperature_unit == "root_channels" else 1.0
        how = knobs.weighting, knobs.temperature * unit
        if neighbours is None:
            edited_ND = topk_edit(patches(features_BChw), bank_MD, knobs.k, *how)
        else:
            distances_NK, rows_NK = (numbers.flatten(0, 2)[:, : knobs.k] for numbers in neighbours)
            edited_ND = mix(bank_MD, rows_NK, weights(distances_NK, *how))
        return edited_ND.view(*features_BChw[:, 0].shape, -1).permute(0, 3, 1, 2)

    def get_extra_state(self) -> Tensor:
        """The number of patches; no buffer, as shapes that depend on one can't be exported."""
        return torch.tensor(self.source)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the stored number of patches."""
        self.source = int(state)


class Standardise(nn.Module):
    """Per-channel zero mean and unit variance, from the training set."""

    mean: Tensor
    """Shape (1, C, 1, 1), as `std`."""
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def fit(self, train: Batches) -> None:
        """One pass over the training features, sums in float64."""
        channels = self.mean.shape[1]
        sums_X = torch.zeros(2 * channels + 1, dtype=torch.float64)
        for batch in train.ordered(64):
            features_BChw = batch.inputs.double()
            sums_X[:channels] += features_BChw.sum(dim=(0, 2, 3))
            sums_X[channels:-1] += features_BChw.square().sum(dim=(0, 2, 3))
            sums_X[-1] += features_BChw.numel() / channels
        sums_X = total(sums_X.to(self.mean.device)).cpu()
        mean_C = sums_X[:channels] / sums_X[-1]
        variance_C = (sums_X[channels:-1] / sums_X[-1] - mean_C.square()).clamp(min=0)
        self.mean.copy_(mean_C.view_as(self.mean))
        # A constant channel says nothing; divided by its deviation of zero it would be NaN.
        self.std.copy_(variance_C.sqrt().clamp(min=1e-6).view_as(self.std))

    def forward(self, features_BChw: Tensor) -> Tensor:
        """Features to standardised features, both (B, C, h, w)."""
        return (features_BChw - self.mean) / self.std

    def inverse(self, standardised_BChw: Tensor) -> Tensor:
        """Standardised features back to features."""
        return standardised_BChw * self.std + self.mean
