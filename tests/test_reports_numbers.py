"""Every report prints a number in the same way."""

from __future__ import annotations

import pytest

from results.reports import numbers


def test_fractions_are_percentages_with_their_spread() -> None:
    assert numbers.percent(0.98449) == "98.4"
    assert numbers.percent(1, 0.0031) == "100.0 ± 0.3"
    assert numbers.percent(0.98449, decimals=2) == "98.45"
    assert numbers.spread(0.0031) == "± 0.3" and numbers.spread(None) == ""


def test_gaps_carry_their_sign() -> None:
    assert [numbers.points(gap) for gap in (0.0149, -0.2, 0)] == ["+1.5", "-20.0", "+0.0"]
    assert numbers.interval(0.979, 0.991) == "97.9 to 99.1"
    assert numbers.interval(-0.004, 0.016, numbers.points) == "-0.4 to +1.6"


def test_what_is_unknown_is_a_dash() -> None:
    assert {numbers.percent(None), numbers.points(None), numbers.number(None)} == {"–"}
    assert numbers.interval(None, None) == "–"
    assert numbers.interval(0.5, None) == "at least 50.0"
    assert numbers.interval(None, 0.5) == "at most 50.0"
    assert numbers.percent(None, 0.1) == "–"


def test_plain_numbers_have_separators() -> None:
    assert numbers.number(1234.56) == "1,234.6"
    assert numbers.number(27_900_000, 0) == "27,900,000"
    assert numbers.number(-0.4678, 2) == "-0.47"


def test_small_p_values_are_not_zero() -> None:
    assert [numbers.p_value(p) for p in (0.0009, 0.001, 1)] == ["< 0.001", "0.001", "1.000"]


@pytest.mark.parametrize(
    "fractions, text",
    [([0.98534], "98.53"), ([0.98, 0.99], "98.50 ± 0.71"), ([0.5] * 3, "50.00 ± 0.00")],
)
def test_a_mean_over_seeds_has_a_spread_from_two_on(fractions: list[float], text: str) -> None:
    assert numbers.mean_percent(fractions) == text
