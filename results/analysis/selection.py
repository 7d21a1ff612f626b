"""Quality of choices without anomalies: pseudo-validation beside the test split.

Frames hold rows of `table.SCHEMA`. A setting is a value of `knobs_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from results.analysis.anchored import Comparison
from results.analysis.cells import METRIC
from results.identity import POOLED

AVERAGE = "mean"
"""The category of means over categories."""
ALL = "all"
"""The family that stands for all of them."""


def image_auroc(rows: pl.DataFrame) -> float | None:
    """A cell's mean over categories; None if no category has a value."""
    [mean] = by_setting(rows).filter(category=AVERAGE)["value"]
    return None if mean is None else float(mean)


def by_setting(rows: pl.DataFrame) -> pl.DataFrame:
    """The image AUROC of each setting and category averaged over seeds, AVERAGE among them."""
    single = rows.filter(pl.col("metric") == METRIC, pl.col("category") != POOLED)
    keys = ("knobs_json", "category")
    each = single.group_by(*keys).agg(pl.col("value").mean())
    mean = each.group_by("knobs_json").agg(pl.col("value").mean())
    return pl.concat([each, mean.with_columns(category=pl.lit(AVERAGE)).select(each.columns)])


def agreement(opinions: pl.DataFrame, revealed: pl.DataFrame, chosen: str) -> pl.DataFrame:
    """Agreement of what pseudo-validation thinks of settings with the test split.

    `opinions` has a value for each family, category and setting (`knobs_json`); the family ALL
    stands for all together, the category AVERAGE for all. One row for each family and category:
    settings: how many; spearman: rank correlation with image AUROC on test, null where either is
    constant; best: the highest value on test; chosen: that of the setting `chosen`, or for a
    single family of the one that it thinks most of; regret: best minus chosen in points; rank: 1
    plus the number of settings that are better on test. Raises ValueError where a setting was not
    revealed.
    """
    test = by_setting(revealed).rename({"value": "test"})
    pairs = opinions.join(test, on=("knobs_json", "category"), how="left")
    if missing := pairs["test"].null_count():
        raise ValueError(f"{missing} of the tried settings have no value on the test split")
    rows = []
    for (family, category), group in pairs.group_by("family", "category", maintain_order=True):
        ranked = group.sort("value", descending=True, maintain_order=True, nulls_last=True)
        setting = chosen if family == ALL else ranked["knobs_json"][0]
        best = float(group["test"].to_numpy().max())
        reached = float(group.filter(pl.col("knobs_json") == setting)["test"].item())
        rows.append(
            {
                "family": family,
                "category": category,
                "settings": len(group),
                "spearman": _spearman(group),
                "best": best,
                "chosen": reached,
                "regret": 100 * (best - reached),
                "rank": 1 + int((group["test"] > reached).sum()),
            }
        )
    single, mean = pl.col("family") != ALL, pl.col("category") == AVERAGE
    return pl.DataFrame(rows).sort(single, "family", mean, "category")


def opinions(compared: Comparison, names: Sequence[str]) -> pl.DataFrame:
    """Opinions of families on the settings of a comparison, whose JSON is `names`: distances by
    category, mean gains; see `agreement`."""
    groups = (tuple(group) for group in compared.groups)
    thought = dict(zip(groups, compared.distances, strict=True))
    for category in {group.category for group in compared.groups}:
        rows = [row for group, row in thought.items() if group[1] == category]
        thought[ALL, category] = np.mean(rows, axis=0)
    for family, row in zip(compared.families, compared.gains, strict=True):
        thought[family, AVERAGE] = row
    thought[ALL, AVERAGE] = compared.mean
    return pl.DataFrame(
        [
            {"family": family, "category": category, "knobs_json": name, "value": value}
            for (family, category), values in thought.items()
            for name, value in zip(names, values.tolist(), strict=True)
        ]
    ).with_columns(pl.col("value").fill_nan(None))


def regrets(revealed: pl.DataFrame, settings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Image AUROC on test by which named settings (JSON of their knobs) fall short of the best.

    Of the median setting as well. One row each: setting, test: its mean over categories and seeds,
    regret and its spread over seeds (null with one), seeds.
    """
    single = revealed.filter(pl.col("metric") == METRIC, pl.col("category") != POOLED)
    means = single.group_by("seed", "knobs_json").agg(pl.col("value").mean())
    seeds = means.group_by("seed").agg(
        pl.col("value").max().alias("best"),
        pl.col("value").median().alias("median setting"),
        *(
            pl.col("value").filter(pl.col("knobs_json") == knobs).first().alias(name)
            for name, knobs in settings.items()
        ),
    )
    found = []
    for name in (*settings, "median setting"):
        short = seeds["best"] - seeds[name]
        row = {"setting": name, "test": seeds[name].mean(), "regret": short.mean()}
        found.append(row | {"spread": short.std(), "seeds": len(seeds)})
    return found


def swept(stage: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The settings along one curve of Figure 6, as knobs.

    Those of a stage of a frozen choice that have a value and differ from its best setting in the
    named knob alone.
    """
    best = stage["tried"][stage["best"]]["knobs"]
    measured = [tried["knobs"] for tried in stage["tried"] if tried["values"]]
    return [knobs for knobs in measured if knobs | {name: best[name]} == best]


def _spearman(group: pl.DataFrame) -> float | None:
    known = group.drop_nulls("value")
    value: float = known.select(pl.corr("value", "test", method="spearman")).item()
    return value if np.isfinite(value) else None
