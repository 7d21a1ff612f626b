"""The report as one HTML file: tables, charts, pictures, and where each number comes from.

`report.html` is the template. Style and scripts are written into the page: it needs no network.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from results.analysis.alarms import without_alarms
from results.analysis.cells import coverage
from results.analysis.published import beside_published
from results.analysis.statistics import PRIMARY
from results.calibration import read_held
from results.metrics import METRICS
from results.reports import tables
from results.reports.numbers import counted
from results.reports.page.closer import Closer
from results.reports.page.first import compared, costs, first_view
from results.reports.page.gallery import embedded, telling_pair, within
from results.reports.page.provenance import cells
from results.reports.page.selectors import selectors
from results.reports.page.template import filled, written
from results.reports.page.training import kept_losses, training
from results.reports.page.words import WORDS
from results.reports.sections import Section, sections
from results.reports.text import alarm_table, notes
from results.table import read, read_scores

MOST_BYTES, PICTURE_BYTES = 23_000_000, 15_000_000
"""Bytes of a page's data, and of its pictures, at most; where there are more, each category shows
fewer."""
SCRIPTS = ("plot.js", "heat.js", "tables.js", "pictures.js", "closer.js", "report.js")


def page(out: Path, metrics: Sequence[str] = PRIMARY) -> str:
    """The report of an output folder as HTML; pairs are tested in `metrics`."""
    whole = read(out)
    frame = without_alarms(whole)
    found = [section for section in sections(frame, metrics=metrics) if section.done]
    scores, held = read_scores(out), read_held(out)
    alarms = [(section.title, alarm_table(section, whole, scores, held)) for section in found]
    losses = kept_losses(out)
    measured = {
        name: definition
        for name, definition in METRICS.items()
        if any(name in section.metrics for section in found)
    }
    runs = cells(frame)
    context = {
        "made": datetime.now(UTC),
        "folder": out.resolve().name,
        "heading": _heading(found) or out.resolve().name,
        "metrics": measured,
        "overview": {name: tables.overview(found, name) for name in measured},
        "sections": [
            _section(section) | {"training": [*training(section, losses)]} for section in found
        ],
        "selectors": selectors(out),
        "alarms": [(title, table) for title, table in alarms if table],
        "cells": runs,
        "words": WORDS,
    }
    data, shown = _data([Closer(section, out, scores) for section in found])
    data["traced"] = {key: rows for section in found for key, rows in section.traced().items()}
    data["cells"] = [run["cell_id"] for run in runs]
    return _rendered(context | shown | {"data": data})


def _heading(found: Sequence[Section]) -> str:
    """The data sets, how much of each there is where some is missing, and the methods."""
    missing = {section.benchmark: coverage(section.frame) for section in found}
    names = ", ".join(f"{name} ({less})" if less else name for name, less in missing.items())
    rows = {name for section in found for name in section.present}
    methods = {name for section in found for name in section.chosen["method"]}
    compared = f"{counted(len(methods), 'method')} compared"
    if len(rows) > len(methods):
        compared = f"{counted(len(methods), 'method')} in {len(rows)} rows compared"
    return f"{names}: {compared if len(rows) > 1 else ''.join(rows)}" if found else ""


def _section(section: Section) -> dict[str, Any]:
    """A section as the template shows it, by metric."""
    beside = beside_published(section.frame)
    return {
        "index": section.index,
        "title": section.title,
        "heading": section.heading,
        "compared": compared(section),
        "notes": list(notes(section)),
        "versions": tables.versions(section),
        "costs": tables.costs(section),
        "by_metric": {
            metric: {
                "first": first_view(section, metric),
                "methods": tables.methods(section, metric),
                "heat": tables.by_category(section, metric),
                "differences": tables.differences(
                    f"{metric}: pairs of methods",
                    "pair",
                    {f"{pair['a']} − {pair['b']}": pair for pair in section.pairs(metric)},
                ),
                "published": tables.published(section, metric, beside),
                "costs": [*costs(section, metric)][1:],  # the first is on the first screen
            }
            for metric in section.metrics
        },
    }


def _data(closers: Sequence[Closer]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The data that the page's script works on, and the words of the template about it."""
    images = {place: rows for closer in closers for place, rows in closer.images().items()}
    curves = {place: lines for closer in closers for place, lines in closer.curves().items()}
    pictures = [picture for closer in closers for picture in closer.pictures()]
    room = MOST_BYTES - len(json.dumps([images, curves]))
    shown, ranks_shown = within(pictures, min(PICTURE_BYTES, room))
    starts = {panel: start for closer in closers for panel, start in closer.starts.items()}
    blind = [panel for closer in closers for panel in closer.blind]
    telling = {panel: start for panel, start in starts.items() if panel not in blind}
    choices = [closer.choice() for closer in closers]
    data = {
        "choices": choices,
        "labels": closers[0].section.labels if closers else [],
        "images": images,
        "curves": curves,
        "starts": starts,
        "blind": blind,
        "held": [panel for closer in closers for panel in closer.held],
        "first": [
            telling_pair(shown, number, choice["ranked"], telling)
            for number, choice in enumerate(choices)
        ],
        **embedded(shown),
    }
    return data, {
        "choices": choices,
        "ranks_shown": ranks_shown,
        "dropped": len(pictures) - len(shown),
        "licences": [row for closer in closers for row in closer.licences()],
        "without_pictures": sum(len(closer.without_pictures) for closer in closers),
    }


def _rendered(context: dict[str, Any]) -> str:
    script = '"use strict";\n' + "\n".join(map(written, SCRIPTS))
    # Nothing but the page's own script may run, whatever a name holds.
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return filled("report.html", context | {"script": Markup(script), "script_sha256": allowed})
