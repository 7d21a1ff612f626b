"""Intervals of image AUROC over other test images.

An anomalous image has a placement, the share of normal images below it, and so has a normal one,
the share of anomalous ones above it. AUROC is the mean of either kind, and its variance the sum of
those of the two means (DeLong et al., Biometrics 1988). Student's t has Satterthwaite's degrees of
freedom, fewer where a few images decide. How often the intervals hold is measured in
`results/measured/coverage.md`; AP and F1-max have none, as no bootstrap of theirs does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from scipy import stats
from scipy.special import expit, logit

from results.analysis.cells import (
    GROUP,
    METRIC,
    SECTION,
    Record,
    labelled,
    one_cell_per_seed,
    with_every_seed,
)
from results.analysis.statistics import LEVEL
from results.analysis.summary import summary

_ENDS = {"images_low": pl.Float64, "images_high": pl.Float64}


def with_images(frame: pl.DataFrame, scores: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of `summary.summary`; with `table.read_scores`'s also images_low and images_high.

    They are the ends of a 95 % interval of the mean image AUROC for other trainings and other test
    images: the intervals over seeds and over images (on the logit scale), their distances from the
    mean added as squares (Zou and Donner, Statistics in Medicine 2008). Of one seed it is that over
    images. Where every anomalous image stands above every normal one, images_high is null and
    images_low a bound: k pairs without a common image, in each of C categories, are all in order
    with a probability of at most AUROC^(Ck). Both are null for a cell without scores.
    """
    rows = summary(frame)
    if scores is None:
        return rows
    moments = _moments(_placements(frame, scores), GROUP).with_columns(metric=pl.lit(METRIC))
    joined = rows.join(moments, on=(*GROUP, "metric"), how="left", maintain_order="left")
    ends = [_ends(row) for row in joined.to_dicts()]
    return rows.hstack(pl.DataFrame(ends, schema=_ENDS, orient="row"))


def gaps_over_images(frame: pl.DataFrame, scores: pl.DataFrame, a: str, b: str) -> pl.DataFrame:
    """low, high: 95 % of the gap a - b in image AUROC for other test images, by section.

    Both rows are scored on the same images; their trainings stay as they are. A section where no
    image tells them apart has no row.
    """
    placed = labelled(_placements(frame, scores))
    of_a, of_b = (placed.filter(label=name).drop("method", "variant", "label") for name in (a, b))
    keys = (*SECTION, "category", "key", "anomalous")
    both = of_a.join(of_b, on=keys, suffix="_b")
    gaps = both.with_columns(placement=pl.col("placement") - pl.col("placement_b"))
    moments = _moments(gaps, SECTION).filter(pl.col("error") > 0)
    half = pl.Series([_half(row) for row in moments.to_dicts()], dtype=pl.Float64)
    return moments.select(
        *SECTION,
        metric=pl.lit(METRIC),
        low=(pl.col("value") - half).clip(-1, 1),
        high=(pl.col("value") + half).clip(-1, 1),
    )


def _placements(frame: pl.DataFrame, scores: pl.DataFrame) -> pl.DataFrame:
    """The placement of each test image, the mean over seeds, of rows that have all their scores."""
    rows = with_every_seed(one_cell_per_seed(frame)).filter(metric=METRIC)
    wanted = rows.select(*GROUP, "cell_id", "category").unique()
    images = wanted.join(
        scores.rename({"label": "anomalous"}), on=("cell_id", "category"), how="left"
    )
    images = images.filter(pl.col("score").is_not_null().all().over(GROUP))
    alike, all_ = ("cell_id", "category", "anomalous"), ("cell_id", "category")
    rank = pl.col("score").rank("average")
    others_below = (rank.over(all_) - rank.over(alike)) / (
        pl.len().over(all_) - pl.len().over(alike)
    )
    placement = pl.when("anomalous").then(others_below).otherwise(1 - others_below)
    by_image = images.with_columns(placement=placement).group_by(
        *GROUP, "category", "key", "anomalous"
    )
    return by_image.agg(pl.col("placement").mean())


def _moments(placed: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """value: the mean over categories of the placements' mean; error: its standard error over
    images, null where a category has one image of a label; freedom: of the error; pairs: Ck."""
    n, variance = pl.len(), pl.col("placement").var() / pl.len()
    # A variance of n values has 2 n / (kurtosis - 1) degrees of freedom, n - 1 at most.
    kurtosis = pl.col("placement").kurtosis(fisher=False).fill_nan(0)
    doubt = pl.max_horizontal((kurtosis - 1) / (2 * n), 1 / (n - 1)) * variance**2
    kinds = placed.group_by(*by, "category", "anomalous").agg(
        pl.col("placement").mean(), images=n, variance=variance, doubt=doubt
    )
    categories = pl.col("category").n_unique()
    known = pl.col("variance").null_count() == 0
    return kinds.group_by(by).agg(
        value=pl.col("placement").mean(),
        error=pl.when(known).then(pl.col("variance").sum().sqrt() / categories),
        freedom=pl.col("variance").sum() ** 2 / pl.col("doubt").sum(),
        pairs=categories * pl.col("images").min(),
    )


def _half(row: Record) -> float:
    return float(stats.t.ppf((1 + LEVEL) / 2, row["freedom"]) * row["error"])


def _ends(row: Record) -> tuple[float | None, float | None]:
    """images_low and images_high of a row of `summary` with its `_moments`."""
    mean = row["value"]
    if mean in (0, 1):
        bound = (1 - LEVEL) ** (1 / row["pairs"])
        return (bound, None) if mean else (None, 1 - bound)
    if not row["error"]:
        return None, None
    step = _half(row) / (mean * (1 - mean))
    over_images = expit(logit(mean) + np.array([-step, step]))
    over_seeds = [mean if row[end] is None else row[end] for end in ("low", "high")]
    low, high = np.hypot(mean - over_images, mean - np.array(over_seeds))
    return max(0.0, mean - float(low)), min(1.0, mean + float(high))
