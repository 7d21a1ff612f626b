"""Is a difference real? Student's intervals over seeds, and paired comparisons.

Frames are those of `table.read`, and sections (data set, mode, preset, profile) are never mixed. A
category counts where it was measured with every seed of its row. A row that lacks categories is
marked, not compared. A verdict holds for these categories: seeds tell how far another training
would differ, not how far another product would.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from results.analysis.cells import SECTION, Record, Values, by_section, labelled

LEVEL = 0.95
"""The confidence of intervals; a difference is significant where p is below 1 - LEVEL."""
WITHIN_NOISE = "within noise"
UNSETTLED = "more than seed noise, but not on all categories"
TOO_FEW = "too few pairs to tell"
INCOMPLETE = "not comparable: categories are missing"
APART = "not comparable: no category was measured with the same seed"

DECIMALS = 12
"""Differences are rounded to so many, for 0.9 - 0.8 and 0.8 - 0.7 to tie."""
_PAIRS = pl.Schema(
    {name: pl.String for name in (*SECTION, "metric", "a", "b")}
    | {name: pl.Int64 for name in ("categories", "seeds", "pairs")}
    | {name: pl.Float64 for name in ("difference", "low", "high")}
    | {name: pl.Int64 for name in ("wins", "ties", "losses")}
    | {name: pl.Float64 for name in ("probability", "p_value", "p_holm")}
    | {"complete": pl.Boolean, "verdict": pl.String}
)


def t_interval(frame: pl.DataFrame) -> pl.DataFrame:
    """Add low and high: `mean` plus and minus Student's t, from `std` over `seeds`.

    Both are null for one seed, whose noise is unknown.
    """
    counts = [n for n in frame["seeds"].unique() if n is not None and n > 1]
    half = pl.col("std") * pl.col("seeds").replace_strict(
        counts, [_t_factor(n) for n in counts], default=None, return_dtype=pl.Float64
    )
    return frame.with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)


def pairwise(frame: pl.DataFrame) -> pl.DataFrame:
    """Every pair of rows a, b (names as in `cells.label`) of each section and metric.

    Values of equal category and seed are paired.
    categories, seeds, pairs: how many; difference: mean of a - b; low, high: its t interval over
    seeds; wins, ties, losses: pairs, as a sees them;
    probability: that a beats b on a category, each with any of its seeds; a tie counts one half;
    p_value: Wilcoxon's signed-rank test over the pairs; p_holm: corrected for all complete pairs
    of rows; complete: both rows have all categories of the data set;
    verdict, the first that holds: APART, nothing is paired; INCOMPLETE; WITHIN_NOISE, the interval
    holds 0; "<name> is better", p_holm is below 0.05; TOO_FEW, so few pairs can't be significant;
    UNSETTLED, the interval excludes 0; else, of one seed, WITHIN_NOISE.
    """
    return pl.DataFrame(by_section(frame, _all_pairs), schema=_PAIRS)


def compare(frame: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    """The rows of `pairwise` for one pair, a first, whose p-value needs no correction.

    Raises ValueError, naming what there is, where a or b is not the name of a row.
    """
    names = sorted(labelled(frame)["label"].unique())
    for name in (a, b):
        if name not in names:
            raise ValueError(f"no results of '{name}'; there are: {', '.join(names)}")
    if a == b:
        raise ValueError(f"'{a}' is compared with itself; there are: {', '.join(names)}")

    def judge(values: Values) -> Iterable[Record]:
        if a in values.by_label and b in values.by_label:
            yield _judged(_pair(values, a, b), 1)

    return pl.DataFrame(by_section(frame, judge), schema=_PAIRS)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the same order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, dtype=float)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


def _all_pairs(values: Values) -> Iterable[Record]:
    pairs = [_pair(values, a, b) for a, b in combinations(values.by_label, 2)]
    compared = [pair for pair in pairs if pair["complete"]]
    for pair, p_holm in zip(compared, holm([p["p_value"] for p in compared]), strict=True):
        pair["p_holm"] = p_holm
    return [_judged(pair, len(compared)) for pair in pairs]


def _pair(values: Values, a: str, b: str) -> Record:
    a_CS, b_CS = values.by_label[a], values.by_label[b]
    gaps_CS = (a_CS - b_CS).round(DECIMALS)
    paired_CS = np.isfinite(gaps_CS)
    gaps_P = gaps_CS[paired_CS]  # P pairs
    by_seed = zip(gaps_CS.T, paired_CS.T, strict=True)
    means_S = np.array([gaps_C[paired_C].mean() for gaps_C, paired_C in by_seed if paired_C.any()])
    mean = float(means_S.mean()) if len(means_S) else None
    half = _t_factor(len(means_S)) * float(means_S.std(ddof=1)) if len(means_S) > 1 else None
    categories = int(paired_CS.any(axis=1).sum())
    p_value = float(stats.wilcoxon(gaps_P).pvalue) if gaps_P.any() else 1.0
    return {
        "a": a,
        "b": b,
        "categories": categories,
        "seeds": len(means_S),
        "pairs": len(gaps_P),
        "difference": mean,
        "low": None if mean is None or half is None else mean - half,
        "high": None if mean is None or half is None else mean + half,
        "wins": int((gaps_P > 0).sum()),
        "ties": int((gaps_P == 0).sum()),
        "losses": int((gaps_P < 0).sum()),
        "probability": _probability(a_CS, b_CS),
        "p_value": p_value,
        "p_holm": p_value,
        "complete": categories == values.expected,
    }


def _probability(a_CS: NDArray[np.float64], b_CS: NDArray[np.float64]) -> float | None:
    sign_CSS = np.sign((a_CS[:, :, None] - b_CS[:, None, :]).round(DECIMALS))
    by_category = [signs[np.isfinite(signs)] for signs in sign_CSS]
    beats = [float((signs.mean() + 1) / 2) for signs in by_category if len(signs)]
    return float(np.mean(beats)) if beats else None


def _judged(pair: Record, tests: int) -> Record:
    """The pair with its verdict; p_holm is corrected for so many `tests`."""
    apart = pair["low"] is not None and (pair["low"] > 0 or pair["high"] < 0)
    significant = pair["p_holm"] < 1 - LEVEL
    decided = pair["wins"] + pair["losses"]
    if not pair["complete"]:
        verdict = INCOMPLETE if pair["pairs"] else APART
    elif not apart and pair["seeds"] > 1:
        verdict = WITHIN_NOISE
    elif significant:
        verdict = f"{pair['a'] if pair['difference'] > 0 else pair['b']} is better"
    elif decided and tests * 2.0 ** (1 - decided) >= 1 - LEVEL:
        verdict = TOO_FEW
    else:
        verdict = UNSETTLED if apart else WITHIN_NOISE
    return pair | {"verdict": verdict}


def _t_factor(n: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) / np.sqrt(n))
