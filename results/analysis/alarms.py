"""Worth of alarms: the false-alarm rate that was asked for beside the one that was seen."""

from __future__ import annotations

from typing import Any

import polars as pl
from scipy import stats

from results.analysis.cells import GROUP, one_cell_per_seed
from results.analysis.statistics import LEVEL
from results.calibration import ALARM, ALPHAS, ONE, OWN, SCHEMA, alarm_name, expected_rate
from results.identity import POOLED


def without_alarms(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of all other metrics: of these more is better, so they can be ranked."""
    return frame.filter(~pl.col("metric").str.starts_with(ALARM).fill_null(False))


def alarms(
    frame: pl.DataFrame, scores: pl.DataFrame, held: pl.DataFrame | None = None
) -> pl.DataFrame:
    """One row for each section, method, variant, alpha and kind of threshold.

    false, recall: shares of the normal and of the anomalous test images, over all categories, mean
    over seeds; normal, anomalous: how many images; false_low ... recall_high: Clopper and Pearson's
    95 % interval for so many images, whatever the number of seeds, as seeds see the same images;
    reason: why there is no value; with the scores of held-out images (`read_held`) expected_low,
    expected_high: what 95 % of such trials would show of test images like the held-out ones, see
    `expected_rate`. Empty without calibrated cells.
    """
    done = one_cell_per_seed(frame).filter(pl.col("metric").str.starts_with(ALARM))
    counts = scores.group_by("cell_id", "category").agg(
        normal=(~pl.col("label")).sum(), anomalous=pl.col("label").sum()
    )
    held = pl.DataFrame(SCHEMA.empty_table()) if held is None else held
    known = held.group_by("cell_id", "category").agg(held=pl.len())
    keys = ("cell_id", "category")
    rows = done.join(counts, on=keys, how="left").join(known, on=keys, how="left")
    found = [
        dict(zip(GROUP, key, strict=True))
        | {"alpha": alpha, "threshold": kind}
        | _seen(group, alpha, kind)
        for key, group in rows.group_by(GROUP, maintain_order=True)
        for alpha in ALPHAS
        for kind in (OWN, ONE)
    ]
    return pl.DataFrame(found, infer_schema_length=None)


def _seen(group: pl.DataFrame, alpha: float, kind: str) -> dict[str, Any]:
    result: dict[str, Any] = {"reason": ""}
    for measure, column in (("false", "normal"), ("recall", "anomalous")):
        rows = group.filter(
            pl.col("metric") == alarm_name(measure, alpha, kind), pl.col("category") != POOLED
        ).to_dicts()
        missing = [row["reason"] for row in rows if row["value"] is None]
        seeds = len({row["seed"] for row in rows}) or 1
        images = sum(row[column] or 0 for row in rows) / seeds
        raised = sum(row["value"] * (row[column] or 0) for row in rows if row["value"] is not None)
        rate = None if missing or not images else raised / seeds / images
        low, high = (None, None) if rate is None else share_interval(rate, images)
        result |= {measure: rate, column: images, f"{measure}_low": low, f"{measure}_high": high}
        result["reason"] = result["reason"] or next(iter(missing), "")
    low, high = _expected(group, alpha, kind) if result["false"] is not None else (None, None)
    return result | {"expected_low": low, "expected_high": high}


def _expected(group: pl.DataFrame, alpha: float, kind: str) -> tuple[float | None, float | None]:
    """The expected range of false alarms, from the first seed, as all have the same images."""
    name = alarm_name("false", alpha, kind)
    first = group.filter(pl.col("metric") == name, pl.col("category") != POOLED)
    first = first.filter(pl.col("seed") == pl.col("seed").min())
    held, tested = first["held"], first["normal"]
    if first.is_empty() or held.null_count() or tested.null_count():
        return None, None
    if kind == ONE:
        return expected_rate([int(held.sum())], [int(tested.sum())], alpha)
    return expected_rate(held.to_list(), tested.to_list(), alpha)


def share_interval(rate: float, images: float) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share of so many images."""
    hits, tail = rate * images, (1 - LEVEL) / 2
    low = float(stats.beta.ppf(tail, hits, images - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(1 - tail, hits + 1, images - hits)) if hits < images else 1.0
    return low, high
