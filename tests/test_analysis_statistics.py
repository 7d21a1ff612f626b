"""Intervals and paired tests against SciPy, hand-computed cases and published examples."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from made_rows import made_frame
from scipy import stats

from results.analysis.equivalence import signed_rank
from results.analysis.statistics import (
    AHEAD,
    INCOMPLETE,
    NOT_ASKED,
    SPLIT,
    TOO_FEW,
    UNSETTLED,
    WITHIN_NOISE,
    compare,
    gap,
    holm,
    mean_p,
    pairwise,
    product_p,
    signed_rank_p,
    verdict,
)
from results.analysis.summary import summary

BETTER = ("is better", AHEAD)


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


def _rows(values, *arguments, of=pairwise):
    return of(made_frame(values), *arguments).to_dicts()


def _said(gaps_PCS):
    """The verdicts on pairs a, b of one table."""
    pairs = [gap(gaps_CS) | {"a": "a", "b": "b", "complete": True} for gaps_CS in gaps_PCS]
    p_values = holm([pair["p_value"] for pair in pairs])
    return [verdict(pair, p, len(pairs)) for pair, p in zip(pairs, p_values, strict=True)]


def test_interval_of_the_mean_is_students_t_over_seeds():
    values = _random({"a": 0.9}, seeds=5)
    row = summary(made_frame(values)).row(0, named=True)
    by_seed = [np.mean([values["a", s, f"c{c}"] for c in range(5)]) for s in range(5)]
    ends = stats.t.interval(0.95, 4, np.mean(by_seed), stats.sem(by_seed))
    assert (row["low"], row["high"]) == pytest.approx(ends, abs=1e-12)


@pytest.mark.parametrize(
    "seeds, ends",
    [([0.99, 0.98], (0.985 - 12.7062 * 0.005, 1)), ([0.9], (None, None)), ([1, 1], (None, None))],
)
def test_an_interval_stays_within_what_a_fraction_can_be_and_has_a_width(seeds, ends):
    values = {("a", number, "c"): value for number, value in enumerate(seeds)}
    row = summary(made_frame(values)).row(0, named=True)
    assert (row["low"], row["high"]) == pytest.approx(ends, abs=1e-6)


def test_a_pair_is_judged_as_scipy_judges_it():
    values = _random({"a": 0.9, "b": 0.8})
    [row] = _rows(values)
    keys = [(s, f"c{c}") for s in range(4) for c in range(5)]
    gaps = np.array([values["a", *key] - values["b", *key] for key in keys])
    assert (row["categories"], row["seeds"]) == (5, 4)
    assert row["difference"] == pytest.approx(gaps.mean(), abs=1e-12)
    interval = stats.t.interval(0.95, 3, gaps.mean(), stats.sem(gaps.reshape(4, 5).mean(axis=1)))
    assert (row["low"], row["high"]) == pytest.approx(interval, abs=1e-9)
    assert row["p_value"] == 2 * 0.5**5  # all five categories, of 2**5 signs
    assert (row["wins"], row["ties"], row["losses"]) == (5, 0, 0)
    assert row["complete"] and row["verdict"] == TOO_FEW
    [row] = _rows(_random({"a": 0.9, "b": 0.8}, categories=7))
    assert row["verdict"] == "a is better"
    [row] = _rows(_random({"a": 0.9, "b": 0.5}, seeds=1, categories=8))
    assert row["verdict"] == f"a {AHEAD}"


def test_equal_methods_are_within_noise():
    values = _random({"a": 0.9, "b": 0.9}, noise=0.02)
    assert _rows(values)[0]["verdict"] == WITHIN_NOISE
    [row] = _rows(dict.fromkeys(values, 0.5))
    assert (row["p_value"], row["ties"], row["verdict"]) == (1.0, 5, WITHIN_NOISE)
    assert (row["low"], row["high"]) == (None, None)


def test_a_gain_on_one_category_alone_is_not_a_better_method():
    values = _random({"a": 0.5, "b": 0.5}, noise=0.001, categories=8)
    values |= {key: value + 0.3 for key, value in values.items() if key[::2] == ("a", "c0")}
    [row] = _rows(values)
    assert row["low"] > 0.03  # far beyond the noise of seeds
    assert row["verdict"] in (UNSETTLED, f"a {SPLIT}")


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_mean_and_the_ranks_have_to_name_the_same_row(seeds):
    gaps = [0.001 + 0.00001 * c for c in range(14)] + [-0.06]
    values = {
        (name, s, f"c{c}"): 0.5 + (value + 1e-5 * s if name == "a" else 0)
        for name in "ab"
        for s in range(seeds)
        for c, value in enumerate(gaps)
    }
    [row] = _rows(values)
    assert signed_rank_p(np.array(gaps)) < 0.01 and row["difference"] < 0
    assert (row["wins"], row["verdict"]) == (14, f"b {SPLIT}")
    assert product_p(np.array(gaps)) == 1


@pytest.mark.parametrize("categories, tests, told", [(5, 1, False), (6, 1, True), (6, 3, False)])
def test_few_categories_prove_nothing_however_many_seeds(categories, tests, told):
    methods = {"a": 0.9, "b": 0.5} | ({"c": 0.1} if tests == 3 else {})
    rows = _rows(_random(methods, seeds=20, categories=categories))
    assert {row["verdict"] == TOO_FEW for row in rows} == {not told}


GAPS_OF = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "exponential": lambda draw, shape: draw.exponential(size=shape) - 1,
    "lognormal": lambda draw, shape: draw.lognormal(size=shape) - np.exp(0.5),
}
"""Gaps of two methods over products, of mean 0."""


@pytest.mark.parametrize(
    "pairs, runs", [(1, 600), pytest.param(1, 5000, marks=pytest.mark.slow), (28, 60)]
)
@pytest.mark.parametrize("skewed", GAPS_OF)
def test_better_is_said_falsely_in_at_most_5_percent_of_commands(skewed, pairs, runs):
    draw, wrong = np.random.default_rng(5), 0
    for _ in range(runs):
        gaps_PC = GAPS_OF[skewed](draw, (1, 15)) + (pairs > 1) * draw.normal(size=(pairs, 15))
        gaps_PCS = gaps_PC[..., None] + 0.05 * draw.normal(size=(pairs, 15, 2))
        wrong += any(words.endswith(BETTER) for words in _said(gaps_PCS / 100))
    assert wrong / runs <= 0.05 + 2.6 * (0.05 * 0.95 / runs) ** 0.5


@pytest.mark.parametrize("ratio", [0.03, 3.0])
def test_training_noise_makes_no_method_better(ratio):
    draw, wrong = np.random.default_rng(3), 0
    for _ in range(200):
        common_11S = draw.normal(0, ratio, (1, 1, 3))  # a training moves all categories
        gaps_1CS = draw.normal(0, 1, (1, 15, 1)) + common_11S + draw.normal(0, ratio, (1, 15, 3))
        wrong += _said(gaps_1CS / 100)[0].endswith(BETTER)
    assert wrong / 200 <= 0.05 + 2.6 * (0.05 * 0.95 / 200) ** 0.5


def test_a_real_difference_is_found():
    draw, found = np.random.default_rng(0), 0
    for _ in range(100):
        gaps_CS = 1 + draw.normal(0, 1, (15, 1)) + draw.normal(0, 0.3, (15, 5))
        found += _said([gaps_CS / 100]) == ["a is better"]
    assert found > 75, "of a gap of one standard deviation over 15 products"
    steady = np.array([5.0, 6, 4, 5.5, 5, 4.5, 6, 5, 4, 5, 5.5, 6, 1, 1.5, 1])
    assert product_p(steady) < 0.02, "smaller gains on some products take nothing away"


def test_ties_have_an_exact_p_value():
    gaps = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.3])
    assert signed_rank_p(gaps) == pytest.approx(2 * 0.5**6)
    assert signed_rank_p(np.array([0.1, -0.1])) == signed_rank_p(np.zeros(3)) == 1
    unlike = np.random.default_rng(0).normal(0.5, 1, 21)
    assert signed_rank_p(unlike) == pytest.approx(stats.wilcoxon(unlike, method="exact").pvalue)
    signs = np.array(list(itertools.product((1, -1), repeat=6)))
    ranks_of = stats.rankdata(np.abs(gaps))
    sums = (signs * ranks_of).sum(axis=1)
    mixed = gaps * np.array([1, -1, 1, 1, 1, 1])
    seen = (np.sign(mixed) * ranks_of).sum()
    assert signed_rank_p(mixed) == pytest.approx((np.abs(sums) >= seen).mean())


def test_the_test_of_the_mean_is_students_where_nothing_is_skewed():
    gaps = np.array([-3.0, -1, 0, 2, 4, 6, 8, 9, 11]) - 2
    assert mean_p(gaps - gaps.mean()) == 1
    symmetric = np.concatenate((gaps, 2 - gaps)) + 1
    assert mean_p(symmetric) == pytest.approx(stats.ttest_1samp(symmetric, 0).pvalue)
    assert mean_p(-gaps) == pytest.approx(mean_p(gaps))
    assert [mean_p(np.array(few)) for few in ([], [1.0], [1.0, 2.0])] == [1, 1, 1]
    assert mean_p(np.full(6, 0.1)) == 0


GAPS = [0.021, 0.004, -0.003, 0.035, 0.012, -0.008, 0.017, 0.001, 0.026, 0.009]
GAPS += [-0.001, 0.014, 0.003, 0.030, -0.012]


@pytest.mark.parametrize(
    "gaps, rope, wanted",
    [
        # Printed by baycomp 1.0.3, SignedRankTest.probs with 200,000 samples.
        (GAPS, 0.005, (0.92195, 0.077275, 0.000775)),
        (GAPS, 0.02, (0.001765, 0.998235, 0.0)),
        ([0.02, 0.01, -0.004], 0.005, (0.658605, 0.341395, 0.0)),
        ([0.0] * 6, 0.005, (0.0, 1.0, 0.0)),
    ],
)
def test_bayesian_signed_rank_is_that_of_benavoli(gaps, rope, wanted):
    chances = signed_rank(np.array(gaps), rope)
    assert chances == pytest.approx(wanted, abs=0.01)
    turned = signed_rank(-np.array(gaps), rope)
    assert (turned.worse, turned.equal) == pytest.approx((chances.better, chances.equal), abs=0.01)
    assert sum(chances) == pytest.approx(1)
    assert signed_rank(np.array([])) is None


def test_a_row_that_lacks_a_category_is_not_compared():
    values = _random({"a": 0.9, "b": 0.8, "c": 0.1})
    del values["c", 2, "c4"]  # one seed of one category
    rows = {(row["a"], row["b"]): row for row in _rows(values)}
    assert rows["a", "c"]["verdict"] == rows["b", "c"]["verdict"] == INCOMPLETE
    assert (rows["a", "c"]["categories"], rows["a", "c"]["p_holm"]) == (4, None)
    assert rows["a", "b"]["p_holm"] == rows["a", "b"]["p_value"]  # the only test


def test_a_category_that_no_row_can_have_is_left_out():
    values = _random({"a": 0.9, "b": 0.8}, categories=7)
    undefined = {(name, s, "none"): None for name in "ab" for s in range(4)}
    frame = pl.concat(
        [made_frame(values), made_frame(undefined, reason="no anomalous test images")]
    )
    assert summary(frame)["complete"].all()
    [row] = pairwise(frame).to_dicts()
    assert (row["categories"], row["complete"], row["verdict"]) == (7, True, "a is better")


def test_sections_are_never_compared_with_one_another():
    default = made_frame(_random({"a": 0.9}))
    other = made_frame(_random({"b": 0.9}), profile="ader", cell_id="other")
    assert pairwise(pl.concat([default, other])).is_empty()


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def _two_metrics():
    values = _random({"a": 0.9, "b": 0.8, "c": 0.7}, categories=9)
    metrics = ("image_auroc", "pixel_aupro", "pixel_ap")
    return pl.concat([made_frame(values, metric) for metric in metrics])


def test_the_metrics_asked_for_are_tested_and_corrected_together():
    rows = pairwise(_two_metrics()).to_dicts()
    tested = [row for row in rows if row["p_holm"] is not None]
    assert {row["metric"] for row in tested} == {"image_auroc"}
    assert {row["verdict"] for row in rows if row not in tested} == {NOT_ASKED}
    assert [row["p_holm"] for row in tested] == holm([row["p_value"] for row in tested])
    both = pairwise(_two_metrics(), ("pixel_ap", "pixel_aupro")).drop_nulls("p_holm")
    assert both["metric"].unique().sort().to_list() == ["pixel_ap", "pixel_aupro"]
    assert set(both["p_holm"]) == {6 * 2 * 0.5**9}
    with pytest.raises(ValueError, match="no results in 'f1'; there are: image_auroc, pixel_aupro"):
        pairwise(_two_metrics(), ("f1",))


def test_compare_puts_the_first_name_first_and_has_the_p_value_of_the_table_too():
    rows = compare(_two_metrics(), "b", "a", ("image_auroc", "pixel_ap")).to_dicts()
    row = rows[0]
    assert (row["a"], row["b"], row["losses"]) == ("b", "a", 9)
    assert (row["p_value"], row["p_holm"]) == (2 * 2 * 0.5**9, 6 * 2 * 0.5**9)
    assert row["verdict"] == "a is better"
    assert [row["verdict"] for row in rows if row["metric"] == "pixel_aupro"] == [NOT_ASKED]


def test_compare_judges_each_data_set_by_itself():
    gaps = {("a", 0, str(i)): 0.9 + i / 1000 for i in range(6)}
    gaps |= {("b", 0, str(i)): 0.8 for i in range(6)}
    one, two = (
        made_frame(gaps, benchmark=name).with_columns(cell_id=pl.col("cell_id") + name)
        for name in ("one", "two")
    )
    [alone] = compare(one, "a", "b")["p_value"]
    assert alone is not None
    assert compare(pl.concat([one, two]), "a", "b")["p_value"].to_list() == [alone, alone]


@pytest.mark.parametrize("a, b, why", [("a", "z", "no results of 'z'"), ("a", "a", "with itself")])
def test_compare_names_what_there_is(a, b, why):
    with pytest.raises(ValueError, match=f"{why}.*there are: a[,;] b"):
        _rows(_random({"a": 0.9, "b": 0.8}), a, b, of=compare)
