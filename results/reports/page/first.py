"""The first screen: who leads and by what, every method at once, accuracy against cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from results.analysis.cells import coverage
from results.reports.leader import leader
from results.reports.numbers import number
from results.reports.page.charts import Chart, means, scatter
from results.reports.sections import Section

COSTS = {
    "images per second": ("images_per_second", 1),
    "seconds of training": ("fit_seconds", 1),
    "peak GiB": ("peak_memory_bytes", 2**30),
}

COST_CAPTION = "Accuracy against cost, on the machine that ran it."


def first_view(section: Section, metric: str) -> dict[str, Any]:
    """The verdict of one metric, the chart of all means, and the metric against the first cost."""
    rows = [
        (section.labels.index(name), section.row(metric, name) or {})
        for name in section.ranked(metric)
    ]
    verdict = leader(metric, section.rows_of(metric), section.pairs(metric))
    told = any(row["low"] is not None for _, row in rows)
    caption = "a line is the 95 % interval over seeds" if told else "one seed has no interval"
    title = f"{metric} of all methods, {section.title}"
    shown = means(rows, metric, title, section.told(metric))
    charts = [(shown, f"Mean over categories; {caption}.")] if rows else []
    charts += [(cost, COST_CAPTION) for cost in list(costs(section, metric))[:1]]
    return {"verdict": verdict, "charts": charts}


def costs(section: Section, metric: str) -> Iterator[Chart]:
    """The metric against speed, training and memory, as far as they were measured."""
    for words, (column, unit) in COSTS.items():
        points = [
            (section.labels.index(row["label"]), row["label"], row[column] / unit, 100 * mean)
            for row in section.rows_of(metric)
            if (mean := row["mean"]) is not None and (row[column] or 0) > 0
        ]
        if points:
            title = f"{metric} against {words}, {section.title}"
            yield scatter(points, title, (words, f"{metric}, mean over categories, %"))


def compared(section: Section) -> str:
    """One line on the methods, the data, the counts, the dates and the machines."""
    done = section.chosen
    sizes = done.select(pl.col("train_images", "test_images").max()).row(0, named=True)
    counts = [
        f"{number(size, 0)} {name.replace('train_', 'training ').replace('_', ' ')}"
        for name, size in sizes.items()
        if size
    ]
    dates = sorted({f"{when:%Y-%m-%d}" for when in done["finished_at"]})
    devices = ", ".join(sorted(done["device"].drop_nulls().unique()))
    here = len(section.categories)
    categories = f"{here} {'category' if here == 1 else 'categories'}"
    parts = [f"{', '.join(section.present)} on {section.heading}", *counts, section.seeds]
    if not coverage(section.frame):  # else the heading says it
        parts.insert(1, categories)
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    return "; ".join(parts) + f". Run {when}" + (f" on {devices}." if devices else ".")
