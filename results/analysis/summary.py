"""Summaries of the long result table: means over categories and seeds, as polars frames.

Names of methods, metrics and categories come from the rows alone, so a new one needs no edit.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from results.analysis.cells import (
    GROUP,
    SECTION,
    expected_categories,
    one_cell_per_seed,
    with_every_seed,
)
from results.analysis.statistics import t_interval
from results.identity import POOLED
from results.table import DONE


def summary(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each section, method, variant and metric of `table.read`'s frame.

    mean, std: over seeds (ddof 1, null for one seed) of the mean over categories; seeds: how many;
    low, high: the 95 % interval of the mean, see `t_interval`;
    category_std: over categories (ddof 0) of their means over seeds; worst, worst_category: the
    lowest of these; pooled, pooled_std: all test images under one threshold; categories: how many
    were measured with every seed, the only ones averaged; expected: see `expected_categories`;
    complete: whether the two are equal; reason: why values are null; failed: how many cells failed;
    fit_seconds, images_per_second, peak_memory_bytes: of one seed, averaged.
    """
    keys = (*GROUP, "metric")
    done = one_cell_per_seed(frame)
    shared = with_every_seed(done)
    spread = _over_categories(shared, keys)
    # A cell of one category among several has no pooled score of the whole.
    whole = done.join(spread, on=keys).filter(
        pl.col("category") == POOLED, pl.col("breadth") >= pl.col("categories")
    )
    result = _expected(frame)
    for added, on in (
        (t_interval(_over_seeds(shared, keys)), keys),
        (spread, keys),
        (_over_seeds(whole, keys).select(*keys, pooled="mean", pooled_std="std"), keys),
        (_reasons(done, keys), keys),
        (_costs(done), GROUP),
    ):
        result = result.join(added, on=on, how="left", maintain_order="left")
    return result.with_columns(
        pl.col("seeds", "categories").fill_null(0), pl.col("reason").fill_null("")
    ).with_columns(complete=pl.col("categories").eq(pl.col("expected")).fill_null(False))


def per_category(frame: pl.DataFrame, metric: str) -> pl.DataFrame:
    """One row for each section, category, method and variant, the pooled category last.

    mean, std (ddof 1): of the metric over seeds; seeds: how many.
    """
    keys = (*SECTION, "category", "method", "variant")
    done = one_cell_per_seed(frame).filter(pl.col("metric") == metric)
    rows = done.select(keys).unique().join(_over_seeds(done, keys), on=keys, how="left")
    return rows.sort(*SECTION, pl.col("category") == POOLED, "category", "method", "variant")


def failures(frame: pl.DataFrame) -> pl.DataFrame:
    """One row for each failed cell: its group, seed, status and error."""
    failed = frame.filter(pl.col("status") != DONE)
    rows = failed.group_by(*GROUP, "seed", "cell_id", "status").agg(pl.col("error").first())
    return rows.sort(*GROUP, "seed", "cell_id")


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
    """Every group with every metric of its benchmark, its failed cells and expected categories."""
    failed = pl.col("cell_id").filter(pl.col("status") != DONE).n_unique()
    groups = frame.group_by(GROUP).agg(failed=failed).sort(GROUP)
    done = frame.filter(pl.col("status") == DONE)
    metrics = done.select("benchmark", "metric").unique(maintain_order=True)
    result = groups.join(metrics, on="benchmark", how="left", maintain_order="left_right")
    keys = ("benchmark", "metric")
    return result.join(expected_categories(frame), on=keys, how="left", maintain_order="left")


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
