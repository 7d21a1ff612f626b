"""How good a choice without anomalies is: pseudo-validation beside the test split.

The frames are rows of `table.SCHEMA`; a setting is one `knobs_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from results.table import POOLED

AVERAGE = "mean"
"""The category of what is averaged over the categories."""


def objective(
    rows: pl.DataFrame, metrics: Sequence[str], silent: Sequence[str] = ()
) -> float | None:
    """Mean over metrics of the mean over categories of one cell; None where one has no value.

    Categories that are `silent` do not count.
    """
    counted = rows.filter(~pl.col("category").is_in([POOLED, *silent]))
    means = [counted.filter(pl.col("metric") == metric)["value"].mean() for metric in metrics]
    return None if None in means else float(np.mean(means))  # type: ignore[arg-type]


def without_signal(rows: pl.DataFrame, images: Mapping[str, tuple[int, int]]) -> list[str]:
    """Categories on which no setting of `rows` tells anomalous from normal images.

    Their best image AUROC, averaged over seeds, is within two standard errors (Mann-Whitney's, of
    `images`: normal and anomalous ones) of a coin's 0.5, so that settings differ there by chance
    alone. None where that is so on all categories.
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
    """One row for each setting and category, `mean` among them: the value, averaged over seeds."""
    single = rows.filter(pl.col("metric") == metric, pl.col("category") != POOLED)
    keys = ("knobs_json", "category")
    each = single.group_by(*keys).agg(pl.col("value").mean())
    mean = each.group_by("knobs_json").agg(pl.col("value").mean())
    return pl.concat([each, mean.with_columns(category=pl.lit(AVERAGE)).select(each.columns)])


def agreement(
    tried: pl.DataFrame, revealed: pl.DataFrame, chosen: str, metric: str = "image_auroc"
) -> pl.DataFrame:
    """One row for each category and one for their mean, of `metric` over the settings of `tried`.

    settings: how many; spearman, kendall: rank correlation between pseudo-validation and test
    (null where one of them is constant); best, chosen: the best value on test and that of the
    setting `chosen`; regret: their difference in points; rank: settings better on test, plus one.
    Raises ValueError where a tried setting was not revealed.
    """
    pairs = by_setting(tried, metric).join(
        by_setting(revealed, metric).rename({"value": "test"}),
        on=("knobs_json", "category"),
        how="left",
    )
    if missing := pairs["test"].null_count():
        raise ValueError(f"{missing} of the tried settings have no value on the test split")
    found = []
    for (category,), part in pairs.group_by("category", maintain_order=True):
        on_test = part.filter(pl.col("knobs_json") == chosen)["test"]
        best, mine = float(part["test"].to_numpy().max()), float(on_test.item())
        found.append(
            {
                "category": category,
                "settings": len(part),
                "spearman": _correlation("spearmanr", part),
                "kendall": _correlation("kendalltau", part),
                "best": best,
                "chosen": mine,
                "regret": 100 * (best - mine),
                "rank": 1 + int((part["test"] > mine).sum()),
            }
        )
    return pl.DataFrame(found).sort(pl.col("category") == AVERAGE, "category")


def swept(stage: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The knobs of those settings of a frozen choice's stage that have a value and differ from its
    best in the named knob alone: a curve of Figure 6."""
    best = stage["tried"][stage["best"]]["knobs"]
    return [
        one["knobs"]
        for one in stage["tried"]
        if one["values"] and all(one["knobs"][knob] == best[knob] for knob in best if knob != name)
    ]


def _correlation(name: str, part: pl.DataFrame) -> float | None:
    pseudo, test = part["value"].to_numpy(), part["test"].to_numpy()
    if len(np.unique(pseudo)) < 2 or len(np.unique(test)) < 2:
        return None
    from scipy import stats  # half a second, which no process of a sweep should wait for

    return float(getattr(stats, name)(pseudo, test).statistic)
