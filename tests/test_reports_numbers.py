"""Every report prints a number in the same way."""

from __future__ import annotations

import pytest

from results.reports.numbers import interval, number, p_value, percent, points, spread


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (percent(0.98449), "98.4"),
        (percent(1, 0.0031), "100.0 ± 0.3"),
        (percent(0.98449, decimals=2), "98.45"),
        (percent(None, 0.1), "–"),
        (spread(None), ""),
        (points(0.0149), "+1.5"),
        (points(-0.0), "+0.0"),
        (points(-0.0001), "+0.0"),
        (points(None), "–"),
        (interval(0.979, 0.991), "97.9 to 99.1"),
        (interval(-0.004, 0.016, points), "-0.4 to +1.6"),
        (interval(0.979, None), "at least 97.9"),
        (interval(None, 0.2), "at most 20.0"),
        (interval(None, None), "–"),
        (number(1234.56), "1,234.6"),
        (number(27_900_000, 0), "27,900,000"),
        (number(None), "–"),
        (p_value(0.0009), "< 0.001"),
        (p_value(0.001), "0.001"),
    ],
)
def test_numbers_are_rounded_with_signs_and_separators(shown: str, text: str) -> None:
    assert shown == text
