"""Which setting is best, where no anomaly is real: ranks from many groups of anomalies, combined.

A group is one family of anomalies on one category. No single kind of synthetic anomaly foretells
all defects, but ranks that many kinds agree on come close to a choice with labels (Goswami et al.,
arXiv 2210.01078, whose robust Borda count this follows).

Shape legend: N images, A anomalous ones, S settings, K seeds, G groups, B resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 200
RANDOM_RANKS = 1 / 12
"""The variance of a rank, from 0 to 1, that says nothing."""
LEAST_WEIGHT = 1e-6
"""Weight of a group that says nothing, so that there is a choice where none says anything."""
PRIOR_IMAGES = 8
"""Strength, in images, of the prior that a group's ranks are random."""

SURELY = 0.95

Floats = NDArray[np.float64]


class Image(NamedTuple):
    """An image of the pseudo-validation: its category, its family, which is "" for a normal
    one, and the key of its clean twin, if it has one."""

    key: str
    category: str
    family: str
    twin: str | None


class Group(NamedTuple):
    """The anomalies of one family on one category."""

    category: str
    family: str


def anomalous(images: Sequence[Image]) -> list[Image]:
    """The anomalous ones, in their order."""
    return [image for image in images if image.family]


def paired_differences(images: Sequence[Image], scores_N: Floats) -> Floats:
    """The gain of each anomaly on its clean twin, (A,): the share of the normal images of its
    category below it, less the share below the twin.

    Equal scores count half. Without a twin the comparison is with the share of 0.5 that normal
    images stand above on average, so that the mean over anomalies is AUROC - 0.5 either way.
    """
    score = {image.key: value for image, value in zip(images, scores_N.tolist(), strict=True)}
    normal: dict[str, Floats] = {
        category: np.sort(
            [score[i.key] for i in images if (i.category, i.family) == (category, "")]
        )
        for category in {image.category for image in images}
    }

    def share(category: str, key: str) -> float:
        below = np.searchsorted(normal[category], score[key], "left")
        most = np.searchsorted(normal[category], score[key], "right")
        return float(below + most) / 2 / len(normal[category])

    return np.array(
        [
            share(i.category, i.key) - (share(i.category, i.twin) if i.twin else 0.5)
            for i in anomalous(images)
        ]
    )


