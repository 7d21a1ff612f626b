"""The tables of a report: one builder of each, whatever renders it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import polars as pl

from results.analysis.cells import label, labelled
from results.analysis.published import MEAN as AVERAGE
from results.calibration import ONE
from results.identity import POOLED
from results.reports.model import BEST, WORDS, Entry, Table
from results.reports.numbers import (
    UNKNOWN,
    counted,
    interval,
    number,
    p_value,
    percent,
    points,
    spread,
)
from results.reports.sections import MEAN, Section


def overview(sections: Sequence[Section], metric: str) -> Table:
    """Methods x data sets: the means over categories."""
    measured = [section for section in sections if metric in section.metrics]
    names = sorted({name for section in measured for name in section.present})
    columns = [[_mean(section, metric, name) for name in names] for section in measured]
    rows = [*zip(map(Entry, names), *columns, strict=True)]
    title = f"{metric}, mean over categories, % (± std over seeds)"
    return Table(title, ["method", *(section.title for section in measured)], rows)


def means(section: Section, metrics: Sequence[str]) -> Table:
    """The means of each method in several metrics and its cost, the best by the first on top."""
    names = section.ranked(metrics[0]) if metrics else []
    costs = _of_methods(section)
    names += sorted(costs.keys() - set(names))
    columns = [[_mean(section, metric, name) for name in names] for metric in metrics]
    columns += [
        [Entry(str(costs[name]["seeds"])) for name in names],
        [_cost(costs[name]["fit_seconds"]) for name in names],
        [_cost(costs[name]["images_per_second"]) for name in names],
    ]
    kinds = sorted({name.partition("_")[0] for name in metrics}, reverse=True)
    title = f"{' and '.join(kinds)} metrics, %" + ("" if section.single else f", {MEAN}")
    title += " (± std over seeds)" if section.summary["std"].count() else ""
    rows = [*zip(map(Entry, names), *columns, strict=True)]
    header = ["method", *metrics, "seeds", "fit s", "images/s"]
    return Table(f"{title}; cost of one seed", header, rows)


def methods(section: Section, metric: str) -> Table:
    """Every summary of each method in one metric, as far as there is one, the best on top."""
    rows = [row for name in section.ranked(metric) if (row := section.row(metric, name))]

    def intervals(low: str, high: str) -> list[Entry]:
        return [Entry(interval(row.get(low), row.get(high)), sort=row.get(low)) for row in rows]

    columns = {
        "mean": [_mean(section, metric, row["label"]) for row in rows],
        "95 %, seeds": intervals("low", "high"),
        "95 %, images too": intervals("images_low", "images_high"),
    }
    if not section.single:
        columns |= {
            "category std": [_percent(row["category_std"]) for row in rows],
            "worst": [
                _traced(section, metric, worst, row["label"], row["worst"], worst)
                for row in rows
                if (worst := row["worst_category"])
            ],
            "pooled": [
                _traced(
                    section, metric, POOLED, row["label"], row["pooled"], spread(row["pooled_std"])
                )
                for row in rows
            ],
        }
    columns["seeds"] = [Entry(str(row["seeds"]), sort=row["seeds"]) for row in rows]
    backbones = [section.backbones.get(row["label"], UNKNOWN) for row in rows]
    columns["backbone"] = [Entry(name, mark=WORDS) for name in backbones]
    known = {name: c for name, c in columns.items() if any(e.text != UNKNOWN for e in c)}
    names = [Entry(row["label"]) for row in rows]
    title = f"{metric}, %{'' if section.single else f', {MEAN}'} (± std over seeds)"
    return Table(title, ["method", *known], [*zip(names, *known.values(), strict=True)])


def costs(section: Section) -> Table:
    """Seconds, speed and memory of one seed of each method, and how many of its cells failed."""
    rows = [
        [
            Entry(name),
            *(Entry(str(row[count]), sort=row[count]) for count in ("seeds", "failed")),
            _cost(row["fit_seconds"]),
            _cost(row["images_per_second"]),
            _cost(row["peak_memory_bytes"], 2**30),
        ]
        for name, row in _of_methods(section).items()
    ]
    header = ["method", "seeds", "failed cells", "fit s", "images/s", "peak GiB"]
    return Table("cost of one seed", header, rows)


def by_category(section: Section, metric: str) -> Table:
    """Categories x methods, with how high a value lies between the lowest and 100 %."""
    summaries = {(r["category"], r["label"]): r for r in section.by_category(metric).to_dicts()}
    known = [row["mean"] for row in summaries.values() if row["mean"] is not None]
    low = min(known, default=0.0)
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
            rows.append([Entry(category, category=link), *entries])
    title = f"{metric} by category, % (± std over seeds)"
    return Table(title, ["category", *section.present], rows)


def differences(
    title: str,
    first: str,
    pairs: Mapping[str, Mapping[str, Any]],
    over_images: Mapping[str, Mapping[str, Any]] | None = None,
) -> Table | None:
    """Is the difference real? A line for each pair (a row of `pairwise`) by its name.

    `first` is the name of the names. With `over_images`, rows of `gaps_over_images` by name too,
    the pairs are those of `compare`, which have two p-values.
    """
    lines = []
    for name, pair in pairs.items():
        tested = pair["p_holm"] is not None
        chances = (percent(pair[name], decimals=0) for name in ("better", "equal", "worse"))
        line = [
            Entry(name),
            Entry(points(pair["difference"]), sort=pair["difference"]),
            _gap(pair),
            Entry(p_value(pair["p_holm"]), sort=pair["p_holm"]) if tested else Entry(),
            Entry(" / ".join(chances), sort=pair["better"]) if tested else Entry(),
            Entry(pair["verdict"], mark=WORDS),
        ]
        if over_images is not None:
            line.insert(3, _gap(over_images.get(name, {})))
            line.insert(4, Entry(p_value(pair["p_value"])) if tested else Entry())
        lines.append(line)
    header = [first, "points", "another training", "another product, p"]
    header += ["better / equal / worse", "verdict"]
    if over_images is not None:
        header[3:4] = ["another test set", "another product, p", "p in the whole table"]
    return Table(title, header, lines) if lines else None


def published(section: Section, metric: str, rows: pl.DataFrame) -> Table | None:
    """Ours beside published numbers (rows of `beside_published`), as far as comparable."""
    shown = []
    of_metric = rows.filter(pl.col("verdict").is_not_null(), metric=metric)
    for row in of_metric.to_dicts():
        category = MEAN if row["category"] == AVERAGE else row["category"]
        shown.append(
            [
                Entry(label(row)),
                Entry(row["category"], mark=WORDS),
                Entry(source(row), mark=WORDS),
                _traced(section, metric, category, label(row), row["mean"]),
                Entry(percent(row["value"]), spread(row["std"]), sort=row["value"]),
                Entry(points(row["difference"]), sort=row["difference"]),
                Entry(row["verdict"], mark=WORDS),
            ]
        )
    header = ["method", "category", "source", "ours", "theirs", "points", "verdict"]
    return Table(f"{metric}, %, beside published numbers", header, shown, 3) if shown else None


def source(row: Mapping[str, Any]) -> str:
    """The publisher of the number of a row of `beside_published`."""
    epochs = f", {row['epochs']} epochs" if row["epochs"] else ""
    names = {"paper": "the paper", "ader": f"ADer{epochs}", "authors": f"its authors{epochs}"}
    return names[row["source"]]


def alarms(rows: pl.DataFrame) -> Table | None:
    """Alarms asked for, expected and seen, of rows of `alarms.alarms`; None without any."""

    def rate(row: dict[str, Any], name: str) -> Entry:
        if row[name] is None:
            return Entry()
        ends = interval(row[f"{name}_low"], row[f"{name}_high"])
        return Entry(percent(row[name]), f"({ends})", sort=row[name])

    if rows.is_empty():
        return None
    body = [
        [
            Entry(label(row)),
            Entry("one for all" if row["threshold"] == ONE else "one each", mark=WORDS),
            _percent(row["alpha"]),
            Entry(interval(row["expected_low"], row["expected_high"]), sort=row["expected_high"]),
            rate(row, "false"),
            rate(row, "recall"),
        ]
        for row in rows.to_dicts()
    ]
    header = ["method", "threshold", "asked", "expected", "false alarms seen", "recall"]
    reasons = [reason for reason in rows["reason"].unique(maintain_order=True) if reason]
    notes = ["in brackets 95 % intervals; expected: 95 % of test images like the held-out ones"]
    notes += [f"{UNKNOWN} {reason}" for reason in reasons]
    title = "alarms of thresholds from held-out normal images, % of the test images"
    return Table(title, header, body, 2, notes)


def agreement(rows: Sequence[Mapping[str, Any]]) -> Table:
    """How pseudo-validation and the test split agree, of rows of `selection.agreement`."""
    shown: dict[str, tuple[str, Callable[[Any], str]]] = {
        "Spearman": ("spearman", partial(number, decimals=2)),
        "best, %": ("best", percent),
        "chosen, %": ("chosen", percent),
        "regret": ("regret", number),
        "rank": ("rank", str),
    }
    body = [
        [
            Entry(row["family"]),
            Entry(row["category"]),
            *(Entry(show(row[name]), sort=row[name]) for name, show in shown.values()),
        ]
        for row in rows
    ]
    header = ["family", "category", *shown]
    title = f"pseudo-validation against the test split, {counted(rows[0]['settings'], 'setting')}"
    return Table(title, header, body, 2)


def regrets(rows: Sequence[Mapping[str, Any]]) -> Table:
    """How far a choice and others fall short of the best, of rows of `selection.regrets`."""
    body = [
        [
            Entry(row["setting"]),
            Entry(percent(row["test"]), sort=row["test"]),
            Entry(percent(row["regret"]), spread(row["spread"]), sort=row["regret"]),
        ]
        for row in rows
    ]
    title = f"regret on the test split, points, {counted(rows[0]['seeds'], 'seed')}"
    return Table(title, ["setting", "test, %", "regret"], body)


def versions(section: Section) -> Table | None:
    """Names that `#` and a hash tell apart, each with what its rows differ in; None without any."""
    data = pl.lit(section.title.partition(" · ")[0])
    rows = labelled(section.frame).sort("label")
    both = rows.select(name=data, note="data_note"), rows.select(name="label", note="variant_note")
    told = pl.concat(both).filter(pl.col("note") != "").unique(maintain_order=True)
    # One model a category: each category may differ in something else.
    names = told.group_by("name", maintain_order=True).agg(pl.col("note").str.join(" | "))
    body = [[Entry(name), Entry(note, mark=WORDS)] for name, note in names.iter_rows()]
    return Table("versions of one name", ["name", "differs in"], body) if body else None


def _of_methods(section: Section) -> dict[str, dict[str, Any]]:
    """The costs, seeds and failures of each method."""
    costs = ("failed", "fit_seconds", "images_per_second", "peak_memory_bytes")
    rows = section.summary.group_by("label", maintain_order=True).agg(
        pl.col("seeds").max(), pl.col(costs).first()
    )
    return {row["label"]: row for row in rows.to_dicts()}


def _mean(section: Section, metric: str, name: str) -> Entry:
    row = section.row(metric, name)
    if row is None or row["mean"] is None:
        return Entry()
    covered = f"{row['categories']} of {row['expected']} categories"
    entry = _traced(section, metric, MEAN, name, row["mean"], spread(row["std"]))
    mark = BEST if name == section.told(metric) else ""
    return replace(entry, mark=mark, note="" if row["complete"] else covered)


def _traced(
    section: Section,
    metric: str,
    category: str,
    name: str,
    value: float | None,
    small: str = "",
) -> Entry:
    """A fraction in percent whose seeds and cells the page can show."""
    if value is None:
        return Entry()
    return Entry(percent(value), small, sort=value, key=section.key(metric, category, name))


def _percent(fraction: float | None) -> Entry:
    return Entry(percent(fraction), sort=fraction)


def _gap(row: Mapping[str, Any]) -> Entry:
    """The interval of a difference, in points."""
    return Entry(interval(row.get("low"), row.get("high"), points), sort=row.get("low"))


def _cost(value: float | None, unit: float = 1) -> Entry:
    return Entry() if value is None else Entry(number(value / unit), sort=value)
