"""How good a choice without anomalies is: pseudo-validation beside the test split.

Frames hold rows of `table.SCHEMA`. A setting is a value of `knobs_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from results.identity import POOLED

AVERAGE = "mean"
"""The category of means over categories."""


def objective(
    rows: pl.DataFrame, metrics: Sequence[str], silent: Sequence[str] = ()
) -> float | None:
    """The mean over metrics of a cell's mean over categories; None if a metric has no value.

    The `silent` categories do not count.
    """
    counted = rows.filter(~pl.col("category").is_in([POOLED, *silent]))
    means = [counted.filter(pl.col("metric") == metric)["value"].mean() for metric in metrics]
    return None if None in means else float(np.mean(means))  # type: ignore[arg-type]


def without_signal(rows: pl.DataFrame, images: Mapping[str, tuple[int, int]]) -> list[str]:
    """The categories on which no setting of `rows` tells anomalous from normal images.

    The best image AUROC there, averaged over seeds, is less than two standard errors above the 0.5
    of a coin, so that settings differ by chance alone. The error is Mann-Whitney's, of so many
    normal and anomalous `images`. If all categories are like that, none is named.
    """
    best = (
        by_setting(rows)
        .filter(pl.col("category") != AVERAGE)
        .group_by("category")
        .agg(pl.col("value").max())
    )
    silent = []
    for category, value in best.sort("category").iter_rows():
        normal, anomalous = images[category]
        error = ((normal + anomalous + 1) / (12 * normal * anomalous)) ** 0.5
        if value is None or value < 0.5 + 2 * error:
            silent.append(category)
    return silent if len(silent) < len(best) else []


def by_setting(rows: pl.DataFrame, metric: str = "image_auroc") -> pl.DataFrame:
    """Of each setting and category, AVERAGE among them, the value averaged over seeds."""
    single = rows.filter(pl.col("metric") == metric, pl.col("category") != POOLED)
    keys = ("knobs_json", "category")
    each = single.group_by(*keys).agg(pl.col("value").mean())
    mean = each.group_by("knobs_json").agg(pl.col("value").mean())
    return pl.concat([each, mean.with_columns(category=pl.lit(AVERAGE)).select(each.columns)])


def agreement(
    tried: pl.DataFrame, revealed: pl.DataFrame, chosen: str, metric: str = "image_auroc"
) -> pl.DataFrame:
    """One row for each category, and one for their mean, over the settings of `tried`.

    settings: how many; spearman, kendall: rank correlation of `metric` between pseudo-validation
    and test, null where it is constant on either; best: the highest value on test; chosen: that of
    the setting `chosen`; regret: best minus chosen in points; rank: 1 plus the number of settings
    that are better than the chosen one on test. Raises ValueError where a tried setting was not
    revealed.
    """
    pairs = by_setting(tried, metric).join(
        by_setting(revealed, metric).rename({"value": "test"}),
        on=("knobs_json", "category"),
        how="left",
    )
    if missing := pairs["test"].null_count():
        raise ValueError(f"{missing} of the tried settings have no value on the test split")
    rows = []
    for (category,), part in pairs.group_by("category", maintain_order=True):
        best = float(part["test"].to_numpy().max())
        reached = float(part.filter(pl.col("knobs_json") == chosen)["test"].item())
        rows.append(
            {
                "category": category,
                "settings": len(part),
                "spearman": _correlation("spearmanr", part),
                "kendall": _correlation("kendalltau", part),
                "best": best,
                "chosen": reached,
                "regret": 100 * (best - reached),
                "rank": 1 + int((part["test"] > reached).sum()),
            }
        )
    return pl.DataFrame(rows).sort(pl.col("category") == AVERAGE, "category")


def swept(stage: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The settings along one curve of Figure 6, as knobs.

    Those of a stage of a frozen choice that have a value and differ from its best setting in the
    named knob alone.
    """
    best = stage["tried"][stage["best"]]["knobs"]
    measured = [tried["knobs"] for tried in stage["tried"] if tried["values"]]
    return [knobs for knobs in measured if knobs | {name: best[name]} == best]


def _correlation(name: str, part: pl.DataFrame) -> float | None:
    pseudo, test = part["value"].to_numpy(), part["test"].to_numpy()
    if len(np.unique(pseudo)) < 2 or len(np.unique(test)) < 2:
        return None
    from scipy import stats  # half a second, which no process of a sweep should wait for

    return float(getattr(stats, name)(pseudo, test).statistic)