@dataclass(frozen=True)
class Election:
    """Settings ranked by each group of anomalies, and by all together.

    `differences` (K, S, A) are those of each seed, setting and anomaly, `images` the anomalies;
    ranks are from 0, the worst, to 1.
    """

    differences: Floats
    images: Sequence[Image]

    @cached_property
    def groups(self) -> list[Group]:
        """The groups, sorted."""
        return sorted({Group(image.category, image.family) for image in self.images})

    @cached_property
    def values(self) -> Floats:
        """The mean paired difference in each group, over seeds."""
        return self._means(self.differences.mean(axis=0), np.ones(len(self.images)))

    @cached_property
    def ranks(self) -> Floats:
        """The ranks that each group gives."""
        return ranks_of(self.values)

    @cached_property
    def weights(self) -> Floats:
        """Weights of the groups, (G,) with a sum of 1: what their ranks say beyond random ones.

        That is the inverse variance of its ranks over resampled images, less that of random ranks;
        0 where it contradicts the other families of its category.
        """
        counts_G = np.array([len(members) for members in self._members])
        variances_G = self._resampled_ranks.var(axis=0).mean(axis=1) * counts_G
        informed_G = (variances_G + PRIOR_IMAGES * RANDOM_RANKS) / (counts_G - 1 + PRIOR_IMAGES)
        gain_G = np.maximum(1 / informed_G - 1 / RANDOM_RANKS, LEAST_WEIGHT)
        agreed_G = np.where(self._contradicts(gain_G), 0.0, gain_G)
        weights_G = agreed_G if agreed_G.any() else gain_G
        normalised: Floats = weights_G / weights_G.sum()
        return normalised

    def _contradicts(self, gain_G: Floats) -> NDArray[np.bool_]:
        """Groups whose ranks run against those that the category's other families give.

        They do so surely: in nearly all resamples.
        """
        lost = np.zeros(len(self.groups), dtype=bool)
        for index, group in enumerate(self.groups):
            others = [
                place
                for place, other in enumerate(self.groups)
                if other.category == group.category and place != index
            ]
            if others:
                consensus_S = gain_G[others] @ self.ranks[others]
                alike_B = self._resampled_ranks[:, index] @ (consensus_S - consensus_S.mean())
                lost[index] = (alike_B < 0).mean() > SURELY
        return lost

    @cached_property
    def scores(self) -> Floats:
        """The weighted Borda count of each setting, from 0 to 1."""
        scores_S: Floats = self.weights @ self.ranks
        return scores_S

    @cached_property
    def errors(self) -> Floats:
        """The standard error of each setting's distance to the best one, over resampled images."""
        counts_BS = np.einsum("g,bgs->bs", self.weights, self._resampled_ranks)
        best = int(self.scores.argmax())
        errors_S: Floats = (counts_BS[:, [best]] - counts_BS).std(axis=0, ddof=1)
        return errors_S

    @cached_property
    def tied(self) -> list[int]:
        """The settings within one standard error of the best, itself among them."""
        best = int(self.scores.argmax())
        close_S = self.scores[best] - self.scores <= self.errors
        close_S[best] = True
        return np.flatnonzero(close_S).tolist()

    @cached_property
    def spreads(self) -> Floats:
        """The standard deviation of each setting's Borda count over seeds; 0 with one."""
        seeds = [self._means(one_SA, np.ones(len(self.images))) for one_SA in self.differences]
        spreads_S: Floats = np.std([self.weights @ ranks_of(one_GS) for one_GS in seeds], axis=0)
        return spreads_S

    def winner(self, costs: Sequence[tuple[float, ...]]) -> int:
        """The cheapest of the tied settings, of those the most stable over seeds, then the best."""
        spread, score = self.spreads.round(6).tolist(), self.scores.tolist()
        return min(
            self.tied, key=lambda setting: (costs[setting], spread[setting], -score[setting])
        )

    @cached_property
    def _members(self) -> list[NDArray[np.intp]]:
        return [
            np.flatnonzero([(i.category, i.family) == group for i in self.images])
            for group in self.groups
        ]

    @cached_property
    def _resampled_ranks(self) -> Floats:
        """Ranks over resampled clean images, each with all anomalies that were made of it."""
        units = [image.twin or image.key for image in self.images]
        differences_SA, random = self.differences.mean(axis=0), np.random.default_rng(0)
        counts_BA = np.zeros((RESAMPLES, len(units)))
        for category in sorted({image.category for image in self.images}):
            of = [i for i, image in enumerate(self.images) if image.category == category]
            names, which = np.unique([units[i] for i in of], return_inverse=True)
            drawn_BU = random.multinomial(
                len(names), np.full(len(names), 1 / len(names)), RESAMPLES
            )
            counts_BA[:, of] = drawn_BU[:, which]
        return np.stack([ranks_of(self._means(differences_SA, counts_A)) for counts_A in counts_BA])

    def _means(self, differences_SA: Floats, counts_A: Floats) -> Floats:
        """Weighted means (G, S); 0, which tells no setting from another, where all counts are 0."""
        return np.stack(
            [
                differences_SA[:, members] @ counts_A[members] / max(1.0, counts_A[members].sum())
                for members in self._members
            ]
        )


def ranks_of(values_GS: Floats) -> Floats:
    """Ranks in each row, from 0 for the lowest to 1; equal values share a rank."""
    from scipy.stats import rankdata  # half a second, which no process of a sweep should wait for

    settings = values_GS.shape[1]
    shared: Floats = (rankdata(values_GS, axis=1) - 1) / max(1, settings - 1)
    return shared if settings > 1 else np.full(values_GS.shape, 0.5)
