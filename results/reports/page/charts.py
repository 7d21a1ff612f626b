"""Charts as data: what is drawn where. `plot.js` draws them, the page's style colours them.

A chart is what JSON can hold: title (for whoever can't see it), x and y (axes), and marks: lines,
points. `series` is the index of a method, which has one colour, dash and marker in the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from results.reports.numbers import interval, percent

Chart = dict[str, Any]
PERCENT = (0, 100)
"""Ends that an axis never leaves."""
MOST_POINTS = 300
"""Points of a line at most; of a longer one every second, third, ... is drawn."""


def means(
    rows: Sequence[tuple[int, dict[str, Any]]], metric: str, title: str, told: str | None
) -> Chart:
    """The mean of each method, the best above, with its interval: (series, row of `summary`).

    That of `told` is bold.
    """
    points = [
        {
            "series": series,
            "x": 100 * row["mean"],
            "y": number,
            "ends": None if row["low"] is None else [100 * row["low"], 100 * row["high"]],
            "hollow": not row["complete"],
            "value": percent(row["mean"]),
            "strong": row["label"] == told,
            "tip": f"{row['label']}: {percent(row['mean'], row['std'])} %, {_told(row)}",
        }
        for number, (series, row) in enumerate(rows)
    ]
    return {
        "title": title,
        "x": {"name": f"{metric}, mean over categories, %", "limits": PERCENT},
        "y": {"rows": [row["label"] for _, row in rows]},
        "points": points,
    }


def scatter(
    points: Sequence[tuple[int, str, float, float]], title: str, names: tuple[str, str]
) -> Chart:
    """Methods (series, name, x, y) by two numbers."""
    xs = [x for _, _, x, _ in points]
    marks = [
        {"series": series, "name": name, "x": x, "y": y}
        | {"tip": f"{name}: {x:,.4g} {names[0]}, {y:.1f} %"}
        for series, name, x, y in points
    ]
    return {
        "title": title,
        "x": {"name": names[0], "log": max(xs) > 5 * min(xs)},
        "y": {"name": names[1], "limits": PERCENT},
        "points": marks,
    }


def knob(
    name: str, values: Sequence[float], heights: Mapping[str, Sequence[float | None]], chosen: float
) -> Chart:
    """Figure 6: image AUROC on each set against one knob, the chosen value marked."""
    lines = [
        {"series": series, "name": label, "x": [*values], "y": line, "marked": True}
        for series, (label, line) in enumerate(heights.items())
    ]
    return {
        "title": f"{' and '.join(heights)} against {name}",
        "x": {"name": name},
        "y": {"name": "image AUROC, %", "limits": PERCENT},
        "lines": lines,
        "rules": [{"x": chosen, "name": "chosen"}],
    }


def losses(method: str, series: int, runs: Mapping[str, Sequence[float]], title: str) -> Chart:
    """The training loss of each run of a method, an epoch a point."""
    lines = []
    for name, values in runs.items():
        every = -(-len(values) // MOST_POINTS)
        epochs = list(range(1, len(values) + 1))[::every]
        lines.append({"series": series, "name": name, "x": epochs, "y": [*values[::every]]})
    positive = all(value > 0 for values in runs.values() for value in values)
    return {
        "title": title,
        "x": {"name": "epoch", "whole": True},
        "y": {"name": f"loss of {method}", "log": positive},
        "lines": lines,
        "legend": False,  # all of one colour: the pointer tells which is which
    }


def _told(row: Mapping[str, Any]) -> str:
    if row["low"] is None:
        return f"{'one seed' if row['seeds'] == 1 else 'equal seeds'}, so no interval"
    return f"95 % interval {interval(row['low'], row['high'])} over {row['seeds']} seeds"
