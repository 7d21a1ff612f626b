"""How many seeds, or categories, would tell a difference as large as the one that was seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

POWER = 0.8
"""How often so many categories would tell it."""
EFFICIENCY = 3 / np.pi
"""Of Wilcoxon's signed-rank test beside Student's, for normal gaps (Lehmann, 1975, section 4.4)."""
MOST = 1000
"""More seeds or categories than this are as good as never."""


def seeds_to_tell(gap: float, spread: float, level: float) -> int | None:
    """The least number of seeds whose t interval of this `level` would not hold 0.

    gap, spread: mean and standard deviation (ddof 1) over seeds. None: more than MOST.
    """

    def tells(count: int) -> bool:
        factor = float(stats.t.ppf((1 + level) / 2, count - 1)) / np.sqrt(count)
        return bool(abs(gap) > factor * spread)

    return _least(tells, 2)


def categories_to_tell(gap: float, spread: float, level: float) -> int | None:
    """The least number of categories on which a signed-rank test would tell, POWER of the time.

    gap, spread: mean and standard deviation (ddof 1) over categories, which are taken for normal.
    None: more than MOST.
    """
    least = fewest_categories(1, level)
    if spread == 0:
        return least if gap else None

    def tells(count: int) -> bool:
        worth = count * EFFICIENCY  # as so many would be to Student's test
        shift = abs(gap) / spread * np.sqrt(worth)
        edge = float(stats.t.ppf((1 + level) / 2, worth - 1))
        return bool(stats.nct.sf(edge, worth - 1, shift) >= POWER)

    return _least(tells, least)


def fewest_categories(tests: int, level: float) -> int:
    """On fewer no exact signed-rank test, corrected for so many tests, can be significant."""
    return int(np.floor(1 + np.log2(tests / (1 - level)))) + 1


def _least(tells: Callable[[int], bool], first: int) -> int | None:
    """The first number that tells; what tells once does so for all larger ones."""
    if not tells(MOST):
        return None
    low, high = first, MOST
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if tells(middle) else (middle + 1, high)
    return low
