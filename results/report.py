"""Reports over the long result table: means over categories and seeds, and what spoils them.

Names of methods, metrics and categories come from the rows alone, so a new one needs no edit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import polars as pl

from results._text import Cells, csv_text, join_blocks
from results.table import DONE, POOLED

SECTION = ("benchmark", "mode", "preset")
GROUP = (*SECTION, "method", "variant")
MISSING = "–"


def summary(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each benchmark, mode, preset, method, variant and metric of `table.read`'s frame.

    mean, std: over seeds (ddof 1, null for one seed) of the mean over categories; seeds: how many;
    category_std: over categories (ddof 0) of their means over seeds; worst, worst_category; pooled,
    pooled_std: all test images under one threshold; categories: those measured with every seed,
    the only ones averaged; expected: all of the benchmark in this frame; complete: whether the two
    agree; reason: why values are null; failed: failed cells; fit_seconds, images_per_second and
    peak_memory_bytes: of one seed, averaged.
    """
    keys = (*GROUP, "metric")
    done = _one_cell_per_seed(frame)
    single = done.filter(pl.col("category") != POOLED, pl.col("value").is_not_null())
    seeds = pl.col("seed").n_unique()
    shared = single.filter(seeds.over(*keys, "category") == seeds.over(*keys))
    spread = _over_categories(shared, keys)
    # A cell of one category among several has no pooled score of the whole.
    whole = done.join(spread, on=keys).filter(
        pl.col("category") == POOLED, pl.col("breadth") >= pl.col("categories")
    )
    result = _expected(frame)
    for part, on in (
        (_over_seeds(shared, keys), keys),
        (spread, keys),
        (_over_seeds(whole, keys).select(*keys, pooled="mean", pooled_std="std"), keys),
        (_reasons(done, keys), keys),
        (_costs(done), GROUP),
    ):
        result = result.join(part, on=on, how="left", maintain_order="left")
    return result.with_columns(
        pl.col("seeds", "categories").fill_null(0), pl.col("reason").fill_null("")
    ).with_columns(complete=pl.col("categories") == pl.col("expected"))


def per_category(frame: pl.DataFrame, metric: str) -> pl.DataFrame:
    """One row for each benchmark, mode, preset, category, method and variant: mean, std, seeds.

    mean and std (ddof 1) of one metric are over seeds; the pooled category comes last.
    """
    keys = (*SECTION, "category", "method", "variant")
    done = _one_cell_per_seed(frame).filter(pl.col("metric") == metric)
    rows = done.select(keys).unique().join(_over_seeds(done, keys), on=keys, how="left")
    return rows.sort(*SECTION, pl.col("category") == POOLED, "category", "method", "variant")


