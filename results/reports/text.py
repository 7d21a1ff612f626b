"""Reports of the long result table as text: its tables, and notes on what spoils them.

Names of methods, metrics and categories come from the rows alone, so a new one needs no edit.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

import polars as pl

from results.analysis.alarms import alarms, without_alarms
from results.analysis.cells import GROUP, SECTION, label, undefined
from results.analysis.images import with_images
from results.analysis.published import MEAN, beside_published
from results.analysis.statistics import PRIMARY, pairwise
from results.analysis.summary import failures, per_category
from results.reports import tables
from results.reports.latex import latex
from results.reports.layout import Block, columns, csv_text, join_blocks
from results.reports.leader import leader
from results.reports.model import Table
from results.reports.numbers import UNKNOWN
from results.reports.sections import Section, sections
from results.reports.verdicts import best_against_others
from results.table import DONE

BRIEF_WIDTH = 80
MOST_TELLING = ("image_auroc", "image_ap", "pixel_auroc", "pixel_aupro")
"""The metrics of a brief report that has no room for all, the most important first."""


def frames(
    frame: pl.DataFrame,
    scores: pl.DataFrame | None = None,
    held: pl.DataFrame | None = None,
    metrics: Sequence[str] = PRIMARY,
) -> dict[str, pl.DataFrame]:
    """All that reports are made of, as frames by name: for Python.

    summary, categories (`per_category` of each metric), pairs (`pairwise`), published
    (`beside_published`) and failures; the columns are those of the functions. With `read_scores`'s
    scores the summary has images_low and images_high, an interval over seeds and images,
    and alarms (`alarms`) say how often they were seen.
    """
    whole, frame = frame, without_alarms(frame)
    measured = frame["metric"].drop_nulls().unique(maintain_order=True)
    by_metric = [per_category(frame, name).with_columns(metric=pl.lit(name)) for name in measured]
    return {
        "summary": with_images(frame, scores),
        "categories": pl.concat(by_metric) if by_metric else pl.DataFrame(),
        "pairs": pairwise(frame, metrics),
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
    metrics: Sequence[str] = PRIMARY,
    brief: bool = False,
    styled: bool = False,
) -> str:
    """The report as text: "terminal" (of a width in columns), "md", "latex", "csv" (the summary).

    In tables metrics are percentages with one decimal. With per-image scores means have a second
    interval, over seeds and images. Pairs are tested in `metrics`. A brief report, terminal or md,
    has one table a section, of at most BRIEF_WIDTH columns, and its notes. Raises ValueError for
    another format.
    """
    whole, frame = frame, without_alarms(frame)
    if fmt == "csv":
        return csv_text(with_images(frame, scores))
    brief = brief and fmt != "latex"
    width = min(width, BRIEF_WIDTH) if brief else width
    blocks: dict[str, list[Block]] = {}
    for section in sections(frame, None if brief else scores, metrics):
        found = [*_brief(section, width)] if brief else [*_full(section, metrics)]
        if scores is not None:
            found.append(alarm_table(section, whole, scores, held))
        title = f"{section.heading} · {section.seeds}" if fmt == "latex" else section.heading
        blocks[title] = [block for block in found if block]
    if fmt == "latex":
        return latex(blocks)
    lines = [
        block
        for heading, of_section in blocks.items()
        for block in (textwrap.wrap(heading, width), *of_section)
    ]
    return join_blocks(lines, fmt, width, styled=styled)


def alarm_table(
    section: Section, whole: pl.DataFrame, scores: pl.DataFrame, held: pl.DataFrame | None
) -> Table | None:
    """Alarms asked for and seen in a section of the `whole` frame; None without any."""
    same = whole.filter(pl.col(name) == section.frame[name][0] for name in SECTION)
    return tables.alarms(alarms(same, scores, held))


def _full(section: Section, tested: Sequence[str]) -> Iterator[Block | None]:
    beside = beside_published(section.frame).filter(category=MEAN)
    yield tables.versions(section)
    for metric in section.metrics:
        yield tables.methods(section, metric)
    yield tables.costs(section)
    for metric in section.metrics:
        yield tables.by_category(section, metric)
    for metric in tested:
        yield best_against_others(section, metric)
    for metric in section.metrics:
        yield tables.published(section, metric, beside)
    yield [*notes(section), *_not_comparable(beside)]


def _not_comparable(beside: pl.DataFrame) -> list[str]:
    """Reasons why means stand beside no published ones, a line a row and source."""
    rows = beside.filter(pl.col("verdict").is_null()).unique(
        ["method", "variant", "source", "reason"], keep="first", maintain_order=True
    )
    return [
        f"{label(row)} is not beside {tables.source(row)}: {row['reason']}"
        for row in rows.to_dicts()
    ]


def _brief(section: Section, width: int) -> Iterator[Block | None]:
    """A table with all metrics, or with as many of MOST_TELLING as fit; then the notes."""
    measured = section.metrics
    telling = [name for name in MOST_TELLING if name in measured] or measured
    fewer = [telling[:count] for count in range(len(telling), 0, -1)]
    found = [tables.means(section, metrics) for metrics in (measured, *fewer)]
    yield next((table for table in found if columns(table) <= width), found[-1])
    if telling and len(section.ranked(telling[0])) > 1:
        verdict = leader(telling[0], section.rows_of(telling[0]), section.pairs(telling[0]))
        yield textwrap.wrap(verdict.sentence, width)
    yield tables.versions(section)
    yield textwrap.wrap(_backbones(section), width)
    yield [*notes(section)]


def _backbones(section: Section) -> str:
    """Which methods stand on which backbone; nothing where all share one."""
    on = section.backbones
    names = {b: ", ".join(name for name in on if on[name] == b) for b in sorted({*on.values()})}
    said = "; ".join(f"{backbone}: {methods}" for backbone, methods in names.items())
    return said and f"backbone {said}"


def notes(section: Section) -> Iterator[str]:
    """Lines on what spoils the tables of one section."""
    for row in section.summary.filter(~pl.col("complete"), pl.col("categories") > 0).to_dicts():
        covered = f"{row['categories']} of {row['expected']} categories"
        yield f"* {label(row)}, {row['metric']}: over {covered} only, not comparable"
    chosen = section.chosen
    mixed = chosen.filter(pl.col("precision").n_unique().over(GROUP) > 1)
    for row in mixed.group_by(GROUP, maintain_order=True).agg(pl.col("precision")).to_dicts():
        formats = sorted({str(name or "unknown") for name in row["precision"]})
        yield f"{label(row)}: seeds of unlike number formats are averaged: {', '.join(formats)}"
    yield from (f"{UNKNOWN} {line}" for line in undefined(section.frame))
    for row in failures(section.frame).to_dicts():
        error = row["error"] or "no message"
        yield f"{row['status']}: {label(row)}, seed {row['seed']}: {error.splitlines()[0]}"
    done = section.frame.filter(pl.col("status") == DONE)["cell_id"].n_unique()
    if hidden := done - chosen["cell_id"].n_unique():
        yield f"{hidden} finished cells not shown: broader or newer ones have the same seed"
