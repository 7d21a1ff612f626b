"""Intervals of image metrics over other seeds and other test images.

Shapes: N images, D draws, T distinct scores, S seeds, C categories.
"""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from results.analysis.cells import (
    GROUP,
    SECTION,
    expected_categories,
    label,
    one_cell_per_seed,
    with_every_seed,
)
from results.analysis.statistics import LEVEL, moved
from results.metrics import IMAGE_METRICS

Drawn = dict[str, NDArray[np.float64]]  # (D,) by metric


def bootstrap(
    frame: pl.DataFrame, scores: pl.DataFrame, draws: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """A bootstrap interval for each group and image metric of `table.read`'s frame.

    Test images (`table.read_scores`) are drawn again with replacement, within their category and
    label, the same ones for every cell. The noise of seeds is added as draws of Student's t, which
    keep within 0 and 1 (`moved`): seeds are too few to draw from. low, high: the middle 95 % of the
    drawn means over categories (drawn F1-max and AP lie somewhat higher than the real ones); seeds,
    categories: how many were averaged; complete: whether these are all categories of the data set.
    Cells without stored scores have no row.
    """
    intervals = [
        {**dict(zip(GROUP, group, strict=True)), "metric": metric, **interval}
        for group, by_seed in _drawn(frame, scores, draws, seed).items()
        for metric, interval in _intervals([*by_seed.values()], seed).items()
    ]
    table = pl.DataFrame(intervals, schema=_SCHEMA).join(expected_categories(frame), on="benchmark")
    complete = pl.col("categories") == pl.col("expected")
    return table.with_columns(complete=complete).drop("expected").sort(*GROUP, "metric")


def gaps_over_images(
    frame: pl.DataFrame, scores: pl.DataFrame, a: str, b: str, draws: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Intervals of the gap of two rows over other test sets, by section and image metric.

    low, high: the middle 95 % of the gap a - b of the means over categories and seeds, where both
    are drawn the same images, as in `bootstrap`. The trainings stay as they are.
    """
    by_group = _drawn(frame, scores, draws, seed)
    by_label: dict[tuple[str, ...], dict[str, Drawn]] = {}
    for group, by_seed in by_group.items():
        name = label(dict(zip(GROUP, group, strict=True)))
        if name in (a, b):
            by_label.setdefault(group[: len(SECTION)], {})[name] = _mean([*by_seed.values()])
    rows = []
    for section, drawn in by_label.items():
        for metric in drawn[a] if len(drawn) == 2 else ():
            gaps_D = drawn[a][metric] - drawn[b][metric]
            low, high = np.quantile(gaps_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
            names = dict(zip(SECTION, section, strict=True))
            rows.append(names | {"metric": metric, "low": float(low), "high": float(high)})
    text = {name: pl.String for name in (*SECTION, "metric")}
    return pl.DataFrame(rows, schema=text | {"low": pl.Float64, "high": pl.Float64})


def _mean(by_seed: list[list[Drawn]]) -> Drawn:
    """Each draw's mean over categories and seeds."""
    return {
        metric: np.mean([drawn[metric] for draws_C in by_seed for drawn in draws_C], axis=0)
        for metric in by_seed[0][0]
    }


def _drawn(
    frame: pl.DataFrame, scores: pl.DataFrame, draws: int, seed: int
) -> dict[tuple[str, ...], dict[int, list[Drawn]]]:
    """The metrics of each draw, by group and seed, of each category."""
    rows = with_every_seed(one_cell_per_seed(frame)).filter(pl.col("metric").is_in(IMAGE_METRICS))
    wanted = rows.select(*GROUP, "seed", "cell_id", "category").unique()
    images = wanted.join(scores, on=("cell_id", "category")).sort("key")
    weights = _Weights(draws, seed)
    by_group: dict[tuple[str, ...], dict[int, list[Drawn]]] = {}
    by = (*GROUP, "seed", "category")
    for (*group, trained_seed, _), of_category in images.group_by(by, maintain_order=True):
        labels_N = of_category["label"].to_numpy()
        drawn = resample(
            labels_N, of_category["score"].to_numpy(), weights(of_category["key"], labels_N)
        )
        by_group.setdefault(tuple(group), {}).setdefault(trained_seed, []).append(drawn)
    return by_group


_SCHEMA = pl.Schema(
    {name: pl.String for name in (*GROUP, "metric")}
    | {"low": pl.Float64, "high": pl.Float64, "seeds": pl.Int64, "categories": pl.Int64}
)


def resample(
    labels_N: NDArray[np.bool_], scores_N: NDArray[np.float64], weights_DN: NDArray[np.int32]
) -> Drawn:
    """AUROC, AP and F1-max of D draws at once; an image counts as often as its weight.

    Each draw needs an image of either label. AUROC counts a tie one half, as in `metrics`.
    Other image metrics have no bootstrap interval.
    """
    order_N = np.argsort(-scores_N, kind="stable")
    ranked_N, labels_N1 = scores_N[order_N], labels_N[order_N, None]
    last_T = np.append(np.flatnonzero(ranked_N[1:] != ranked_N[:-1]), len(ranked_N) - 1)
    weights_ND = weights_DN.T[order_N]  # draws side by side: sums down the images are fast
    hits_TD = np.cumsum(weights_ND * labels_N1, axis=0, dtype=np.float64)[last_T]
    false_TD = np.cumsum(weights_ND * ~labels_N1, axis=0, dtype=np.float64)[last_T]
    anomalous_D, normal_D = hits_TD[-1], false_TD[-1]
    gained_TD = np.diff(hits_TD, axis=0, prepend=0)
    before_TD = np.concatenate((np.zeros_like(false_TD[:1]), false_TD[:-1]))
    lost_D = (gained_TD * (false_TD + before_TD)).sum(axis=0)
    called_TD = hits_TD + false_TD
    return {
        "image_auroc": 1 - lost_D / (2 * anomalous_D * normal_D),
        # The first scores may have been drawn 0 times: they gain nothing.
        "image_ap": (gained_TD * hits_TD / np.maximum(called_TD, 1)).sum(axis=0) / anomalous_D,
        "image_f1max": (2 * hits_TD / (called_TD + anomalous_D)).max(axis=0),
    }


class _Weights:
    """Counts of how often each image is drawn; they depend on the images alone, not on scores."""

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self.seed = draws, seed
        self.known: dict[int, NDArray[np.int32]] = {}

    def __call__(self, keys: pl.Series, labels_N: NDArray[np.bool_]) -> NDArray[np.int32]:
        """(draws + 1, N): each image once; then draws, with as many of each label as there are."""
        name = zlib.crc32("\n".join(keys).encode() + labels_N.tobytes())
        if name not in self.known:
            generator = np.random.default_rng((self.seed, name))
            weights_DN = np.zeros((self.draws + 1, len(labels_N)), dtype=np.int32)
            weights_DN[0] = 1
            for label in (True, False):
                (members,) = np.nonzero(labels_N == label)
                drawn = members[generator.integers(0, len(members), (self.draws, len(members)))]
                np.add.at(weights_DN, (np.arange(1, self.draws + 1)[:, None], drawn), 1)
            self.known[name] = weights_DN
        return self.known[name]


def _intervals(by_seed: list[list[Drawn]], seed: int) -> dict[str, dict[str, float | int]]:
    """Each metric's interval, from the draws of each seed and category; the first is the real one.

    The variance of a mean over seeds and images is that over seeds plus that over images.
    """
    metrics = list(by_seed[0][0])
    seeds, draws = len(by_seed), len(by_seed[0][0][metrics[0]])
    several = seeds > 1
    noise_D = np.random.default_rng(seed).standard_t(seeds - 1, draws) if several else 0.0
    counts = {"seeds": seeds, "categories": len(by_seed[0])}
    intervals: dict[str, dict[str, float | int]] = {}
    for metric in metrics:
        means_SD = np.array(
            [np.mean([drawn[metric] for drawn in draws_C], 0) for draws_C in by_seed]
        )
        error = means_SD[:, 0].std(ddof=1) / np.sqrt(seeds) if several else 0.0
        noisy_D = moved(means_SD.mean(axis=0), error * noise_D)
        low, high = np.quantile(noisy_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        intervals[metric] = {"low": float(low), "high": float(high), **counts}
    return intervals
