"""Who leads, and whether the seeds and categories can tell it from the next, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from results.analysis.statistics import AHEAD, DECIMALS, TOO_FEW, UNSETTLED, WITHIN_NOISE
from results.reports.numbers import percent


class Leader(NamedTuple):
    """The row with the highest mean of all that have every category."""

    name: str  # its label; empty where no row has every category
    sentence: str
    told: bool  # whether it is better than the next, and not by noise


def leader(metric: str, rows: Sequence[dict[str, Any]], pairs: Sequence[dict[str, Any]]) -> Leader:
    """The verdict on one metric of a section, from its rows of `summary`, with labels, and of
    `pairwise`."""
    whole = [row for row in rows if row["complete"] and row["mean"] is not None]
    if not whole:
        return Leader("", f"No method has {metric} of every category yet.", False)
    first, *others = sorted(whole, key=lambda row: (-_mean(row), row["label"]))
    name, value = first["label"], f"{percent(first['mean'])} % {metric}"
    if not others:
        return Leader(name, f"{name} reaches {value}; there is no other to compare it with.", False)
    second = others[0]
    both = {name, second["label"]}
    pair = next((pair for pair in pairs if {pair["a"], pair["b"]} == both), None)
    if _mean(first) == _mean(second):
        return Leader(name, f"{name} and {second['label']} are level at {value}.", False)
    verdict = pair["verdict"] if pair else "not compared"
    words = _words(f"{second['label']} ({percent(second['mean'])} %)", verdict, pair or {})
    told = verdict.endswith("is better")
    return Leader(name, f"{name} leads with {value}{words}.", told)


def _mean(row: dict[str, Any]) -> float:
    """As differences are rounded: equal values that were added in another order are equal."""
    return float(round(row["mean"], DECIMALS))


def _words(rival: str, verdict: str, pair: dict[str, Any]) -> str:
    seeds, categories = pair.get("seeds", 0), _count(pair.get("categories", 0), "category")
    trainings = "one training each" if seeds == 1 else f"{seeds} seeds"
    if verdict.endswith("is better"):
        return f" and is better than {rival}: {trainings} and {categories} tell them apart"
    if verdict.endswith(AHEAD):
        return f" and is ahead of {rival} over {categories}, with {trainings}"
    if verdict == WITHIN_NOISE:
        return f", but {trainings} cannot tell it from {rival}: another training may turn the order"
    if verdict == TOO_FEW and seeds == 1:
        return f", but {trainings} and {categories} are too few to tell it from {rival}"
    if verdict == TOO_FEW:
        return (
            f"; {trainings} tell it from {rival} on these images, but {categories} "
            "are too few to say so of other products"
        )
    if verdict == UNSETTLED:
        return (
            f"; {trainings} tell it from {rival} on these images, but over {categories} "
            "the order changes too much to say so of other products"
        )
    return f"; {rival} is {verdict}"


def _count(number: int, one: str) -> str:
    many = f"{one.removesuffix('y')}ies" if one.endswith("y") else f"{one}s"
    return f"{number} {one if number == 1 else many}"
