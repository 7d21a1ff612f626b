"""Quality of choices without anomalies: pseudo-validation beside the test split.

Frames hold rows of `table.SCHEMA`. A setting is a value of `knobs_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from results.analysis.election import Election
from results.identity import POOLED

AVERAGE = "mean"
"""The category of means over categories."""
ALL = "all"
"""The family that stands for all of them."""
METRIC = "image_auroc"
"""The metric that choices are judged by."""


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
        favourite = group.sort("value", descending=True, maintain_order=True)["knobs_json"][0]
        setting = chosen if family == ALL else favourite
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


def opinions(election: Election, names: Sequence[str], *, by_rank: bool) -> pl.DataFrame:
    """Opinions of an election on its settings, whose JSON is `names`; see `agreement`.

    Families together by weighted ranks, as the robust selector counts, or by means.
    """
    groups = [(group.family, group.category) for group in election.groups]
    votes = dict(zip(groups, election.values, strict=True))
    counted = election.ranks if by_rank else election.values
    weights = election.weights if by_rank else np.ones(len(groups))
    for family in sorted({family for family, _ in groups}):
        rows = [
            row for (name, _), row in zip(groups, election.values, strict=True) if name == family
        ]
        votes[family, AVERAGE] = np.mean(rows, axis=0)
    for category in sorted({category for _, category in groups}):
        share = weights * [name == category for _, name in groups]
        votes[ALL, category] = share @ counted / max(share.sum(), 1e-12)
    votes[ALL, AVERAGE] = weights @ counted / weights.sum()
    return pl.DataFrame(
        [
            {"family": family, "category": category, "knobs_json": name, "value": value}
            for (family, category), values in votes.items()
            for name, value in zip(names, values.tolist(), strict=True)
        ]
    )


def swept(stage: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """The settings along one curve of Figure 6, as knobs.

    Those of a stage of a frozen choice that have a value and differ from its best setting in the
    named knob alone.
    """
    best = stage["tried"][stage["best"]]["knobs"]
    measured = [tried["knobs"] for tried in stage["tried"] if tried["values"]]
    return [knobs for knobs in measured if knobs | {name: best[name]} == best]


def _spearman(group: pl.DataFrame) -> float | None:
    value: float = group.select(pl.corr("value", "test", method="spearman")).item()
    return value if np.isfinite(value) else None
