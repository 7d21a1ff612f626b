"""The report as one HTML file: tables, charts, pictures, and where each number comes from.

`report.html` is the template. Style and script are written into the page: it needs no network.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from results.analysis.alarms import alarms, without_alarms
from results.analysis.cells import label, labelled
from results.analysis.published import beside_published
from results.analysis.ranks import cliques, ranks
from results.metrics import METRICS
from results.reports.page import tables
from results.reports.page.charts import Point, critical_difference, scatter
from results.reports.page.closer import Closer, within
from results.reports.page.provenance import cells
from results.reports.page.sections import Section, sections
from results.reports.page.selectors import selectors
from results.reports.text import notes
from results.table import read, read_scores

PICTURE_BYTES = 15_000_000
"""Most bytes of all pictures in a page; where there are more, each category shows fewer."""


def page(out: Path) -> str:
    """The report of an output folder as HTML."""
    whole = read(out)
    frame = without_alarms(whole)
    parts = sections(frame)
    scores = read_scores(out)
    closers = [Closer(part, out, scores) for part in parts]
    metrics = {
        name: definition
        for name, definition in METRICS.items()
        if any(name in part.metrics for part in parts)
    }
    context = {
        "made": datetime.now(UTC),
        "folder": out.resolve().name,
        "metrics": metrics,
        "labels": parts[0].labels if parts else [],
        "overview": {name: tables.overview(parts, name) for name in metrics},
        "sections": [_section(part) for part in parts],
        "selectors": selectors(out),
        "alarms": [[label(row), *tables.alarm(row)] for row in alarms(whole, scores).to_dicts()],
        "cells": cells(frame),
        "traced": {key: rows for part in parts for key, rows in part.traced().items()},
    }
    return _rendered(context | _closer_context(closers))


def _section(section: Section) -> dict[str, Any]:
    """A section as the template shows it, by metric."""
    ranked = labelled(ranks(section.frame))
    beside = beside_published(section.frame)
    return {
        "index": section.index,
        "title": section.title,
        "notes": list(notes(section.summary, section.frame)),
        "by_metric": {
            metric: {
                "methods": tables.methods(section, metric),
                "heat": tables.by_category(section, metric),
                "differences": tables.differences(section, metric),
                "ablation": tables.ablation(section, metric),
                "published": tables.published(section, beside, metric),
                "ranks": _ranks(section, ranked.filter(metric=metric), metric),
                "cost": [*_cost(section, metric)],
            }
            for metric in section.metrics
        },
    }


def _ranks(section: Section, ranked: pl.DataFrame, metric: str) -> dict[str, Any] | None:
    """The critical-difference diagram and its numbers; None for fewer than three methods."""
    whole = ranked.filter("complete").sort("rank")
    if len(whole) < 3:
        return None
    difference, p_value = whole["critical_difference"][0], whole["p_value"][0]
    points = [
        Point(section.labels.index(name), name, rank, 0)
        for name, rank in whole.select("label", "rank").iter_rows()
    ]
    bars = cliques(whole["rank"].to_list(), difference)
    chart = critical_difference(points, bars, f"Average ranks by {metric}, {section.title}")
    return {"chart": chart, "difference": difference, "p_value": p_value}


def _cost(section: Section, metric: str) -> Iterator[Markup]:
    """The metric against speed and against memory."""
    axes = {"images per second": ("images_per_second", 1), "peak GiB": ("peak_memory_bytes", 2**30)}
    for words, (column, unit) in axes.items():
        rows = section.summary.filter(pl.col("metric") == metric, pl.col(column) > 0)
        points = [
            Point(section.labels.index(name), name, x / unit, 100 * mean)
            for name, x, mean in rows.drop_nulls("mean").select("label", column, "mean").iter_rows()
        ]
        if points:
            title = f"{metric} against {words}, {section.title}"
            names = words, f"{metric}, mean over categories, %"
            yield scatter(points, title, names)


def _closer_context(closers: Sequence[Closer]) -> dict[str, Any]:
    pictures = [picture for closer in closers for picture in closer.pictures()]
    shown, ranks_shown = within(pictures, PICTURE_BYTES)
    return {
        "panels": [panel for closer in closers for panel in closer.panels()],
        "choices": [
            {
                "title": closer.section.title,
                "metrics": closer.section.metrics,
                "rows": closer.section.rows,
                "categories": closer.categories,
                "methods": {closer.section.labels.index(m): m for m in closer.section.present},
            }
            for closer in closers
        ],
        "thresholds": {key: kinds for c in closers for key, kinds in c.thresholds().items()},
        "alarms_from": {key: value for c in closers for key, value in c.alarms().items()},
        "pictures": sorted(shown, key=lambda picture: (not picture.is_miss, picture.rank)),
        "ranks_shown": ranks_shown,
        "dropped": len(pictures) - len(shown),
        "licences": [row for closer in closers for row in closer.licences()],
        "without_pictures": sum(len(closer.without_pictures) for closer in closers),
    }


def _rendered(context: dict[str, Any]) -> str:
    here = files("results.reports.page")
    script, style = (here.joinpath(f"report.{end}").read_text("utf-8") for end in ("js", "css"))
    environment = Environment(
        loader=PackageLoader("results.reports.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Nothing but the page's own script may run, whatever a name holds.
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html").render(
        **context, script=Markup(script), style=Markup(style), script_sha256=allowed
    )
