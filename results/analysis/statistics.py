"""Is a difference real? Student's intervals over seeds and paired comparisons.

They take `table.read`'s frame. Sections (data set, mode, preset, profile) are never mixed, and a
category counts only where it was measured with every seed of its row; a row that lacks categories
is marked, not compared. A verdict is about these categories: seeds say how far another training
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
"""Of intervals; tests call a difference real below 1 - LEVEL."""
WITHIN_NOISE = "within noise"
UNSETTLED = "more than seed noise, but not on all categories"
TOO_FEW = "too few pairs to tell"
INCOMPLETE = "not comparable: categories are missing"
APART = "not comparable: no category was measured with the same seed"

DECIMALS = 12
"""To which values are rounded, so that 0.9 - 0.8 and 0.8 - 0.7 tie."""
_PAIRS = pl.Schema(
    {name: pl.String for name in (*SECTION, "metric", "a", "b")}
    | {name: pl.Int64 for name in ("categories", "seeds", "pairs")}
    | {name: pl.Float64 for name in ("difference", "low", "high")}
    | {name: pl.Int64 for name in ("wins", "ties", "losses")}
    | {name: pl.Float64 for name in ("probability", "p_value", "p_holm")}
    | {"complete": pl.Boolean, "verdict": pl.String}
)


def t_interval(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with low and high: mean plus and minus Student's t, from `std` over `seeds`.

    Null for one seed, whose noise is unknown.
    """
    counts = [n for n in frame["seeds"].unique() if n is not None and n > 1]
    half = pl.col("std") * pl.col("seeds").replace_strict(
        counts, [_t_factor(n) for n in counts], default=None, return_dtype=pl.Float64
    )
    return frame.with_columns(low=pl.col("mean") - half, high=pl.col("mean") + half)


def pairwise(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each section, metric and pair of rows a, b (names as in `cells.label`).

    Values of equal category and seed are paired. categories, seeds, pairs: how many; difference:
    mean of a - b; low, high: its t interval over seeds; wins, ties, losses of a; probability: that
    a beats b on one of the categories, with any seed of either, a tie counting one half; p_value:
    Wilcoxon's signed-rank test over the pairs; p_holm: corrected over all pairs of the section and
    metric; complete: both have all categories of the data set; verdict: INCOMPLETE, or APART
    without any pair;
    WITHIN_NOISE where the interval holds 0 or, of one seed, p_holm is 0.05 or more; "<name> is
    better" where p_holm is less; else TOO_FEW where so few pairs could not be significant, or
    UNSETTLED.
    """
    return pl.DataFrame(by_section(frame, _all_pairs), schema=_PAIRS)


def compare(frame: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    """The rows of `pairwise` for one pair, a first; a single pair needs no correction.

    Raises ValueError, naming what there is, where a or b is not the name of a row.
    """
    names = sorted(labelled(frame)["label"].unique())
    for name in (a, b):
        if name not in names:
            raise ValueError(f"no results of '{name}'; there are: {', '.join(names)}")
    if a == b:
        raise ValueError(f"'{a}' is compared with itself; there are: {', '.join(names)}")

    def one_pair(of: Values) -> Iterable[Record]:
        if a in of.by_label and b in of.by_label:
            yield _judged(_pair(of, a, b), 1)

    return pl.DataFrame(by_section(frame, one_pair), schema=_PAIRS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction of p-values for their number, in their order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, dtype=float)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


def _all_pairs(of: Values) -> Iterable[Record]:
    pairs = [_pair(of, a, b) for a, b in combinations(of.by_label, 2)]
    compared = [pair for pair in pairs if pair["complete"]]
    for pair, p_holm in zip(compared, holm([p["p_value"] for p in compared]), strict=True):
        pair["p_holm"] = p_holm
    return [_judged(pair, len(compared)) for pair in pairs]


def _pair(of: Values, a: str, b: str) -> Record:
    gap_CS = (of.by_label[a] - of.by_label[b]).round(DECIMALS)
    paired_CS = np.isfinite(gap_CS)
    gap = gap_CS[paired_CS]
    by_seed = np.array([row[np.isfinite(row)].mean() for row in gap_CS.T if np.isfinite(row).any()])
    mean = float(by_seed.mean()) if len(by_seed) else None
    half = _t_factor(len(by_seed)) * float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None
    categories = int(paired_CS.any(axis=1).sum())
    p_value = float(stats.wilcoxon(gap).pvalue) if gap.any() else 1.0
    return {
        "a": a,
        "b": b,
        "categories": categories,
        "seeds": len(by_seed),
        "pairs": len(gap),
        "difference": mean,
        "low": None if mean is None or half is None else mean - half,
        "high": None if mean is None or half is None else mean + half,
        "wins": int((gap > 0).sum()),
        "ties": int((gap == 0).sum()),
        "losses": int((gap < 0).sum()),
        "probability": _probability(of.by_label[a], of.by_label[b]),
        "p_value": p_value,
        "p_holm": p_value,
        "complete": categories == of.expected,
    }


def _probability(a_CS: NDArray[np.float64], b_CS: NDArray[np.float64]) -> float | None:
    sign_CSS = np.sign((a_CS[:, :, None] - b_CS[:, None, :]).round(DECIMALS))
    by_category = [signs[np.isfinite(signs)] for signs in sign_CSS]
    beats = [float((signs.mean() + 1) / 2) for signs in by_category if len(signs)]
    return float(np.mean(beats)) if beats else None


def _judged(pair: Record, tests: int) -> Record:
    """The pair with its verdict; `tests` pairs were corrected for."""
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
