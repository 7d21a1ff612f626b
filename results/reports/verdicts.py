"""What differs and by how much, as tables: methods among one another, ours and published ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import polars as pl

from results.analysis.alarms import without_alarms
from results.analysis.bootstrap import gaps_over_images
from results.analysis.cells import SECTION, label, one_cell_per_seed, title, with_every_seed
from results.analysis.equivalence import ROPE
from results.analysis.published import MEAN, beside_published
from results.analysis.statistics import compare, pairwise
from results.analysis.summary import summary
from results.reports.layout import Cells, join_blocks
from results.reports.numbers import UNKNOWN, interval, p_value, percent, points

MAIN = ("image_auroc", "pixel_auroc")
"""The metrics whose best row is compared with all others."""
NOTES = [
    "another training: 95 % of the difference in points, over seeds (Student's t)",
    "another test set: the same over images, drawn again for both; trainings stay",
    "another product: Wilcoxon's signed-rank test over categories, and the Bayesian one; equal is "
    f"within {100 * ROPE:g} points",
]


def best_against_others(part: pl.DataFrame) -> Iterator[Cells]:
    """For each of MAIN in one section: the row with the highest mean against each of the others."""
    means = summary(part).filter("complete").sort("mean", descending=True, maintain_order=True)
    pairs = pairwise(part).to_dicts()
    for metric in MAIN:
        best = means.filter(pl.col("metric") == metric).head(1).to_dicts()
        names = [label(row) for row in best]
        rows = [row for row in pairs if row["metric"] == metric and {row["a"], row["b"]} & {*names}]
        if rows:
            lines = [_versus(row if row["a"] in names else turned(row)) for row in rows]
            header = ["against", "points", "another training", "another product, p", "verdict"]
            caption = f"{metric}: {names[0]}, the highest mean, against the others"
            yield Cells(caption, header, lines)


def beside(part: pl.DataFrame) -> tuple[list[Cells], list[str]]:
    """One section's means beside published ones, and a line for each that is not comparable."""
    rows = beside_published(part).filter(category=MEAN)
    lines = [_beside(row) for row in rows.filter(pl.col("verdict").is_not_null()).to_dicts()]
    header = ["method", "metric", "source", "ours", "theirs", "points", "verdict"]
    tables = [Cells("beside published means, %", header, lines, names=3)] if lines else []
    reasons = rows.filter(pl.col("verdict").is_null()).unique(
        ["method", "variant", "source", "reason"], keep="first", maintain_order=True
    )
    return tables, [
        f"{label(row)} is not beside {_source(row)}: {row['reason']}" for row in reasons.to_dicts()
    ]


def turned(pair: dict[str, Any]) -> dict[str, Any]:
    """A row of `pairwise` with a and b exchanged; what is unknown stays so."""

    def minus(name: str) -> float | None:
        return None if pair[name] is None else -pair[name]

    return pair | {
        "a": pair["b"],
        "b": pair["a"],
        "difference": minus("difference"),
        "low": minus("high"),
        "high": minus("low"),
        "wins": pair["losses"],
        "losses": pair["wins"],
        "probability": None if pair["probability"] is None else 1 - pair["probability"],
        "better": pair["worse"],
        "worse": pair["better"],
    }


def comparison(
    frame: pl.DataFrame,
    a: str,
    b: str,
    fmt: str,
    width: int = 120,
    scores: pl.DataFrame | None = None,
) -> str:
    """Two rows of a folder: a verdict on each metric in a line, what it rests on, and their gaps by
    category. With per-image scores it is told what another test set would do.

    Raises ValueError where a or b is not the name of a row, or no section has both.
    """
    frame = without_alarms(frame)
    blocks: list[list[str] | Cells] = []
    for key, rows in compare(frame, a, b).group_by(SECTION, maintain_order=True):
        part = frame.filter(**dict(zip(SECTION, key, strict=True)))
        blocks.append([title(rows.row(0, named=True))])
        blocks.append([_sentence(row) for row in rows.to_dicts()])
        blocks.append(_questions(rows, part, scores))
        blocks.append(_gaps(part, a, b))
    if not blocks:
        raise ValueError(f"'{a}' and '{b}' have no data set, mode, preset and profile in common")
    blocks.append(NOTES)
    return join_blocks(blocks, fmt, width)


def _sentence(row: dict[str, Any]) -> str:
    if row["difference"] is None:
        return f"{row['metric']}: {row['verdict']}"
    return (
        f"{row['metric']}: {row['verdict']}; {row['a']} {points(row['difference'])} points, "
        f"ahead on {row['wins']} of {row['categories']} categories, {row['seeds']} seeds"
    )


def _questions(rows: pl.DataFrame, part: pl.DataFrame, scores: pl.DataFrame | None) -> Cells:
    """What another training, test set and product would say of a - b, a metric a line."""
    known = rows.drop_nulls("difference").to_dicts()
    over_images = {}
    if scores is not None and known:
        drawn = gaps_over_images(part, scores, known[0]["a"], known[0]["b"])
        over_images = {row["metric"]: row for row in drawn.to_dicts()}
    lines = [
        [
            row["metric"],
            _ends(row),
            _ends(over_images[row["metric"]]) if row["metric"] in over_images else UNKNOWN,
            p_value(row["p_holm"]),
            " / ".join(percent(row[name], decimals=0) for name in ("better", "equal", "worse")),
        ]
        for row in known
    ]
    header = ["metric", "another training", "another test set", "another product, p"]
    header += [f"{rows['a'][0]} better / equal / worse, %"]
    return Cells("what the verdicts rest on", header, lines)


def _gaps(part: pl.DataFrame, a: str, b: str) -> Cells:
    """a - b in points, by category and metric."""
    rows = with_every_seed(one_cell_per_seed(part))
    names = pl.Series([label(row) for row in rows.select("method", "variant").to_dicts()])
    means = (
        rows.with_columns(name=names)
        .group_by("category", "metric")
        .agg(
            gap=pl.col("value").filter(pl.col("name") == a).mean()
            - pl.col("value").filter(pl.col("name") == b).mean()
        )
    )
    metrics = rows["metric"].unique(maintain_order=True).to_list()
    gaps = {(category, metric): gap for category, metric, gap in means.iter_rows()}
    lines = [
        [category, *(points(gaps.get((category, metric))) for metric in metrics)]
        for category in means["category"].unique().sort()
    ]
    return Cells(f"{a} minus {b}, points", ["category", *metrics], lines)


def _versus(row: dict[str, Any]) -> list[str]:
    known = row["difference"] is not None
    return [
        row["b"],
        points(row["difference"]),
        _ends(row),
        p_value(row["p_holm"]) if known else UNKNOWN,
        row["verdict"],
    ]


def _beside(row: dict[str, Any]) -> list[str]:
    names = label(row), row["metric"], _source(row)
    values = percent(row["mean"]), percent(row["value"]), points(row["difference"])
    return [*names, *values, row["verdict"]]


def _ends(row: dict[str, Any]) -> str:
    return interval(row["low"], row["high"], points, ", ")


def _source(row: dict[str, Any]) -> str:
    epochs = f", {row['epochs']} epochs" if row["epochs"] else ""
    names = {"paper": "the paper", "ader": f"ADer{epochs}", "authors": f"its authors{epochs}"}
    return names[row["source"]]
