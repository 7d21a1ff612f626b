"""Intervals and paired tests against SciPy, hand-computed cases and published examples."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
from made_rows import made_frame
from scipy import special, stats

from results.analysis import statistics
from results.analysis.cells import Values
from results.analysis.equivalence import signed_rank
from results.analysis.statistics import (
    AHEAD,
    INCOMPLETE,
    TOO_FEW,
    UNSETTLED,
    WITHIN_NOISE,
    compare,
    holm,
    moved,
    pairwise,
)
from results.analysis.summary import summary


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


def test_interval_of_the_mean_is_students_t_over_seeds():
    values = _random({"a": 0.9}, seeds=5)
    row = summary(made_frame(values)).row(0, named=True)
    by_seed = [np.mean([values["a", s, f"c{c}"] for c in range(5)]) for s in range(5)]
    mean = np.mean(by_seed)
    # The delta method: the standard error of logit(m) is that of m over m (1 - m).
    error = stats.sem(by_seed) / (mean * (1 - mean))
    ends = special.expit(stats.t.interval(0.95, 4, special.logit(mean), error))
    assert (row["low"], row["high"]) == pytest.approx(tuple(ends), abs=1e-12)
    plain = stats.t.interval(0.95, 4, mean, stats.sem(by_seed))
    assert (row["low"], row["high"]) == pytest.approx(plain, abs=2e-3), "for small steps the same"


def test_no_interval_leaves_what_a_fraction_can_be():
    row = summary(made_frame({("a", 0, "c"): 1.0, ("a", 1, "c"): 0.6})).row(0, named=True)
    assert 0 < row["low"] < row["mean"] < row["high"] < 1
    assert moved([1.0, 0.0, 0.5], [0.0, 0.0, 0.0]).tolist() == [1.0, 0.0, 0.5]
    assert moved([70.0], [3.0]).tolist() == [73.0], "seconds are no fraction"


def test_one_seed_has_no_interval():
    row = summary(made_frame(_random({"a": 0.9}, seeds=1))).row(0, named=True)
    assert (row["low"], row["high"]) == (None, None)


def test_a_pair_is_judged_as_scipy_judges_it():
    values = _random({"a": 0.9, "b": 0.8})
    row = pairwise(made_frame(values)).row(0, named=True)
    keys = [(s, f"c{c}") for s in range(4) for c in range(5)]
    gaps = np.array([values["a", *key] - values["b", *key] for key in keys])
    assert (row["categories"], row["seeds"]) == (5, 4)
    assert row["difference"] == pytest.approx(gaps.mean(), abs=1e-12)
    interval = stats.t.interval(0.95, 3, gaps.mean(), stats.sem(gaps.reshape(4, 5).mean(axis=1)))
    assert (row["low"], row["high"]) == pytest.approx(interval, abs=1e-9)
    assert row["p_value"] == 2 * 0.5**5  # all five categories, of 2**5 signs
    assert (row["wins"], row["ties"], row["losses"]) == (5, 0, 0)
    assert row["complete"]
    assert row["verdict"] == TOO_FEW
    row = pairwise(made_frame(_random({"a": 0.9, "b": 0.8}, categories=7))).row(0, named=True)
    assert row["verdict"] == "a is better"


def test_equal_methods_are_within_noise():
    values = _random({"a": 0.9, "b": 0.9}, noise=0.02)
    assert pairwise(made_frame(values))["verdict"].to_list() == [WITHIN_NOISE]
    same = {key: 0.5 for key in values}
    row = pairwise(made_frame(same)).row(0, named=True)
    assert (row["p_value"], row["ties"], row["verdict"]) == (1.0, 5, WITHIN_NOISE)


def test_a_gain_on_one_category_alone_is_not_a_better_method():
    values = _random({"a": 0.5, "b": 0.5}, noise=0.001, categories=8)
    values |= {key: value + 0.3 for key, value in values.items() if key[::2] == ("a", "c0")}
    row = pairwise(made_frame(values)).row(0, named=True)
    assert row["low"] > 0.03  # far beyond the noise of seeds
    assert row["verdict"] == UNSETTLED


@pytest.mark.parametrize("categories, tests, told", [(5, 1, False), (6, 1, True), (6, 3, False)])
def test_few_categories_prove_nothing_however_many_seeds(categories, tests, told):
    methods = {"a": 0.9, "b": 0.5} | ({"c": 0.1} if tests == 3 else {})
    rows = pairwise(made_frame(_random(methods, seeds=20, categories=categories)))
    assert {verdict == TOO_FEW for verdict in rows["verdict"]} == {not told}


def test_one_training_each_is_said():
    row = pairwise(made_frame(_random({"a": 0.9, "b": 0.5}, seeds=1, categories=8))).row(
        0, named=True
    )
    assert row["verdict"] == f"a {AHEAD}"


RATIOS = (0.03, 0.3, 3.0)
"""Standard deviations over seeds, beside 1 over categories."""


@pytest.mark.parametrize(
    ("categories", "runs"),
    [(3, 100), *(pytest.param(count, 400, marks=pytest.mark.slow) for count in (3, 6, 15, 21))],
)
def test_better_is_said_falsely_in_at_most_5_percent(monkeypatch, categories, runs):
    monkeypatch.setattr(statistics, "signed_rank", lambda gaps: None)  # no part in verdicts
    generator, seeds = np.random.default_rng(categories), 5
    for ratio in RATIOS:
        said = 0
        for _ in range(runs):
            # No difference over products; on each of them there may be one.
            gaps_CS = generator.normal(0, 1, (categories, 1)) + generator.normal(
                0, ratio, (categories, seeds)
            )
            values = Values({"a": gaps_CS, "b": 0 * gaps_CS}, categories)
            (row,) = statistics._all_pairs(values)
            said += row["verdict"].endswith("is better")
        assert said / runs <= 0.05 + 2.6 * (0.05 * 0.95 / runs) ** 0.5, ratio


def test_a_training_that_moves_all_categories_is_no_better_method(monkeypatch):
    monkeypatch.setattr(statistics, "signed_rank", lambda gaps: None)
    generator, said = np.random.default_rng(0), 0
    for _ in range(300):
        gaps_CS = generator.normal(0, 1, (1, 3)) + generator.normal(0, 0.1, (15, 3))
        values = Values({"a": gaps_CS, "b": 0 * gaps_CS}, 15)
        said += next(iter(statistics._all_pairs(values)))["verdict"].endswith("is better")
    assert said / 300 <= 0.05 + 2.6 * (0.05 * 0.95 / 300) ** 0.5


def test_a_real_difference_is_found(monkeypatch):
    monkeypatch.setattr(statistics, "signed_rank", lambda gaps: None)
    generator, said = np.random.default_rng(0), 0
    for _ in range(100):
        gaps_CS = 1 + generator.normal(0, 1, (15, 1)) + generator.normal(0, 0.3, (15, 5))
        values = Values({"a": gaps_CS, "b": 0 * gaps_CS}, 15)
        said += next(iter(statistics._all_pairs(values)))["verdict"] == "a is better"
    assert said > 85


def test_ties_have_an_exact_p_value():
    gaps = np.array([0.1, 0.1, 0.1, 0.2, 0.2, 0.3])
    assert statistics.signed_rank_p(gaps) == pytest.approx(2 * 0.5**6)
    assert statistics.signed_rank_p(np.array([0.1, -0.1])) == 1
    assert statistics.signed_rank_p(np.zeros(4)) == 1
    signs = np.array(list(itertools.product((1, -1), repeat=6)))
    ranks_of = stats.rankdata(np.abs(gaps))
    sums = (signs * ranks_of).sum(axis=1)
    mixed = gaps * np.array([1, -1, 1, 1, 1, 1])
    seen = (np.sign(mixed) * ranks_of).sum()
    assert statistics.signed_rank_p(mixed) == pytest.approx((np.abs(sums) >= seen).mean())


GAPS = [
    0.021,
    0.004,
    -0.003,
    0.035,
    0.012,
    -0.008,
    0.017,
    0.001,
    0.026,
    0.009,
    -0.001,
    0.014,
    0.003,
]
GAPS += [0.030, -0.012]


@pytest.mark.parametrize(
    "gaps, rope, wanted",
    [
        # Printed by baycomp 1.0.3, SignedRankTest.probs with 200,000 samples.
        (GAPS, 0.005, (0.92195, 0.077275, 0.000775)),
        (GAPS, 0.02, (0.001765, 0.998235, 0.0)),
        ([0.02, 0.01, -0.004], 0.005, (0.658605, 0.341395, 0.0)),
    ],
)
def test_bayesian_signed_rank_is_that_of_benavoli(gaps, rope, wanted):
    chances = signed_rank(np.array(gaps), rope)
    assert chances == pytest.approx(wanted, abs=0.01)
    turned = signed_rank(-np.array(gaps), rope)
    assert (turned.worse, turned.equal) == pytest.approx((chances.better, chances.equal), abs=0.01)
    assert sum(chances) == pytest.approx(1)


def test_bayesian_signed_rank_of_nothing():
    assert signed_rank(np.array([])) is None
    assert signed_rank(np.zeros(6)).equal > 0.999


def test_a_row_that_lacks_a_category_is_not_compared():
    values = _random({"a": 0.9, "b": 0.8, "c": 0.1})
    del values["c", 2, "c4"]  # one seed of one category
    frame = made_frame(values)
    rows = {(row["a"], row["b"]): row for row in pairwise(frame).to_dicts()}
    assert rows["a", "c"]["verdict"] == rows["b", "c"]["verdict"] == INCOMPLETE
    assert rows["a", "c"]["categories"] == 4
    assert rows["a", "b"]["p_holm"] == rows["a", "b"]["p_value"]  # the only test


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
    frame = made_frame(_random({"a": 0.9, "b": 0.8, "c": 0.7}, categories=7))
    row = compare(frame, "b", "a").row(0, named=True)
    assert (row["a"], row["b"], row["losses"]) == ("b", "a", 7)
    assert row["p_holm"] == row["p_value"]
    assert row["verdict"] == "a is better"


@pytest.mark.parametrize("a, b, why", [("a", "z", "no results of 'z'"), ("a", "a", "with itself")])
def test_compare_names_what_there_is(a, b, why):
    with pytest.raises(ValueError, match=f"{why}.*there are: a, b"):
        compare(made_frame(_random({"a": 0.9, "b": 0.8})), a, b)
