"""Average ranks of methods over categories, and how far apart they must be (Demsar, JMLR 2006).

Categories stand for data sets: the test asks whether the order would hold on other products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from results.analysis.cells import GROUP, Record, Values, by_section
from results.analysis.statistics import DECIMALS, LEVEL

_RANKS = pl.Schema(
    {name: pl.String for name in (*GROUP, "metric")}
    | {"rank": pl.Float64, "methods": pl.Int64, "categories": pl.Int64, "complete": pl.Boolean}
    | {name: pl.Float64 for name in ("p_value", "critical_difference")}
)


def ranks(frame: pl.DataFrame) -> pl.DataFrame:
    """The average rank over categories of each method and variant, by section and metric.

    The best comes first. rank: 1 is best, ties share; null for a row that lacks categories
    (complete is false) and takes no part. methods, categories: how many were ranked; p_value:
    Friedman's test that all are equal, of three methods or more; critical_difference: Nemenyi's at
    LEVEL, ranks that differ by less are not told apart.
    """
    return pl.DataFrame(by_section(frame, _average_ranks), schema=_RANKS)


def critical_difference(methods: int, categories: int) -> float:
    """Nemenyi's critical difference of average ranks at LEVEL (Demsar, section 3.2)."""
    spread = float(stats.studentized_range.ppf(LEVEL, methods, np.inf)) / np.sqrt(2)
    return float(spread * np.sqrt(methods * (methods + 1) / (6 * categories)))


def cliques(ranked: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """The bars of a critical-difference diagram, as first and last index into rising ranks.

    A bar is a longest run of two or more ranks that differ by less than `difference`.
    """
    bars: list[tuple[int, int]] = []
    for first, start in enumerate(ranked):
        last = max(i for i, rank in enumerate(ranked) if rank - start < difference)
        if last > first and (not bars or last > bars[-1][1]):
            bars.append((first, last))
    return bars


def _average_ranks(values: Values) -> list[Record]:
    means = {name: _over_seeds(values_CS) for name, values_CS in values.by_label.items()}
    whole = [name for name, means_C in means.items() if len(means_C) == values.expected]
    values_MC = np.array([means[name] for name in whole]).round(DECIMALS)
    ranked = stats.rankdata(-values_MC, axis=0).mean(axis=1) if whole else []
    rank = {name: float(value) for name, value in zip(whole, ranked, strict=True)}
    several = len(whole) > 1
    least = critical_difference(len(whole), values.expected) if several else None
    common = {
        "methods": len(whole),
        "categories": values.expected,
        "p_value": _friedman(values_MC),
        "critical_difference": least,
    }
    rows = [
        {**values.rows[name], **common, "rank": rank.get(name), "complete": name in rank}
        for name in values.by_label
    ]
    return sorted(rows, key=lambda row: (not row["complete"], row["rank"] or 0))


def _over_seeds(values_CS: NDArray[np.float64]) -> list[float]:
    """The mean of each category that was measured."""
    return [float(row[np.isfinite(row)].mean()) for row in values_CS if np.isfinite(row).any()]


def _friedman(values_MC: NDArray[np.float64]) -> float | None:
    if len(values_MC) < 3 or values_MC.shape[1] < 2 or (values_MC == values_MC[0]).all():
        return None
    return float(stats.friedmanchisquare(*values_MC).pvalue)
