"""Reports of the long result table as text: its summaries, and notes on what spoils them.

Names of methods, metrics and categories come from the rows alone, so a new one needs no edit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl

from results.analysis.alarms import alarms, without_alarms
from results.analysis.bootstrap import bootstrap
from results.analysis.cells import (
    GROUP,
    SECTION,
    coverage,
    label,
    labelled,
    one_cell_per_seed,
    title,
)
from results.analysis.published import beside_published
from results.analysis.statistics import pairwise
from results.analysis.summary import failures, per_category, summary
from results.calibration import ONE
from results.reports.latex import latex
from results.reports.layout import Cells, columns, csv_text, join_blocks
from results.reports.leader import leader
from results.reports.numbers import UNKNOWN, gibibytes, interval, number, percent
from results.reports.verdicts import beside, best_against_others
from results.table import DONE

BRIEF_WIDTH = 80
OF_SEVERAL = ("std (ddof 0)", "worst", "pooled")
"""What says nothing of a single category."""
MOST_TELLING = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
"""The metrics of a brief report that has no room for all, the most important first."""


def frames(
    frame: pl.DataFrame, scores: pl.DataFrame | None = None, held: pl.DataFrame | None = None
) -> dict[str, pl.DataFrame]:
    """All that reports are made of, as frames by name: for Python.

    summary, categories (`per_category` of each metric), pairs (`pairwise`), published
    (`beside_published`) and failures; the columns are those of the functions. With `read_scores`'s
    scores the summary has images_low and images_high, the bootstrap interval over seeds and images,
    and alarms (`alarms`) say how often they were seen.
    """
    whole, frame = frame, without_alarms(frame)
    metrics = frame["metric"].drop_nulls().unique(maintain_order=True)
    by_metric = [per_category(frame, name).with_columns(metric=pl.lit(name)) for name in metrics]
    return {
        "summary": _with_images(summary(frame), frame, scores),
        "categories": pl.concat(by_metric) if by_metric else pl.DataFrame(),
        "pairs": pairwise(frame),
        "published": beside_published(frame),
        "failures": failures(frame),
        "alarms": alarms(whole, scores, held) if scores is not None else pl.DataFrame(),
    }


def render(
    frame: pl.DataFrame,
    fmt: str,
    width: int = 120,
    scores: pl.DataFrame | None = None,
    held: pl.DataFrame | None = None,
    *,
    brief: bool = False,
    styled: bool = False,
) -> str:
    """The report as text: "terminal" (of a width in columns), "md", "latex", "csv" (the summary).

    In tables metrics are percentages with one decimal. With per-image scores means have a second
    interval, over seeds and images. A brief report, terminal or md, has one table a section, of at
    most BRIEF_WIDTH columns, and its notes. Raises ValueError for another format.
    """
    whole, frame = frame, without_alarms(frame)
    if fmt == "latex":
        return latex(frame)
    if fmt == "csv" or not brief:
        rows = _with_images(summary(frame), frame, scores)
    else:
        rows, width = summary(frame), min(width, BRIEF_WIDTH)
    if fmt == "csv":
        return csv_text(rows)
    blocks: list[list[str] | Cells] = []
    for key, section in rows.group_by(SECTION, maintain_order=True):
        part = frame.filter(**dict(zip(SECTION, key, strict=True)))
        blocks.append(
            [" · ".join(filter(None, (title(section.row(0, named=True)), coverage(part))))]
        )
        blocks += _brief(section, part, width) if brief else _full(section, part)
        if scores is not None:
            same = whole.filter(**dict(zip(SECTION, key, strict=True)))
            blocks += _alarm_table(same, scores, held)
    return join_blocks(blocks, fmt, width, styled=styled)


def _full(rows: pl.DataFrame, part: pl.DataFrame) -> Iterator[list[str] | Cells]:
    published, reasons = beside(part)
    yield from _summary_tables(rows)
    yield _cost_table(rows)
    yield from _category_tables(part)
    yield from best_against_others(part)
    yield from published
    yield [*notes(rows, part), *reasons]


def _brief(rows: pl.DataFrame, part: pl.DataFrame, width: int) -> Iterator[list[str] | Cells]:
    """A table with all metrics, or with as many of MOST_TELLING as fit; then the notes."""
    measured = rows.drop_nulls("mean")["metric"].unique(maintain_order=True).to_list()
    telling = [name for name in MOST_TELLING if name in measured] or measured
    fewer = [telling[:count] for count in range(len(telling), 0, -1)]
    tables = [_means_and_costs(rows, metrics) for metrics in (measured, *fewer)]
    yield next((table for table in tables if columns(table) <= width), tables[-1])
    if telling and len(rows.filter(pl.col("metric") == telling[0]).drop_nulls("mean")) > 1:
        yield textwrap.wrap(_verdict(rows, part, telling[0]), width)
    yield [*notes(rows, part)]


def _verdict(rows: pl.DataFrame, part: pl.DataFrame, metric: str) -> str:
    of = pl.col("metric") == metric
    return leader(
        metric, labelled(rows.filter(of)).to_dicts(), pairwise(part.filter(of)).to_dicts()
    ).sentence


def _means_and_costs(rows: pl.DataFrame, metrics: Sequence[str]) -> Cells:
    """A line a method, the best by the first metric first; the best of each metric stands out."""
    lines, means = [], []
    for group in _ranked(rows, metrics[0] if metrics else None):
        row = group.row(0, named=True)
        of_method = {mean["metric"]: mean for mean in group.to_dicts()}
        comparable = [of_method.get(name, {"complete": False}) for name in metrics]
        means.append([mean["mean"] if mean["complete"] else None for mean in comparable])
        costs = number(row["fit_seconds"]), number(row["images_per_second"])
        shown = [_mean(of_method[name]) if name in of_method else UNKNOWN for name in metrics]
        lines.append([label(row), *shown, str(group["seeds"].max()), *costs])
    best = {
        (number, column)
        for column, of_metric in enumerate(zip(*means, strict=True), 1)
        for number, mean in enumerate(of_metric)
        if len(lines) > 1 and mean is not None and mean == max(filter(None, of_metric), default=0)
    }
    kinds = sorted({name.partition("_")[0] for name in metrics}, reverse=True)
    what = f"{' and '.join(kinds)} metrics, %"
    what += ", mean over categories" if rows["expected"].max() != 1 else ""
    what += " (± std over seeds)" if rows["std"].count() else ""
    header = ["method", *metrics, "seeds", "fit s", "images/s"]
    return Cells(f"{what}; cost of one seed", header, lines, best=frozenset(best))


def _ranked(rows: pl.DataFrame, metric: str | None) -> list[pl.DataFrame]:
    """The rows of each method, the highest mean of the metric first; without one, last."""

    def key(group: pl.DataFrame) -> float:
        mean = group.filter(metric=metric)["mean"].max() if metric else None
        return -mean if isinstance(mean, float) else 1.0

    return sorted(rows.partition_by("method", "variant"), key=key)


def _with_images(
    rows: pl.DataFrame, frame: pl.DataFrame, scores: pl.DataFrame | None
) -> pl.DataFrame:
    if scores is None:
        return rows
    drawn = bootstrap(frame, scores).select(*GROUP, "metric", images_low="low", images_high="high")
    return rows.join(drawn, on=(*GROUP, "metric"), how="left", maintain_order="left")


def _summary_tables(rows: pl.DataFrame) -> Iterator[Cells]:
    """One table for each kind of metric, the word before its first underscore."""
    statistics: dict[str, Callable[[dict[str, Any]], str]] = {
        "mean": _mean,
        "95 %, seeds": lambda row: interval(row["low"], row["high"]),
        "95 %, images too": lambda row: interval(row.get("images_low"), row.get("images_high")),
        "std (ddof 0)": lambda row: percent(row["category_std"]),
        "worst": _worst,
        "pooled": lambda row: percent(row["pooled"], row["pooled_std"]),
    }
    measured = rows.drop_nulls("metric")
    kinds = measured["metric"].str.split("_").list.first()
    for (kind,), part in measured.with_columns(kind=kinds).group_by("kind", maintain_order=True):
        if part["mean"].null_count() == len(part):
            continue  # the notes say why
        metrics = part["metric"].unique(maintain_order=True).to_list()
        methods = [group.to_dicts() for group in _ranked(part, metrics[0])]
        single = part["expected"].max() == 1
        lines = [
            ["" if number else name, label(records[0]), *map(show, records)]
            for name, show in statistics.items()
            if not (single and name in OF_SEVERAL)
            if any(show(record) != UNKNOWN for records in methods for record in records)
            for number, records in enumerate(methods)
        ]
        caption = f"{kind} metrics, % (± std over seeds)"
        yield Cells(caption, ["categories", "method", *metrics], lines, names=2)


def _alarm_table(
    part: pl.DataFrame, scores: pl.DataFrame, held: pl.DataFrame | None
) -> Iterator[list[str] | Cells]:
    """False alarms as asked for, expected and seen, of the rows that have held-out images."""
    found = alarms(part, scores, held)
    if found.is_empty():
        return
    lines = [
        [
            label(row),
            "one for all" if row["threshold"] == ONE else "one each",
            percent(row["alpha"]),
            interval(row["expected_low"], row["expected_high"]),
            percent(row["false"]),
            interval(row["false_low"], row["false_high"]),
            percent(row["recall"]),
            interval(row["recall_low"], row["recall_high"]),
        ]
        for row in found.to_dicts()
    ]
    header = ["method", "threshold", "asked", "expected", "false alarms", "95 %", "recall", "95 %"]
    caption = "alarms of thresholds from held-out normal images, % of the test images"
    yield Cells(caption, header, lines, names=2)
    yield ["expected: 95 % of test images like the held-out ones; seen outside, they are others"]
    reasons = found["reason"].unique(maintain_order=True).to_list()
    if reasons := [reason for reason in reasons if reason]:
        yield [f"{UNKNOWN} {reason}" for reason in reasons]


def _cost_table(rows: pl.DataFrame) -> Cells:
    header = ["method", "seeds", "failed cells", "fit s", "images/s", "peak GiB"]
    lines = []
    for group in rows.partition_by("method", "variant"):
        row = group.row(0, named=True)
        counts = group["seeds"].max(), row["failed"]
        costs = row["fit_seconds"], row["images_per_second"], gibibytes(row["peak_memory_bytes"])
        lines.append([label(row), *map(str, counts), *map(number, costs)])
    return Cells("cost of one seed", header, lines)


def _category_tables(part: pl.DataFrame) -> Iterator[Cells]:
    measured = part.filter(pl.col("status") == DONE, pl.col("value").is_not_null())
    for metric in measured["metric"].unique(maintain_order=True):
        rows = per_category(part, metric).to_dicts()
        names = sorted({label(row) for row in rows})
        lines: dict[str, dict[str, str]] = {}
        for row in rows:
            cells = lines.setdefault(row["category"], dict.fromkeys(names, UNKNOWN))
            cells[label(row)] = percent(row["mean"], row["std"])
        body = [[category, *cells.values()] for category, cells in lines.items()]
        yield Cells(f"{metric} by category, % (± std over seeds)", ["category", *names], body)


def notes(rows: pl.DataFrame, part: pl.DataFrame) -> Iterator[str]:
    """What spoils the tables of one section, a line each; `rows` are its summary."""
    for row in rows.filter(~pl.col("complete"), pl.col("categories") > 0).to_dicts():
        covered = f"{row['categories']} of {row['expected']} categories"
        yield f"* {label(row)}, {row['metric']}: over {covered} only, not comparable"
    chosen = one_cell_per_seed(part)
    mixed = chosen.filter(pl.col("precision").n_unique().over(GROUP) > 1)
    for row in mixed.group_by(GROUP, maintain_order=True).agg(pl.col("precision")).to_dicts():
        formats = sorted({str(name or "unknown") for name in row["precision"]})
        yield f"{label(row)}: seeds of unlike number formats are averaged: {', '.join(formats)}"
    undefined = (
        chosen.filter(pl.col("value").is_null())
        .group_by("reason")
        .agg(pl.col("metric", "category").unique(maintain_order=True))
    )
    for reason, metrics, categories in undefined.sort("reason").iter_rows():
        yield f"{UNKNOWN} {', '.join(metrics)} of {', '.join(sorted(categories))}: {reason}"
    for row in failures(part).to_dicts():
        error = row["error"] or "no message"
        yield f"{row['status']}: {label(row)}, seed {row['seed']}: {error.splitlines()[0]}"
    hidden = part.filter(pl.col("status") == DONE)["cell_id"].n_unique()
    if hidden := hidden - chosen["cell_id"].n_unique():
        yield f"{hidden} finished cells not shown: broader or newer ones have the same seed"


def _mean(row: dict[str, Any]) -> str:
    mark = "" if row["complete"] or row["mean"] is None else " *"
    return percent(row["mean"], row["std"]) + mark


def _worst(row: dict[str, Any]) -> str:
    return percent(row["worst"]) + (f" {row['worst_category']}" if row["worst_category"] else "")
