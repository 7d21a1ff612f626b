"""Intervals, paired tests and ranks against SciPy, hand-computed cases and published examples."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from made_rows import made_frame
from scipy import stats
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from results.analysis.bootstrap import bootstrap, resample
from results.analysis.ranks import cliques, critical_difference, ranks
from results.analysis.statistics import (
    INCOMPLETE,
    TOO_FEW,
    UNSETTLED,
    WITHIN_NOISE,
    compare,
    holm,
    pairwise,
)
from results.analysis.summary import summary

# Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets" (JMLR 2006), table 6:
# ranks of C4.5, C4.5+m, C4.5+cf and C4.5+m+cf on 14 data sets.
DEMSAR = """
4 3 2 1
1 2 3 4
4 1 2 3
4 1 3 2
4 2 3 1
1 2.5 4 2.5
3 2 4 1
2.5 2.5 4 1
4 3 2 1
2.5 2.5 2.5 2.5
4 2.5 1 2.5
3 2 4 1
4 1 2 3
3 1 4 2
"""
CLASSIFIERS = ("c45", "m", "cf", "m+cf")


def _random(methods, seeds=4, categories=5, noise=0.01, seed=0):
    """Values of methods with these means; categories are of different difficulty."""
    generator = np.random.default_rng(seed)
    hard = generator.normal(0, 0.05, categories)
    return {
        (method, s, f"c{c}"): mean + hard[c] + generator.normal(0, noise)
        for method, mean in methods.items()
        for s in range(seeds)
        for c in range(categories)
    }


def _demsar():
    table = [line.split() for line in DEMSAR.split("\n") if line]
    return made_frame(
        {
            (name, 0, f"d{number:02d}"): -float(rank)
            for number, line in enumerate(table)
            for name, rank in zip(CLASSIFIERS, line, strict=True)
        }
    )


def test_interval_of_the_mean_is_students_t_over_seeds():
    values = _random({"a": 0.9}, seeds=5)
    row = summary(made_frame(values)).row(0, named=True)
    by_seed = [np.mean([values["a", s, f"c{c}"] for c in range(5)]) for s in range(5)]
    low, high = stats.t.interval(0.95, 4, np.mean(by_seed), stats.sem(by_seed))
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=1e-12)


def test_one_seed_has_no_interval():
    row = summary(made_frame(_random({"a": 0.9}, seeds=1))).row(0, named=True)
    assert (row["low"], row["high"]) == (None, None)


def test_a_pair_is_judged_as_scipy_judges_it():
    values = _random({"a": 0.9, "b": 0.8})
    row = pairwise(made_frame(values)).row(0, named=True)
    keys = [(s, f"c{c}") for s in range(4) for c in range(5)]
    gaps = np.array([values["a", *key] - values["b", *key] for key in keys])
    assert (row["categories"], row["seeds"], row["pairs"]) == (5, 4, 20)
    assert row["difference"] == pytest.approx(gaps.mean(), abs=1e-12)
    interval = stats.t.interval(0.95, 3, gaps.mean(), stats.sem(gaps.reshape(4, 5).mean(axis=1)))
    assert (row["low"], row["high"]) == pytest.approx(interval, abs=1e-9)
    assert row["p_value"] == pytest.approx(stats.wilcoxon(gaps).pvalue)
    assert (row["wins"], row["ties"], row["losses"]) == (20, 0, 0)
    assert (row["probability"], row["complete"]) == (1.0, True)
    assert row["verdict"] == "a is better"


def test_equal_methods_are_within_noise():
    values = _random({"a": 0.9, "b": 0.9}, noise=0.02)
    assert pairwise(made_frame(values))["verdict"].to_list() == [WITHIN_NOISE]
    same = {key: 0.5 for key in values}
    row = pairwise(made_frame(same)).row(0, named=True)
    assert (row["p_value"], row["ties"], row["verdict"]) == (1.0, 20, WITHIN_NOISE)
    assert row["probability"] == 0.5


def test_a_gain_on_one_category_alone_is_not_a_better_method():
    values = _random({"a": 0.5, "b": 0.5}, noise=0.001)
    values |= {key: value + 0.3 for key, value in values.items() if key[::2] == ("a", "c0")}
    row = pairwise(made_frame(values)).row(0, named=True)
    assert row["low"] > 0.05  # far beyond the noise of seeds
    assert row["verdict"] == UNSETTLED


def test_few_pairs_prove_nothing():
    values = {(m, s, "c"): v for m, v in (("a", 0.9), ("b", 0.5)) for s in range(3)}
    row = pairwise(made_frame(values)).row(0, named=True)
    assert row["p_value"] == 0.25  # the least that three pairs can give
    assert row["verdict"] == TOO_FEW


def test_probability_counts_every_seed_of_either_on_each_category():
    values = {("a", 0, "x"): 3.0, ("a", 1, "x"): 1.0, ("b", 0, "x"): 2.0, ("b", 1, "x"): 1.0}
    row = pairwise(made_frame(values)).row(0, named=True)
    assert row["probability"] == pytest.approx((1 + 1 + 0 + 0.5) / 4)


def test_a_row_that_lacks_a_category_is_not_compared_and_not_ranked():
    values = _random({"a": 0.9, "b": 0.8, "c": 0.1})
    del values["c", 2, "c4"]  # one seed of one category
    frame = made_frame(values)
    rows = {(row["a"], row["b"]): row for row in pairwise(frame).to_dicts()}
    assert rows["a", "c"]["verdict"] == rows["b", "c"]["verdict"] == INCOMPLETE
    assert rows["a", "c"]["categories"] == 4
    assert rows["a", "b"]["p_holm"] == rows["a", "b"]["p_value"]  # the only test
    rows = ranks(frame).select("method", "rank", "complete", "methods").rows()
    assert rows == [("a", 1.0, True, 2), ("b", 2.0, True, 2), ("c", None, False, 2)]


def test_sections_are_never_compared_with_one_another():
    default = made_frame(_random({"a": 0.9}))
    other = made_frame(_random({"b": 0.9}), profile="ader", cell_id="other")
    assert pairwise(pl.concat([default, other])).is_empty()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_holm_is_applied_over_the_pairs_of_a_metric():
    frame = made_frame(_random({"a": 0.9, "b": 0.89, "c": 0.88}, noise=0.02))
    pairs = pairwise(frame)
    assert pairs["p_holm"].to_list() == pytest.approx(holm(pairs["p_value"].to_list()))


def test_compare_puts_the_first_name_first_and_corrects_nothing():
    frame = made_frame(_random({"a": 0.9, "b": 0.8, "c": 0.7}))
    row = compare(frame, "b", "a").row(0, named=True)
    assert (row["a"], row["b"], row["losses"]) == ("b", "a", 20)
    assert row["p_holm"] == row["p_value"]
    assert row["verdict"] == "a is better"


@pytest.mark.parametrize("a, b, why", [("a", "z", "no results of 'z'"), ("a", "a", "with itself")])
def test_compare_names_what_there_is(a, b, why):
    with pytest.raises(ValueError, match=f"{why}.*there are: a, b"):
        compare(made_frame(_random({"a": 0.9, "b": 0.8})), a, b)


def test_demsars_example_of_ranks():
    rows = {row["method"]: row for row in ranks(_demsar()).to_dicts()}
    assert [round(rows[name]["rank"], 3) for name in CLASSIFIERS] == [3.143, 2.0, 2.893, 1.964]
    assert list(rows) == ["m+cf", "m", "cf", "c45"]
    # The paper's chi-square leaves ties uncorrected: one of four and three of two items in 14 rows.
    tied = (4**3 - 4 + 3 * (2**3 - 2)) / (14 * (4**3 - 4))
    assert stats.chi2.isf(rows["m"]["p_value"], 3) == pytest.approx(9.28 / (1 - tied), rel=1e-3)
    assert rows["m"]["critical_difference"] == pytest.approx(1.25, abs=0.005)


@pytest.mark.parametrize("methods, q", [(2, 1.960), (3, 2.343), (4, 2.569), (8, 3.031)])
def test_critical_values_of_demsars_table_5(methods, q):
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 10))
    assert critical_difference(methods, 10) == pytest.approx(expected, rel=5e-4)


def test_bars_of_the_diagram_are_the_largest_runs():
    assert cliques([1.964, 2.0, 2.893, 3.143], 1.25) == [(0, 3)]
    assert cliques([1.964, 2.0, 2.893, 3.143], 1.16) == [(0, 2), (1, 3)]
    assert cliques([1.0, 2.0, 3.0], 0.5) == []
    assert cliques([1.0], 5.0) == []


def _scores(generator, n=40, decimals=1):
    labels = np.arange(n) % 3 > 0
    return labels, (generator.normal(0, 1, n) + labels).round(decimals)


def test_resampled_metrics_equal_scikit_learn_on_repeated_images():
    generator = np.random.default_rng(0)
    labels, scores = _scores(generator)
    weights = generator.integers(0, 3, (6, len(labels)))
    drawn = resample(labels, scores, weights)
    for number, weight in enumerate(weights):
        truth, judged = labels.repeat(weight), scores.repeat(weight)
        precision, recall, _ = precision_recall_curve(truth, judged)
        f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert drawn["image_auroc"][number] == pytest.approx(roc_auc_score(truth, judged))
        assert drawn["image_ap"][number] == pytest.approx(average_precision_score(truth, judged))
        assert drawn["image_f1max"][number] == pytest.approx(f1)


def _scored(quality):
    """A frame and its image scores: category "x", 60 images, a seed for each quality."""
    values, rows = {}, []
    labels, noise = _scores(np.random.default_rng(0), n=60, decimals=6)
    for seed, gain in enumerate(quality):
        scores = noise + gain * labels
        values["a", seed, "x"] = roc_auc_score(labels, scores)
        rows += [
            {"cell_id": f"a-{seed}", "key": f"x/{i:03d}", "category": "x", "defect": "",
             "label": bool(label), "score": float(score)}
            for i, (label, score) in enumerate(zip(labels, scores, strict=True))
        ]  # fmt: skip
    return made_frame(values), pl.DataFrame(rows)


def test_bootstrap_of_one_seed_has_the_spread_of_auroc_over_images():
    frame, scores = _scored([1])
    row = bootstrap(frame, scores, draws=4000).filter(metric="image_auroc").row(0, named=True)
    auc = frame["value"][0]
    assert row["low"] < auc < row["high"]
    # Hanley and McNeil (1982): the standard error of an AUROC, 40 anomalous and 20 normal images.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 39 * (q1 - auc**2) + 19 * (q2 - auc**2)) / (40 * 20)
    assert (row["high"] - row["low"]) / (2 * 1.96) == pytest.approx(variance**0.5, rel=0.35)
    assert (row["seeds"], row["categories"], row["complete"]) == (1, 1, True)


def test_bootstrap_draws_the_same_images_for_every_seed():
    def width(*quality):
        row = bootstrap(*_scored(quality)).filter(metric="image_auroc").row(0, named=True)
        return row["high"] - row["low"]

    # Equal trainings do not make the test set any larger; different ones are a noise of their own.
    assert width(1, 1, 1, 1) == pytest.approx(width(1), rel=1e-9)
    assert width(0, 0, 2, 2) > 1.5 * width(1)


def test_bootstrap_never_claims_less_noise_than_the_seeds_have():
    frame, scores = _scored([0, 1, 2])
    student = summary(frame).row(0, named=True)
    drawn = bootstrap(frame, scores, draws=4000).filter(metric="image_auroc").row(0, named=True)
    assert drawn["high"] - drawn["low"] > 0.9 * (student["high"] - student["low"])


def test_bootstrap_is_repeatable_and_independent_of_row_order():
    frame, scores = _scored([0, 1, 2])
    shuffled = bootstrap(frame.reverse(), scores.sample(fraction=1, shuffle=True, seed=1))
    assert bootstrap(frame, scores).equals(shuffled)
