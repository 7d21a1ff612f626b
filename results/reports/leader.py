"""Who leads, and whether these results can tell it from the others, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from results.analysis.statistics import (
    AHEAD,
    DECIMALS,
    INCOMPLETE,
    TOO_FEW,
    UNSETTLED,
    WITHIN_NOISE,
)
from results.reports.numbers import counted, percent

MOST_NAMED = 3
"""Rows in a sentence."""
WHY = {
    WITHIN_NOISE: ": another training may turn the order",
    TOO_FEW: ": so few categories can't speak for other products",
    UNSETTLED: ": on another product the order may turn",
    INCOMPLETE: ", which lacks categories",
}


class Leader(NamedTuple):
    """The row with the highest mean of all that have every category."""

    name: str  # its label; empty where no row has every category
    sentence: str
    told: bool  # whether it is better than the next, and not by noise


def leader(metric: str, rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> Leader:
    """The verdict on one metric of a section, from its rows of `summary`, with labels, and of
    `pairwise`."""
    measured = [row for row in rows if row["mean"] is not None]
    measured.sort(key=lambda row: (not row["complete"], -_mean(row), row["label"]))
    if not measured or not measured[0]["complete"]:
        return Leader("", f"no method has {metric} of every category yet", False)
    first, *others = measured
    name, value = first["label"], percent(first["mean"])
    if not others:
        return Leader(name, f"{name} reaches {value} % in {metric}, alone", False)
    verdicts = {
        pair["b"] if pair["a"] == name else pair["a"]: pair["verdict"]
        for pair in pairs
        if name in (pair["a"], pair["b"])
    }
    names = [row["label"] for row in others]
    better, ahead = f"{name} is better", f"{name} {AHEAD}"
    alike = [other for other in names if verdicts.get(other) not in (better, ahead)]
    if _mean(others[0]) == _mean(first):
        return Leader(name, f"{name} and {names[0]} are level in {metric} ({value} %)", False)
    seeds, categories = counted(first["seeds"], "seed"), first["categories"]
    by = f"{seeds} on {categories:,} {'category' if categories == 1 else 'categories'}"
    line = f"{name} leads in {metric} ({value} %)"
    if not alike:
        how = "ahead of" if ahead in verdicts.values() else "better than"
        return Leader(name, f"{line}: {how} all others, by {by}", how == "better than")
    why = WHY.get(verdicts.get(alike[0], ""), "")
    told = verdicts.get(names[0]) == better
    return Leader(name, f"{line}; {by} can't tell it from {_listed(alike)}{why}", told)


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _mean(row: dict[str, Any]) -> float:
    """As differences are rounded: equal values that were added in another order are equal."""
    return float(round(row["mean"], DECIMALS))
