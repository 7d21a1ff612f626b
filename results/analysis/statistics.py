"""Is a difference real? Three questions, each with an answer of its own.

Another training: Student's intervals over seeds. Another test set: intervals over images, see
`bootstrap`. Another product: a signed-rank test over categories, each the mean of its seeds, for
seeds of one product are no evidence of another. Frames are those of `table.read`; sections (data
set, images, mode, preset, profile) are never mixed. A category counts where it was measured with
every seed of its row. A row that lacks categories is marked, not compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.special import expit, logit

from results.analysis.cells import (
    SECTION,
    Record,
    expected_categories,
    labelled,
    one_cell_per_seed,
    with_every_seed,
)
from results.analysis.equivalence import Chances, signed_rank
from results.files import ResultsError

Values64 = NDArray[np.float64]
LEVEL = 0.95
"""The confidence of intervals; a difference is significant where p is below 1 - LEVEL."""
WITHIN_NOISE = "within noise of training"
AHEAD = "is ahead, with one training each"
UNSETTLED = "more than noise of training, but another product may differ"
TOO_FEW = "too few categories to tell of another product"
INCOMPLETE = "not comparable: categories are missing"
APART = "not comparable: no category was measured with the same seed"

MOST_PERMUTED = 16
"""Categories up to which an exact p-value with ties is counted over all 2^n signs."""
DECIMALS = 12
"""Differences are rounded to so many, for 0.9 - 0.8 and 0.8 - 0.7 to tie."""
_PAIRS = pl.Schema(
    {name: pl.String for name in (*SECTION, "metric", "a", "b")}
    | {name: pl.Int64 for name in ("categories", "seeds")}
    | {name: pl.Float64 for name in ("difference", "low", "high")}
    | {name: pl.Int64 for name in ("wins", "ties", "losses")}
    | {name: pl.Float64 for name in ("p_value", "p_holm")}
    | {name: pl.Float64 for name in Chances._fields}
    | {"complete": pl.Boolean, "verdict": pl.String}
)


def t_interval(frame: pl.DataFrame) -> pl.DataFrame:
    """Add low and high: `mean` and Student's t, from `std` over `seeds`, as `moved` moves it.

    Both are null for one seed, whose noise is unknown.
    """
    counts = [n for n in frame["seeds"].unique() if n is not None and n > 1]
    half = pl.col("std") * pl.col("seeds").replace_strict(
        counts, [_t_factor(n) for n in counts], default=None, return_dtype=pl.Float64
    )
    halves = frame.select(half=half)["half"].to_numpy()
    means = frame["mean"].to_numpy()
    ends = {
        name: pl.Series(moved(means, sign * halves), nan_to_null=True)
        for name, sign in (("low", -1), ("high", 1))
    }
    return frame.with_columns(**ends)


def moved(values: ArrayLike, by: ArrayLike) -> Values64:
    """Fractions plus `by`, on the logit scale to first order, so that none leaves 0 to 1.

    In the middle and for small steps that is the sum (the delta method; Agresti, Categorical Data
    Analysis, 3.1). What is no fraction is just moved.
    """
    values, by = np.asarray(values, dtype=float), np.asarray(by, dtype=float)
    slope = values * (1 - values)
    with np.errstate(divide="ignore", invalid="ignore"):
        within: Values64 = expit(logit(values) + by / slope)
    return np.where(slope > 0, within, values + by)


def pairwise(frame: pl.DataFrame, expected: Mapping[str, int] | None = None) -> pl.DataFrame:
    """Every pair of rows a, b (names as in `cells.label`) of each section and metric.

    Values of equal category and seed are paired, and averaged over seeds. `expected` is how many
    categories each data set has, by default how many the frame has of it.
    categories, seeds: how many; difference: mean of a - b; low, high: its t interval over seeds,
    for another training; wins, ties, losses: categories, as a sees them;
    p_value: Wilcoxon's exact signed-rank test over categories, for another product; p_holm:
    corrected for all complete pairs of rows; better, equal, worse: `signed_rank`'s probabilities;
    complete: both rows have all categories of the data set;
    verdict, the first that holds: APART, nothing is paired; INCOMPLETE; WITHIN_NOISE, the interval
    over seeds holds 0; "<name> is better", p_holm is below 0.05, or, of one seed, "<name> AHEAD";
    TOO_FEW, so few categories can't be significant; UNSETTLED, the interval excludes 0; else, of
    one seed, WITHIN_NOISE.
    """
    by = (*SECTION, "metric")
    rows = labelled(with_every_seed(one_cell_per_seed(frame))).sort(*SECTION, maintain_order=True)
    expected = expected or dict(expected_categories(frame).iter_rows())
    judged: list[Record] = []
    for key, group in rows.group_by(by, maintain_order=True):
        names = dict(zip(by, key, strict=True))
        pairs = [
            names | {"a": a, "b": b} | _gap(a_CS - b_CS, expected[names["benchmark"]])
            for (a, a_CS), (b, b_CS) in combinations(_values(group).items(), 2)
        ]
        compared = [pair for pair in pairs if pair["complete"]]
        for pair, p_holm in zip(compared, holm([p["p_value"] for p in compared]), strict=True):
            pair["p_holm"] = p_holm
        judged += [pair | {"verdict": _verdict(pair, len(compared))} for pair in pairs]
    return pl.DataFrame(judged, schema=_PAIRS)


def compare(frame: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    """The rows of `pairwise` for one pair, a first, whose p-value needs no correction.

    Raises ResultsError, naming what there is, where a or b is not the name of a row.
    """
    names = sorted(labelled(frame)["label"].unique())
    for name in (a, b):
        if name not in names:
            raise ResultsError(f"no results of '{name}'; there are: {', '.join(names)}")
    if a == b:
        raise ResultsError(f"'{a}' is compared with itself; there are: {', '.join(names)}")
    pairs = [
        (pair if pair["a"] == a else turned(pair)) | {"p_holm": pair["p_value"]}
        for pair in pairwise(frame).to_dicts()
        if {pair["a"], pair["b"]} == {a, b}
    ]
    return pl.DataFrame([pair | {"verdict": _verdict(pair, 1)} for pair in pairs], schema=_PAIRS)


def turned(pair: Record) -> Record:
    """A row of `pairwise` with a and b exchanged; what is unknown stays so."""
    difference, low, high = (
        None if pair[name] is None else -pair[name] for name in ("difference", "high", "low")
    )
    return pair | {
        **{"a": pair["b"], "b": pair["a"], "difference": difference, "low": low, "high": high},
        **{"wins": pair["losses"], "losses": pair["wins"]},
        **{"better": pair["worse"], "worse": pair["better"]},
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the same order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, dtype=float)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


def _values(rows: pl.DataFrame) -> dict[str, Values64]:
    """The values (C categories, S seeds) of each label, NaN where there is none."""
    axes = {name: rows[name].unique().sort().to_list() for name in ("label", "category", "seed")}
    indices = [{name: i for i, name in enumerate(names)} for names in axes.values()]
    values_LCS = np.full([len(names) for names in axes.values()], np.nan)
    for *key, value in rows.select(*axes, "value").iter_rows():
        values_LCS[tuple(index[name] for index, name in zip(indices, key, strict=True))] = value
    return dict(zip(axes["label"], values_LCS, strict=True))


def _gap(gaps_CS: Values64, expected: int) -> Record:
    """The fields of `pairwise` from the differences by category and seed, uncorrected."""
    gaps_CS = gaps_CS.round(DECIMALS)
    paired_CS = np.isfinite(gaps_CS)
    by_category = zip(gaps_CS, paired_CS, strict=True)
    by_seed = zip(gaps_CS.T, paired_CS.T, strict=True)
    gaps_C = np.array([gaps[paired].mean() for gaps, paired in by_category if paired.any()])
    gaps_C = gaps_C.round(DECIMALS)
    means_S = np.array([gaps[paired].mean() for gaps, paired in by_seed if paired.any()])
    mean = float(means_S.mean()) if len(means_S) else None
    half = _t_factor(len(means_S)) * float(means_S.std(ddof=1)) if len(means_S) > 1 else None
    p_value = signed_rank_p(gaps_C)
    chances = signed_rank(gaps_C)
    return {
        "categories": len(gaps_C),
        "seeds": len(means_S),
        "difference": mean,
        "low": None if mean is None or half is None else mean - half,
        "high": None if mean is None or half is None else mean + half,
        "wins": int((gaps_C > 0).sum()),
        "ties": int((gaps_C == 0).sum()),
        "losses": int((gaps_C < 0).sum()),
        "p_value": p_value,
        "p_holm": p_value,
        **(chances._asdict() if chances else dict.fromkeys(Chances._fields)),
        "complete": len(gaps_C) == expected,
    }


def signed_rank_p(gaps_C: NDArray[np.float64]) -> float:
    """Wilcoxon's two-sided signed-rank test, exact also with ties; 1 where all gaps are 0."""
    gaps = gaps_C[gaps_C != 0]
    if not len(gaps):
        return 1.0
    if len(np.unique(np.abs(gaps))) < len(gaps) <= MOST_PERMUTED:
        return float(
            stats.wilcoxon(gaps, method=stats.PermutationMethod(n_resamples=np.inf)).pvalue
        )
    return float(stats.wilcoxon(gaps).pvalue)


def _verdict(pair: Record, tests: int) -> str:
    """The verdict on a pair whose p_holm is corrected for so many `tests`."""
    apart = pair["low"] is not None and (pair["low"] > 0 or pair["high"] < 0)
    decided = pair["wins"] + pair["losses"]
    first = pair["a"] if (pair["difference"] or 0) > 0 else pair["b"]
    # Fewer categories allow no exact test, corrected for `tests`, to be significant.
    fewest = int(np.floor(1 + np.log2(tests / (1 - LEVEL)))) + 1 if tests else 0
    if not pair["complete"]:
        return INCOMPLETE if pair["categories"] else APART
    if not apart and pair["seeds"] > 1:
        return WITHIN_NOISE
    if pair["p_holm"] < 1 - LEVEL:
        return f"{first} is better" if pair["seeds"] > 1 else f"{first} {AHEAD}"
    if 0 < decided < fewest:
        return TOO_FEW
    return UNSETTLED if apart else WITHIN_NOISE


def _t_factor(n: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) / np.sqrt(n))
