"""The tables of the page, as entries that the template writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from results.analysis.cells import label
from results.analysis.equivalence import ROPE
from results.analysis.published import MEAN as AVERAGE
from results.calibration import ONE
from results.identity import POOLED
from results.reports.numbers import (
    UNKNOWN,
    gibibytes,
    interval,
    number,
    p_value,
    percent,
    points,
    spread,
)
from results.reports.page.sections import MEAN, Section


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One cell of a table."""

    text: str
    small: str = ""  # written small behind the text
    sort: float | str | None = None  # what a column is sorted by
    key: str = ""  # of a number whose source a click shows: `Section.key`
    heat: float | None = None  # 0 at the table's lowest value, 1 at 100 %
    mark: str = ""  # a class of the style sheet
    category: str = ""  # which a click opens under "One category"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A caption, a header, and rows whose first entry names them."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]


def overview(sections: Sequence[Section], metric: str) -> Table:
    """Methods x data sets: means over categories."""
    measured = [section for section in sections if metric in section.metrics]
    names = [name for name in sections[0].labels if any(name in s.present for s in measured)]
    columns = [_best([_mean(section, metric, name) for name in names]) for section in measured]
    rows = zip([Entry(text=name) for name in names], *columns, strict=True)
    caption = f"{metric}, mean over categories, % (± std over seeds)"
    return Table(caption=caption, header=["method", *(s.title for s in measured)], rows=list(rows))


def methods(section: Section, metric: str) -> Table:
    """Every summary of each method in one metric, and its cost."""
    header = ["method", "mean", "95 % interval", "std over categories", "worst category"]
    header += ["pooled", "seeds", "images/s", "peak GiB", "fit s"]
    names = section.ranked(metric)
    means = _best([_mean(section, metric, name) for name in names])
    rows = []
    for name, mean in zip(names, means, strict=True):
        row = section.row(metric, name)
        assert row is not None
        low, worst = row["low"], row["worst_category"]
        rows.append(
            [
                Entry(text=name),
                mean,
                Entry(text=interval(low, row["high"]), sort=low),
                Entry(text=percent(row["category_std"]), sort=row["category_std"]),
                _traced(section, metric, worst, name, row["worst"], worst),
                _traced(section, metric, POOLED, name, row["pooled"], spread(row["pooled_std"])),
                Entry(text=str(row["seeds"]), sort=row["seeds"]),
                _cost(row["images_per_second"]),
                _cost(gibibytes(row["peak_memory_bytes"])),
                _cost(row["fit_seconds"]),
            ]
        )
    return Table(caption=f"{metric}, %, and the cost of one seed", header=header, rows=rows)


def by_category(section: Section, metric: str) -> Table:
    """Categories x methods, coloured by value."""
    summaries = {(r["category"], r["label"]): r for r in section.by_category(metric).to_dicts()}
    low = min(row["mean"] for row in summaries.values() if row["mean"] is not None)
    span = max(1 - low, 1e-9)
    rows = []
    for category in [*section.categories, POOLED]:
        entries = []
        for name in section.present:
            row = summaries.get((category, name), {"mean": None, "std": None})
            entry = _traced(section, metric, category, name, row["mean"], spread(row["std"]))
            heat = None if row["mean"] is None else (row["mean"] - low) / span
            entries.append(replace(entry, heat=heat))
        if any(entry.heat is not None for entry in entries):
            link = "" if category == POOLED else category
            rows.append([Entry(text=category, category=link), *_best(entries)])
    caption = f"{metric} by category, % (± std over seeds)"
    return Table(caption=caption, header=["category", *section.present], rows=rows)


def ablation(section: Section, metric: str) -> Table | None:
    """How far the mean of each variant lies from that of the method itself, in points."""
    pairs = section.summary.select("method", "variant", "label").unique(maintain_order=True)
    rows = []
    for method, variant, name in pairs.sort("method", "variant").iter_rows():
        base, mine = section.row(metric, method), section.row(metric, name)
        if not variant or not base or not mine or None in (base["mean"], mine["mean"]):
            continue
        gap = mine["mean"] - base["mean"]
        speed = mine["images_per_second"], base["images_per_second"]
        ratio = speed[0] / speed[1] if all(speed) else None
        rows.append(
            [
                Entry(text=name),
                _mean(section, metric, name),
                _mean(section, metric, method),
                Entry(text=points(gap), sort=100 * gap),
                Entry(text=UNKNOWN if ratio is None else f"{ratio:.2f} ×", sort=ratio),
            ]
        )
    header = ["variant", "its mean", "the method's", "difference, points", "images/s"]
    caption = f"{metric}: variants beside their method"
    return Table(caption=caption, header=header, rows=rows) if rows else None


