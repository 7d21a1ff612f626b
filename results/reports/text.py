"""Reports over the long result table: its summaries as text, and what spoils them.

Names of methods, metrics and categories come from the rows alone, so a new one needs no edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import polars as pl

from results.analysis.bootstrap import bootstrap
from results.analysis.cells import GROUP, SECTION, label, one_cell_per_seed, title
from results.analysis.published import beside_published
from results.analysis.ranks import ranks
from results.analysis.statistics import pairwise
from results.analysis.summary import failures, per_category, summary
from results.reports.latex import latex
from results.reports.layout import Cells, csv_text, join_blocks
from results.reports.verdicts import MISSING, beside, best_against_others
from results.table import DONE


def frames(frame: pl.DataFrame, scores: pl.DataFrame | None = None) -> dict[str, pl.DataFrame]:
    """What reports say, as polars frames by name, from `table.read`'s frame and `read_scores`'s.

    summary, categories, pairs, ranks, published and failures; see the functions of these files
    for their columns. With scores the summary has images_low and images_high, the bootstrap
    interval over seeds and images.
    """
    metrics = frame["metric"].drop_nulls().unique(maintain_order=True)
    by_metric = [per_category(frame, name).with_columns(metric=pl.lit(name)) for name in metrics]
    return {
        "summary": _with_images(summary(frame), frame, scores),
        "categories": pl.concat(by_metric) if by_metric else pl.DataFrame(),
        "pairs": pairwise(frame),
        "ranks": ranks(frame),
        "published": beside_published(frame),
        "failures": failures(frame),
    }


def render(
    frame: pl.DataFrame, fmt: str, width: int = 120, scores: pl.DataFrame | None = None
) -> str:
    """The report as text: "terminal" (of a width in columns), "md", "latex", "csv" (the summary).

    In tables metrics are percentages with one decimal. With per-image scores means have a second
    interval, over seeds and images. Raises ValueError for another format.
    """
    if fmt == "latex":
        return latex(frame)
    found = _with_images(summary(frame), frame, scores)
    if fmt == "csv":
        return csv_text(found)
    blocks: list[list[str] | Cells] = []
    for key, rows in found.group_by(SECTION, maintain_order=True):
        part = frame.filter(**dict(zip(SECTION, key, strict=True)))
        blocks.append([title(rows.row(0, named=True))])
        blocks += _summary_tables(rows)
        blocks.append(_cost_table(rows))
        blocks += _category_tables(part)
        blocks += best_against_others(part)
        published, reasons = beside(part)
        blocks += published
        blocks.append([*notes(rows, part), *reasons])
    return join_blocks(blocks, fmt, width)


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
        "95 %, seeds": lambda row: _range(row["low"], row["high"]),
        "95 %, images too": lambda row: _range(row.get("images_low"), row.get("images_high")),
        "std (ddof 0)": lambda row: _percent(row["category_std"]),
        "worst": _worst,
        "pooled": lambda row: _percent(row["pooled"], row["pooled_std"]),
    }
    measured = rows.drop_nulls("metric")
    kinds = measured["metric"].str.split("_").list.first()
    for (kind,), part in measured.with_columns(kind=kinds).group_by("kind", maintain_order=True):
        if part["mean"].null_count() == len(part):
            continue  # the notes say why
        metrics = part["metric"].unique(maintain_order=True).to_list()
        methods = [g.to_dicts() for g in part.partition_by("method", "variant")]
        lines = [
            ["" if number else name, label(records[0]), *map(show, records)]
            for name, show in statistics.items()
            if any(show(record) != MISSING for records in methods for record in records)
            for number, records in enumerate(methods)
        ]
        caption = f"{kind} metrics, % (± std over seeds)"
        yield Cells(caption, ["categories", "method", *metrics], lines, names=2)


def _cost_table(rows: pl.DataFrame) -> Cells:
    header = ["method", "seeds", "failed cells", "fit s", "images/s", "peak GiB"]
    lines = []
    for _, group in rows.group_by("method", "variant", maintain_order=True):
        first = group.row(0, named=True)
        memory = first["peak_memory_bytes"]
        lines.append(
            [
                label(first),
                str(group["seeds"].max()),
                str(first["failed"]),
                _number(first["fit_seconds"]),
                _number(first["images_per_second"]),
                _number(None if memory is None else memory / 2**30),
            ]
        )
    return Cells("cost of one seed", header, lines)


def _category_tables(part: pl.DataFrame) -> Iterator[Cells]:
    measured = part.filter(pl.col("status") == DONE, pl.col("value").is_not_null())
    for metric in measured["metric"].unique(maintain_order=True):
        rows = per_category(part, metric).to_dicts()
        names = sorted({label(row) for row in rows})
        lines: dict[str, dict[str, str]] = {}
        for row in rows:
            cells = lines.setdefault(row["category"], dict.fromkeys(names, MISSING))
            cells[label(row)] = _percent(row["mean"], row["std"])
        body = [[category, *cells.values()] for category, cells in lines.items()]
        yield Cells(f"{metric} by category, % (± std over seeds)", ["category", *names], body)


def notes(rows: pl.DataFrame, part: pl.DataFrame) -> Iterator[str]:
    """What spoils the tables of one section, whose summary is `rows`: one line each."""
    for row in rows.filter(~pl.col("complete"), pl.col("categories") > 0).to_dicts():
        covered = f"{row['categories']} of {row['expected']} categories"
        yield f"* {label(row)}, {row['metric']}: over {covered} only, not comparable"
    chosen = one_cell_per_seed(part)
    undefined = (
        chosen.filter(pl.col("value").is_null())
        .group_by("reason")
        .agg(pl.col("metric", "category").unique(maintain_order=True))
    )
    for reason, metrics, categories in undefined.sort("reason").iter_rows():
        yield f"{MISSING} {', '.join(metrics)} of {', '.join(sorted(categories))}: {reason}"
    for row in failures(part).to_dicts():
        yield f"{row['status']}: {label(row)}, seed {row['seed']}: {_first_line(row['error'])}"
    hidden = part.filter(pl.col("status") == DONE)["cell_id"].n_unique()
    if hidden := hidden - chosen["cell_id"].n_unique():
        yield f"{hidden} finished cells not shown: broader or newer ones have the same seed"


def _first_line(text: str | None) -> str:
    return text.splitlines()[0] if text else "no message"


def _mean(row: dict[str, Any]) -> str:
    return _percent(row["mean"], row["std"]) + (
        "" if row["complete"] or row["mean"] is None else " *"
    )


def _worst(row: dict[str, Any]) -> str:
    return _percent(row["worst"]) + (f" {row['worst_category']}" if row["worst_category"] else "")


def _percent(value: float | None, std: float | None = None) -> str:
    if value is None:
        return MISSING
    return f"{100 * value:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def _range(low: float | None, high: float | None) -> str:
    return MISSING if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}"
