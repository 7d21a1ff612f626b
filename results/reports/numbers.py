"""How a number is written: the same in a terminal, in Markdown, in LaTeX and on the page."""

from __future__ import annotations

DASH = "–"
"""What is not known."""


def percent(
    value: float | None, std: float | None = None, *, decimals: int = 1, absent: str = DASH
) -> str:
    """A fraction in percent, `98.5`; with a standard deviation `98.5 ± 0.3`."""
    if value is None:
        return absent
    shown = f"{100 * value:.{decimals}f}"
    return shown if std is None else f"{shown} {spread(std, decimals=decimals)}"


def spread(std: float | None, *, decimals: int = 1) -> str:
    """A standard deviation in percent, `± 0.3`, or nothing."""
    return "" if std is None else f"± {100 * std:.{decimals}f}"


def points(value: float | None) -> str:
    """A difference of fractions in percentage points, `+1.2`."""
    return DASH if value is None else f"{100 * value:+.1f}"


def percent_range(low: float | None, high: float | None) -> str:
    """An interval of fractions in percent, `97.1 to 99.0`."""
    return DASH if low is None or high is None else f"{percent(low)} to {percent(high)}"


def points_range(low: float | None, high: float | None, between: str = " to ") -> str:
    """An interval of differences in percentage points, `-0.3 to +1.2`."""
    return DASH if low is None or high is None else f"{points(low)}{between}{points(high)}"


def number(value: float | None, decimals: int = 1) -> str:
    """`1,234.5`."""
    return DASH if value is None else f"{value:,.{decimals}f}"


def gib(count: float | None) -> str:
    """Bytes in GiB, `2.3`."""
    return DASH if count is None else number(count / 2**30)


def p_value(value: float) -> str:
    """Three decimals, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