def differences(section: Section, metric: str) -> Table | None:
    """Each pair of methods: is the difference real?"""
    rows = [
        [
            Entry(text=f"{pair['a']} − {pair['b']}"),
            Entry(text=points(pair["difference"]), sort=pair["difference"]),
            Entry(text=interval(pair["low"], pair["high"], points), sort=pair["low"]),
            Entry(text=p_value(pair["p_holm"]), sort=pair["p_holm"]),
            *(
                Entry(text=f"{percent(pair[name], decimals=0)} %", sort=pair[name])
                for name in ("better", "equal", "worse")
            ),
            Entry(text=pair["verdict"], mark="words"),
        ]
        for pair in section.pairs(metric)
        if pair["difference"] is not None
    ]
    header = ["pair", "points", "another training", "another product, p (Holm)"]
    header += ["better", f"within {100 * ROPE:g}", "worse", "verdict"]
    caption = f"{metric}: pairs of methods; another product: signed-rank tests over categories"
    return Table(caption=caption, header=header, rows=rows) if rows else None


def published(section: Section, beside: pl.DataFrame, metric: str) -> Table | None:
    """Ours beside the paper's and ADer's numbers; None where none has the same protocol."""
    rows = beside.filter(pl.col("metric") == metric, pl.col("verdict").is_not_null())
    shown = []
    for row in rows.to_dicts():
        name, category = label(row), MEAN if row["category"] == AVERAGE else row["category"]
        epochs = f"{row['epochs']} epochs" if row["epochs"] else ""
        shown.append(
            [
                Entry(text=name),
                Entry(text=row["category"], mark="words"),
                Entry(text=row["source"], small=epochs, mark="words"),
                _traced(section, metric, category, name, row["mean"], ""),
                Entry(text=percent(row["value"]), small=spread(row["std"]), sort=row["value"]),
                Entry(text=points(row["difference"]), sort=row["difference"]),
                Entry(text=row["verdict"], mark="words"),
            ]
        )
    header = ["method", "category", "source", "ours", "theirs", "points", "verdict"]
    caption = f"{metric}, %, beside published numbers"
    return Table(caption=caption, header=header, rows=shown) if shown else None


def _mean(section: Section, metric: str, name: str) -> Entry:
    row = section.row(metric, name)
    if row is None or row["mean"] is None:
        return Entry(text=UNKNOWN)
    entry = _traced(section, metric, MEAN, name, row["mean"], spread(row["std"]))
    if row["complete"]:
        return entry
    covered = f"{row['categories']} of {row['expected']} categories"
    return replace(entry, small=covered, mark="incomplete")


def _traced(
    section: Section, metric: str, category: str | None, name: str, value: float | None, small: str
) -> Entry:
    if value is None or category is None:
        return Entry(text=UNKNOWN)
    key = section.key(metric, category, name)
    return Entry(text=percent(value), small=small, sort=value, key=key)


def _best(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with the highest of those that may be compared marked."""
    values = [entry.sort for entry in entries if not entry.mark and isinstance(entry.sort, float)]
    if len(values) < 2:
        return [*entries]
    marks = [entry.mark or ("best" if entry.sort == max(values) else "") for entry in entries]
    return [replace(entry, mark=mark) for entry, mark in zip(entries, marks, strict=True)]


def _cost(value: float | None) -> Entry:
    return Entry(text=number(value), sort=value)


def alarms(rows: Sequence[dict[str, Any]]) -> Table | None:
    """What thresholds of held-out images promise and do, from rows of `alarms.alarms`."""

    def rate(row: dict[str, Any], name: str) -> Entry:
        if row[name] is None:
            return Entry(text=UNKNOWN, small=row["reason"], mark="words")
        ends = interval(row[f"{name}_low"], row[f"{name}_high"])
        return Entry(text=percent(row[name]), small=f"({ends})", sort=row[name])

    body = [
        [
            Entry(text=label(row)),
            Entry(text="one for all" if row["threshold"] == ONE else "one each", mark="words"),
            Entry(text=percent(row["alpha"]), sort=row["alpha"]),
            Entry(
                text=interval(row["expected_low"], row["expected_high"]), sort=row["expected_high"]
            ),
            rate(row, "false"),
            rate(row, "recall"),
        ]
        for row in rows
    ]
    header = ["method", "threshold", "asked", "expected", "false alarms seen", "recall"]
    caption = "alarms of thresholds from held-out normal images, % of the test images"
    return Table(caption=caption, header=header, rows=body) if body else None
