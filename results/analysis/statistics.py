"""Is a difference real? Three questions, each with an answer of its own.

Another training: Student's intervals over seeds. Another test set: intervals over images, see
`images`. Another product: two tests over categories, each the mean of its seeds, for seeds of one
product are no evidence of another; both have to agree. How often all of them are right is measured
in `results/measured/coverage.md`. Frames are those of `table.read`; sections (data set, images,
mode, preset, profile) are never mixed. A category counts where it was measured with every seed of
its row. A row that lacks categories is marked, not compared.

Shapes: C categories, S seeds, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, groupby
from operator import itemgetter

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from results.analysis.cells import (
    METRIC,
    SECTION,
    Record,
    expected_categories,
    labelled,
    one_cell_per_seed,
    row_named,
    with_every_seed,
)
from results.analysis.equivalence import Chances, signed_rank
from results.files import ResultsError

Values64 = NDArray[np.float64]
LEVEL = 0.95
"""The confidence of intervals; a difference is significant where p is below 1 - LEVEL."""
PRIMARY = (METRIC,)
"""The metrics that are tested unless others are asked for."""
WITHIN_NOISE = "within noise of training"
AHEAD = "is ahead, with one training each"
SPLIT = "has the higher mean, but is lower on most products"
UNSETTLED = "more than noise of training, but another product may differ"
TOO_FEW = "too few categories to tell of another product"
NOT_ASKED = "not tested: another metric was asked for"
INCOMPLETE = "not comparable: categories are missing"
APART = "not comparable: no category was measured with the same seed"

DECIMALS = 12
"""Differences are rounded to so many, for 0.9 - 0.8 and 0.8 - 0.7 to tie."""
SKEWED = 1.5
"""Skewness of exponential gaps beside what 15 products show of it on average."""
FAR = 6.0
"""The t up to which its correction for skewness grows."""
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
    """Add low and high: `mean` and Student's t, from `std` over `seeds`, within 0 and 1.

    Both are null for one seed, and for seeds that are equal: what another differs in is unknown.
    """
    counts = [n for n in frame["seeds"].unique() if n is not None and n > 1]
    half = pl.col("std") * pl.col("seeds").replace_strict(
        counts, [_t_factor(n) for n in counts], default=None, return_dtype=pl.Float64
    )
    unlike = pl.col("std") > 10**-DECIMALS
    return frame.with_columns(
        low=pl.when(unlike).then((pl.col("mean") - half).clip(0, 1)),
        high=pl.when(unlike).then((pl.col("mean") + half).clip(0, 1)),
    )


def pairwise(frame: pl.DataFrame, metrics: Sequence[str] = PRIMARY) -> pl.DataFrame:
    """Every pair of rows a, b (names as in `cells.label`) of each section and metric.

    Values of equal category and seed are paired, and averaged over seeds.
    categories, seeds: how many; difference: mean of a - b; low, high: its t interval over seeds,
    for another training; wins, ties, losses: categories, as a sees them; complete: both rows have
    all categories of the data set; p_value: `product_p` over categories, for another product. Null
    where the metric is none of `metrics`: better, equal, worse: `signed_rank`'s probabilities;
    p_holm: the p-value, corrected for all complete pairs of the section in all `metrics`.
    verdict: that of `verdict`. Raises ResultsError for one of `metrics` that no row has.
    """
    there = frame["metric"].drop_nulls().unique(maintain_order=True).to_list()
    for name in metrics:
        if name not in (*there, *PRIMARY):
            raise ResultsError(f"no results in '{name}'; there are: {', '.join(there)}")
    rows = labelled(with_every_seed(one_cell_per_seed(frame))).sort(*SECTION, maintain_order=True)
    expected = {(name, metric): n for name, metric, n in expected_categories(frame).iter_rows()}
    judged: list[Record] = []
    for section, of_section in rows.group_by(SECTION, maintain_order=True):
        names = dict(zip(SECTION, section, strict=True))
        pairs: list[Record] = []
        for (metric,), group in of_section.group_by("metric", maintain_order=True):
            names["metric"] = metric
            for (a, a_CS), (b, b_CS) in combinations(_values(group).items(), 2):
                pair = names | {"a": a, "b": b} | gap(a_CS - b_CS)
                whole = pair["categories"] == expected[names["benchmark"], metric]
                chances = signed_rank(_by_category(a_CS - b_CS)) if metric in metrics else None
                pair |= chances._asdict() if chances else dict.fromkeys(Chances._fields)
                pairs.append(pair | {"p_holm": None, "complete": whole})
        tested = [p for p in pairs if p["complete"] and p["metric"] in metrics]
        for pair, p_holm in zip(tested, holm([p["p_value"] for p in tested]), strict=True):
            pair["p_holm"] = p_holm
        judged += [p | {"verdict": verdict(p, p["p_holm"], len(tested))} for p in pairs]
    return pl.DataFrame(judged, schema=_PAIRS)


def compare(frame: pl.DataFrame, a: str, b: str, metrics: Sequence[str] = PRIMARY) -> pl.DataFrame:
    """The rows of `pairwise` for one pair, a first, judged as if it had been the only one.

    p_value is corrected for the metrics of its section alone, and the verdict follows it. Raises
    ResultsError where a or b is not the name of a row, as `row_named` takes it, or both are one.
    """
    a, b = row_named(frame, a), row_named(frame, b)
    if a == b:
        names = ", ".join(sorted(labelled(frame)["label"].unique()))
        raise ResultsError(f"'{a}' is compared with itself; there are: {names}")
    pairs = [
        pair if pair["a"] == a else turned(pair)
        for pair in pairwise(frame, metrics).to_dicts()
        if {pair["a"], pair["b"]} == {a, b}
    ]
    for _, of_section in groupby(pairs, key=itemgetter(*SECTION)):
        tested = [pair for pair in of_section if pair["p_holm"] is not None]
        for pair, p_value in zip(tested, holm([p["p_value"] for p in tested]), strict=True):
            pair |= {"p_value": p_value, "verdict": verdict(pair, p_value, len(tested))}
    return pl.DataFrame(pairs, schema=_PAIRS)


def turned(pair: Record) -> Record:
    """A row of `pairwise` with a and b exchanged; what is unknown stays so."""
    difference, low, high = (
        None if pair[name] is None else 0.0 - pair[name] for name in ("difference", "high", "low")
    )
    return pair | {
        **{"a": pair["b"], "b": pair["a"], "difference": difference, "low": low, "high": high},
        **{"wins": pair["losses"], "losses": pair["wins"]},
        **{"better": pair["worse"], "worse": pair["better"]},
    }


def gap(gaps_CS: Values64) -> Record:
    """The fields of `pairwise` from the differences of two rows, NaN where one has no value."""
    gaps_C, means_S = _by_category(gaps_CS), _by_category(gaps_CS.T)
    mean = float(means_S.mean()) if len(means_S) else None
    std = float(means_S.std(ddof=1)) if len(means_S) > 1 else 0.0
    half = _t_factor(len(means_S)) * std if std > 10**-DECIMALS else None
    return {
        "categories": len(gaps_C),
        "seeds": len(means_S),
        "difference": mean,
        "low": None if mean is None or half is None else max(mean - half, -1.0),
        "high": None if mean is None or half is None else min(mean + half, 1.0),
        "wins": int((gaps_C > 0).sum()),
        "ties": int((gaps_C == 0).sum()),
        "losses": int((gaps_C < 0).sum()),
        "p_value": product_p(gaps_C),
    }


def verdict(pair: Record, p_value: float | None, tests: int) -> str:
    """The verdict on a pair, whose p-value is corrected for so many `tests`: the first that holds.

    APART: nothing is paired. INCOMPLETE. WITHIN_NOISE: the interval over seeds holds 0. "NAME is
    better": p is below 0.05; of one seed "NAME AHEAD". "NAME SPLIT". NOT_ASKED: there is no p.
    TOO_FEW: so few categories can't be significant. UNSETTLED: of several seeds, whose interval
    excludes 0; of one seed WITHIN_NOISE.
    """
    if not pair["complete"]:
        return INCOMPLETE if pair["categories"] else APART
    several = pair["seeds"] > 1
    # Seeds that are all equal have no interval: nothing was seen of noise.
    if pair["low"] is not None and pair["low"] <= 0 <= pair["high"]:
        return WITHIN_NOISE
    first, ahead, behind = pair["a"], pair["wins"], pair["losses"]
    if pair["difference"] < 0:
        first, ahead, behind = pair["b"], behind, ahead
    # Fewer categories allow no exact test, corrected for `tests`, to be significant.
    fewest = int(np.floor(1 + np.log2(max(tests, 1) / (1 - LEVEL)))) + 1
    if p_value is not None and p_value < 1 - LEVEL:
        return f"{first} is better" if several else f"{first} {AHEAD}"
    if not pair["difference"]:
        return WITHIN_NOISE
    if ahead < behind:
        return f"{first} {SPLIT}"
    if p_value is None:
        return NOT_ASKED
    if 0 < ahead + behind < fewest:
        return TOO_FEW
    return UNSETTLED if several else WITHIN_NOISE


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method, in the same order."""
    order = np.argsort(p_values, kind="stable")
    steps = np.arange(len(p_values), 0, -1) * np.asarray(p_values, dtype=float)[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return [float(value) for value in corrected]


def product_p(gaps_C: Values64) -> float:
    """Two-sided p-value that neither row is better on other products: the larger of two tests'.

    `signed_rank_p` is exact for gaps that are symmetric around 0, `mean_p` holds about for skewed
    ones of mean 0. It is 1 where the mean and the ranks do not point to the same row.
    """
    gaps = gaps_C[gaps_C != 0]
    ranks = (stats.rankdata(np.abs(gaps)) * np.sign(gaps)).sum()
    if ranks * gaps.sum() <= 0:
        return 1.0
    return max(signed_rank_p(gaps_C), mean_p(gaps_C))


def signed_rank_p(gaps_C: Values64) -> float:
    """Wilcoxon's two-sided signed-rank test, exact also with ties; 1 where all gaps are 0."""
    gaps = gaps_C[gaps_C != 0]
    ranks = (2 * stats.rankdata(np.abs(gaps))).astype(int)  # doubled, for ties to be whole
    ways = np.zeros(ranks.sum() + 1)  # of all 2^n signs, by the sum of the positive ranks
    ways[0] = 1
    for rank in ranks:
        ways[rank:] += ways[:-rank].copy()
    smaller = min(ranks[gaps > 0].sum(), ranks[gaps < 0].sum())
    return min(1.0, 2 * float(ways[: smaller + 1].sum() / 2 ** len(gaps)))


def mean_p(gaps_C: Values64) -> float:
    """Johnson's modified t-test, two-sided, that the mean is 0, for skewed gaps (JASA 1978).

    The skewness is SKEWED times the unbiased one, as few products show too little of it, and its
    term in t^2 grows up to FAR, lest it outgrow t. 1 for fewer than 3 gaps, which have no skewness.
    """
    n, mean = len(gaps_C), gaps_C.mean() if len(gaps_C) else 0.0
    if n < 3 or not mean:
        return 1.0
    std = gaps_C.std(ddof=1)
    if std < 10**-DECIMALS:
        return 0.0
    skewness = SKEWED * n / ((n - 1) * (n - 2)) * (((gaps_C - mean) / std) ** 3).sum()
    t = np.sqrt(n) * mean / std
    t += skewness / np.sqrt(n) * (1 / 6 + min(t**2, FAR**2) / 3)
    return min(1.0, 2 * float(stats.t.sf(np.sign(mean) * t, n - 1)))


def _by_category(gaps_CS: Values64) -> Values64:
    """The mean of each line that has values, rounded."""
    known = gaps_CS[np.isfinite(gaps_CS).any(axis=1)]
    means = np.nanmean(known, axis=1) if len(known) else np.empty(0)
    return means.round(DECIMALS) + 0.0  # no minus zero


def _values(rows: pl.DataFrame) -> dict[str, Values64]:
    """The values (C, S) of each label, NaN where there is none."""
    axes = {name: rows[name].unique().sort().to_list() for name in ("label", "category", "seed")}
    indices = [{name: i for i, name in enumerate(names)} for names in axes.values()]
    values_LCS = np.full([len(names) for names in axes.values()], np.nan)
    for *key, value in rows.select(*axes, "value").iter_rows():
        values_LCS[tuple(index[name] for index, name in zip(indices, key, strict=True))] = value
    return dict(zip(axes["label"], values_LCS, strict=True))


def _t_factor(n: int) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1) / np.sqrt(n))
