"""Numbers as reports print them: fractions in percent, gaps in points, a dash for the unknown."""

from __future__ import annotations

from collections.abc import Callable

UNKNOWN = "–"


def percent(fraction: float | None, std: float | None = None, *, decimals: int = 1) -> str:
    """`98.5`; with a standard deviation, a fraction as well, `98.5 ± 0.3`."""
    if fraction is None:
        return UNKNOWN
    return f"{100 * fraction:.{decimals}f} {spread(std)}".rstrip()


def spread(std: float | None) -> str:
    """`± 0.3`; nothing where it is unknown, as of a single seed."""
    return "" if std is None else f"± {100 * std:.1f}"


def counted(number: int, what: str, plural: str = "s") -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number:,} {what}{'' if number == 1 else plural}"


def points(gap: float | None) -> str:
    """A difference of two fractions: `+1.5`; what is printed as zero is `+0.0`."""
    return UNKNOWN if gap is None else f"{round(100 * gap, 1) + 0:+.1f}"


def interval(low: float | None, high: float | None, show: Callable[[float], str] = percent) -> str:
    """`97.9 to 99.1`; of gaps, shown as points, `+0.4 to +1.6`; with one end `at least 97.9`."""
    if low is None or high is None:
        ends = {"at least": low, "at most": high}
        return next((f"{w} {show(end)}" for w, end in ends.items() if end is not None), UNKNOWN)
    return f"{show(low)} to {show(high)}"


def p_value(probability: float) -> str:
    """`0.034`, or that it is below a thousandth."""
    return "< 0.001" if probability < 0.001 else f"{probability:.3f}"


def number(value: float | None, decimals: int = 1) -> str:
    """Seconds, GiB, a correlation: `1,234.5`; a count has no decimals."""
    return UNKNOWN if value is None else f"{value:,.{decimals}f}"