def failures(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each failed cell: its group, seed, status and error."""
    failed = frame.filter(pl.col("status") != DONE)
    rows = failed.group_by(*GROUP, "seed", "cell_id", "status").agg(pl.col("error").first())
    return rows.sort(*GROUP, "seed", "cell_id")


def render(frame: pl.DataFrame, fmt: str, width: int = 120) -> str:
    """The report as text: "terminal" (of a width in columns), "md", or "csv" (the summary alone).

    In tables metrics are percentages with one decimal. Raises ValueError for another format.
    """
    if fmt == "csv":
        return csv_text(summary(frame))
    blocks: list[list[str] | Cells] = []
    for key, rows in summary(frame).group_by(SECTION, maintain_order=True):
        part = frame.filter(**dict(zip(SECTION, key, strict=True)))
        blocks.append([" · ".join(str(name) for name in key)])
        blocks += _summary_tables(rows)
        blocks.append(_cost_table(rows))
        blocks += _category_tables(part)
        blocks.append(list(_notes(rows, part)))
    return join_blocks(blocks, fmt, width)


def _one_cell_per_seed(frame: pl.DataFrame) -> pl.DataFrame:
    """Finished rows of one cell for each group and seed: the broadest, of these the newest.

    One model's categories never fill another's gaps; only in separate mode each category is a
    model of its own. Adds breadth, the number of real categories in a row's cell.
    """
    alone = pl.when(pl.col("mode") == "separate").then("category").otherwise(pl.lit(""))
    real = pl.col("category").filter(pl.col("category") != POOLED)
    done = frame.filter(pl.col("status") == DONE).with_columns(
        breadth=real.n_unique().over("cell_id"), alone=alone
    )
    ranked = done.sort("breadth", "finished_at", descending=True, maintain_order=True)
    best = pl.col("cell_id").first().over(*GROUP, "seed", "alone")
    return ranked.filter(pl.col("cell_id") == best).drop("alone")


def _over_seeds(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    by_seed = rows.group_by(*keys, "seed").agg(pl.col("value").mean()).drop_nulls("value")
    return by_seed.group_by(keys).agg(
        mean=pl.col("value").mean(), std=pl.col("value").std(ddof=1), seeds=pl.len()
    )


def _over_categories(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    by_category = rows.group_by(*keys, "category").agg(pl.col("value").mean())
    return by_category.group_by(keys).agg(
        category_std=pl.col("value").std(ddof=0),
        worst=pl.col("value").min(),
        worst_category=pl.col("category").sort_by("value", "category").first(),
        categories=pl.len(),
    )


def _expected(frame: pl.DataFrame) -> pl.DataFrame:
    """Every group beside every metric of its benchmark, with failed cells and category counts."""
    failed = pl.col("cell_id").filter(pl.col("status") != DONE).n_unique()
    groups = frame.group_by(GROUP).agg(failed=failed).sort(GROUP)
    real = pl.col("category").filter(pl.col("category") != POOLED).drop_nulls()
    expected = frame.group_by("benchmark").agg(expected=real.n_unique())
    done = frame.filter(pl.col("status") == DONE)
    metrics = done.select("benchmark", "metric").unique(maintain_order=True)
    result = groups.join(expected, on="benchmark", maintain_order="left")
    return result.join(metrics, on="benchmark", how="left", maintain_order="left_right")


def _reasons(rows: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    reasons = pl.col("reason").unique().sort().str.join("; ")
    return rows.filter(pl.col("value").is_null()).group_by(keys).agg(reason=reasons)


def _costs(rows: pl.DataFrame) -> pl.DataFrame:
    names = ("fit_seconds", "images_per_second", "peak_memory_bytes")
    cells = rows.group_by(*GROUP, "seed", "cell_id").agg(pl.col(names).first())
    by_seed = cells.group_by(*GROUP, "seed").agg(
        # Null, not 0, where nothing was timed.
        pl.when(pl.col("fit_seconds").count() > 0).then(pl.col("fit_seconds").sum()),
        pl.col("images_per_second").mean(),
        pl.col("peak_memory_bytes").max(),
    )
    return by_seed.group_by(GROUP).agg(pl.col(names).mean())


def _summary_tables(rows: pl.DataFrame) -> Iterator[Cells]:
    """One table for each kind of metric, the word before its first underscore."""
    statistics: dict[str, Callable[[dict[str, Any]], str]] = {
        "mean": _mean,
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
            ["" if number else name, _label(records[0]), *map(show, records)]
            for name, show in statistics.items()
            if any(show(record) != MISSING for records in methods for record in records)
            for number, records in enumerate(methods)
        ]
        title = f"{kind} metrics, % (± std over seeds)"
        yield Cells(title, ["categories", "method", *metrics], lines, names=2)


def _cost_table(rows: pl.DataFrame) -> Cells:
    header = ["method", "seeds", "failed cells", "fit s", "images/s", "peak GiB"]
    lines = []
    for _, group in rows.group_by("method", "variant", maintain_order=True):
        first = group.row(0, named=True)
        memory = first["peak_memory_bytes"]
        lines.append(
            [
                _label(first),
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
        names = sorted({_label(row) for row in rows})
        lines: dict[str, dict[str, str]] = {}
        for row in rows:
            cells = lines.setdefault(row["category"], dict.fromkeys(names, MISSING))
            cells[_label(row)] = _percent(row["mean"], row["std"])
        body = [[category, *cells.values()] for category, cells in lines.items()]
        yield Cells(f"{metric} by category, % (± std over seeds)", ["category", *names], body)


def _notes(rows: pl.DataFrame, part: pl.DataFrame) -> Iterator[str]:
    for row in rows.filter(~pl.col("complete"), pl.col("categories") > 0).to_dicts():
        covered = f"{row['categories']} of {row['expected']} categories"
        yield f"* {_label(row)}, {row['metric']}: over {covered} only, not comparable"
    chosen = _one_cell_per_seed(part)
    undefined = (
        chosen.filter(pl.col("value").is_null())
        .group_by("reason")
        .agg(pl.col("metric", "category").unique(maintain_order=True))
    )
    for reason, metrics, categories in undefined.sort("reason").iter_rows():
        yield f"{MISSING} {', '.join(metrics)} of {', '.join(sorted(categories))}: {reason}"
    for row in failures(part).to_dicts():
        yield f"{row['status']}: {_label(row)}, seed {row['seed']}: {_first_line(row['error'])}"
    hidden = part.filter(pl.col("status") == DONE)["cell_id"].n_unique()
    if hidden := hidden - chosen["cell_id"].n_unique():
        yield f"{hidden} finished cells not shown: broader or newer ones have the same seed"


def _first_line(text: str | None) -> str:
    return text.splitlines()[0] if text else "no message"


def _label(row: dict[str, Any]) -> str:
    return " ".join(filter(None, (row["method"], row["variant"])))


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


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:,.1f}"
