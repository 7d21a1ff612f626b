"""Probabilities that a method is better, practically equal or worse on another product.

The Bayesian signed-rank test (Benavoli et al., ICML 2014) with a region of practical equivalence
(Benavoli et al., JMLR 2017). Shapes: C categories, D draws; one more for the prior.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ROPE = 0.005
"""Half a point: a mean difference over categories that is smaller is none in practice."""
PRIOR = 0.5
"""The weight of the prior, one made category with a difference of 0, beside 1 for a real one."""
DRAWS = 20_000


class Chances(NamedTuple):
    """Probabilities that sum to 1."""

    better: float
    equal: float
    worse: float


def signed_rank(gaps_C: NDArray[np.float64], rope: float = ROPE) -> Chances | None:
    """The probability of each of the three, for the gaps of a method to another; None without gaps.

    The weights of categories are drawn from a Dirichlet distribution. A draw counts for the region
    in which most of the weighted pairwise means of gaps lie: above `rope`, within, or below.
    """
    if not len(gaps_C):
        return None
    gaps = np.concatenate(([0.0], gaps_C))
    means = (gaps[:, None] + gaps[None, :]) / 2
    weights_DC = _weights(len(gaps))
    better_D, worse_D = (
        ((weights_DC @ ((side > rope) + 0.5 * (side == rope))) * weights_DC).sum(axis=1)
        for side in (means, -means)
    )
    regions_D3 = np.stack([better_D, 1 - better_D - worse_D, worse_D], axis=1)
    counts = np.bincount(regions_D3.argmax(axis=1), minlength=3) / DRAWS
    return Chances(*map(float, counts))


@cache
def _weights(count: int) -> NDArray[np.float64]:
    """(DRAWS, count): weights of the prior, which comes first, and of the categories."""
    prior = [PRIOR, *[1] * (count - 1)]
    return np.random.default_rng(0).dirichlet(prior, DRAWS)
