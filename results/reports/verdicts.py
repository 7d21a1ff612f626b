"""Two rows of a folder against one another, and the best row against the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from results.analysis.alarms import without_alarms
from results.analysis.cells import (
    SECTION,
    heading,
    labelled,
    one_cell_per_seed,
    row_named,
    undefined,
    with_every_seed,
)
from results.analysis.equivalence import ROPE
from results.analysis.images import gaps_over_images
from results.analysis.statistics import PRIMARY, compare, turned
from results.files import ResultsError
from results.reports.layout import Block, join_blocks
from results.reports.model import Entry, Table
from results.reports.numbers import UNKNOWN, p_value, points
from results.reports.sections import Section
from results.reports.tables import differences

NOTES = [
    "another training: 95 % of the difference in points, over seeds (Student's t)",
    "another test set: the same over images, for both alike (DeLong); trainings stay",
    "another product, p: the larger of those of Wilcoxon's signed-rank test and Johnson's t-test,",
    "over categories, corrected for the metrics asked for, in the whole table for all pairs too",
    f"better / equal / worse: the Bayesian signed-rank test; equal is within {100 * ROPE:g} points",
]


def best_against_others(section: Section, metric: str) -> Table | None:
    """The row with the highest mean of all that have every category, against each of the others."""
    best = section.ranked(metric)[:1]
    if not best or not (section.row(metric, best[0]) or {})["complete"]:
        return None
    pairs = {
        row["b"]: row
        for pair in section.pairs(metric)
        if (row := pair if pair["a"] in best else turned(pair))["a"] in best
    }
    return differences(
        f"{metric}: {best[0]}, the highest mean, against the others", "against", pairs
    )


def comparison(
    frame: pl.DataFrame,
    a: str,
    b: str,
    fmt: str,
    width: int = 120,
    scores: pl.DataFrame | None = None,
    metrics: Sequence[str] = PRIMARY,
) -> str:
    """Two rows of a folder: a verdict on each metric in a line, what it rests on, and their gaps by
    category. `metrics` alone are tested. With per-image scores it is told what another test set
    would do.

    Raises ResultsError where a or b is not the name of a row, or no section has both.
    """
    frame = without_alarms(frame)
    a, b = row_named(frame, a), row_named(frame, b)
    blocks: list[Block] = []
    for key, rows in compare(frame, a, b, metrics).group_by(SECTION, maintain_order=True):
        of_section = frame.filter(**dict(zip(SECTION, key, strict=True)))
        pairs = {row["metric"]: row for row in rows.to_dicts()}
        blocks.append([heading(of_section)])
        blocks.append([_sentence(row) for row in pairs.values()])
        over_images = {}
        if scores is not None:
            drawn = gaps_over_images(of_section, scores, a, b)
            over_images = {row["metric"]: row for row in drawn.to_dicts()}
        if table := differences(f"{a} against {b}", "metric", pairs, over_images):
            blocks.append(table)
        blocks.append(_gaps(of_section, a, b))
        if without := undefined(of_section):
            blocks.append([f"{UNKNOWN} {line}" for line in without])
    if not blocks:
        raise ResultsError(f"'{a}' and '{b}' have no data set, mode, preset and profile in common")
    blocks.append(NOTES)
    return join_blocks(blocks, fmt, width)


def _sentence(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return f"{row['metric']}: {row['verdict']}"
    said = (
        f"{row['metric']}: {row['verdict']}; {row['a']} {points(row['difference'])} points, "
        f"ahead on {row['wins']} of {row['categories']} categories, {row['seeds']} seeds"
    )
    if row["p_holm"] is None:
        return said
    return f"{said}; p = {p_value(row['p_value'])}, in the whole table {p_value(row['p_holm'])}"


def _gaps(frame: pl.DataFrame, a: str, b: str) -> Table:
    """a - b in points, by category and metric."""
    rows = labelled(with_every_seed(one_cell_per_seed(frame)))
    mean_a, mean_b = (pl.col("value").filter(pl.col("label") == name).mean() for name in (a, b))
    means = rows.group_by("category", "metric").agg(gap=mean_a - mean_b)
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    gaps = {(category, metric): gap for category, metric, gap in means.iter_rows()}
    lines = [
        [Entry(category), *(Entry(points(gaps.get((category, metric)))) for metric in metrics)]
        for category in means["category"].unique().sort()
    ]
    return Table(f"{a} minus {b}, points", ["category", *metrics], lines)
