"""The verdict in a sentence: who leads, and whether these results tell it from the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from results.analysis.statistics import (
    AHEAD,
    DECIMALS,
    INCOMPLETE,
    NOT_ASKED,
    SPLIT,
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
    if _mean(others[0]) == _mean(first):
        both = f"{name} and {others[0]['label']}"
        return Leader(name, f"{both} are level in {metric} ({value} %)", False)
    verdicts = {
        pair["b"] if pair["a"] == name else pair["a"]: pair["verdict"]
        for pair in pairs
        if name in (pair["a"], pair["b"])
    }
    in_order = {row["label"]: verdicts.get(row["label"], "") for row in others}
    told = in_order[others[0]["label"]] == f"{name} is better"
    return Leader(name, f"{name} leads in {metric} ({value} %){_from_whom(first, in_order)}", told)


def _from_whom(first: dict[str, Any], verdicts: dict[str, str]) -> str:
    """The end of the sentence: whom the first row is told from, by `verdicts`, the best first."""
    seeds, categories = counted(first["seeds"], "seed"), _categories(first["categories"])
    ahead = f"{first['label']} {AHEAD}"
    alike = {
        other: verdict
        for other, verdict in verdicts.items()
        if verdict not in (ahead, f"{first['label']} is better")
    }
    if not alike:
        how = "ahead of" if ahead in verdicts.values() else "better than"
        return f": {how} all others, by {seeds} on {categories}"
    split = f"{first['label']} {SPLIT}"
    if lower := [other for other, verdict in alike.items() if verdict == split]:
        return f", but is lower on most products than {_listed(lower)}"
    # Of several seeds, these are said of differences that the seeds do tell.
    seen = (TOO_FEW, UNSETTLED, NOT_ASKED)
    noise = [other for other, why in alike.items() if first["seeds"] < 2 or why not in seen]
    if noise:
        why = WHY.get(alike[noise[0]], "")
        return f"; {seeds} on {categories} can't tell it from {_listed(noise)}{why}"
    whom = "all others" if alike == verdicts else _listed([*alike])
    but = f"but {categories} can't speak for other products"
    if NOT_ASKED in alike.values():
        but = "other products were not asked about in this metric"
    return f"; {seeds} tell it from {whom} on these images, {but}"


def _categories(number: int) -> str:
    return f"{number:,} {'category' if number == 1 else 'categories'}"


def _listed(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[:MOST_NAMED])} and {len(names) - MOST_NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _mean(row: dict[str, Any]) -> float:
    """The mean, rounded as differences are: values added in another order stay equal."""
    return float(round(row["mean"], DECIMALS))
