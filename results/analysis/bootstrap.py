"""How far image metrics would differ with other seeds and other test images."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from results.analysis.cells import GROUP, expected_categories, one_cell_per_seed, with_every_seed
from results.analysis.statistics import LEVEL
from results.metrics import IMAGE_METRICS

Drawn = dict[str, NDArray[np.float64]]  # a value for each draw, by metric


def bootstrap(
    frame: pl.DataFrame, scores: pl.DataFrame, draws: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """One row for each group and image metric of `table.read`'s frame: bootstrap low and high.

    Test images (`table.read_scores`) are drawn again with replacement, within their category and
    label and the same ones for every cell; the noise of seeds is added as draws of Student's t, for
    a few seeds are too few to draw from. low, high: what holds the middle 95 % of the means over
    categories (drawn F1-max and AP lie somewhat higher than the real ones); seeds, categories:
    what was averaged; complete: whether these are all categories of the data set. Cells without
    stored scores have no row.
    """
    rows = with_every_seed(one_cell_per_seed(frame)).filter(pl.col("metric").is_in(IMAGE_METRICS))
    wanted = rows.select(*GROUP, "seed", "cell_id", "category").unique()
    images = wanted.join(scores, on=("cell_id", "category")).sort("key")
    weights = _Weights(draws, seed)
    found: dict[tuple[str, ...], dict[int, list[Drawn]]] = {}
    for (*group, of_seed, _), part in images.group_by(
        *GROUP, "seed", "category", maintain_order=True
    ):
        labels = part["label"].to_numpy()
        values = resample(labels, part["score"].to_numpy(), weights.of(part["key"], labels))
        found.setdefault(tuple(group), {}).setdefault(of_seed, []).append(values)
    intervals = [
        {**dict(zip(GROUP, group, strict=True)), "metric": metric, **interval}
        for group, by_seed in found.items()
        for metric, interval in _intervals([*by_seed.values()], seed).items()
    ]
    table = pl.DataFrame(intervals, schema=_SCHEMA).join(expected_categories(frame), on="benchmark")
    complete = pl.col("categories") == pl.col("expected")
    return table.with_columns(complete=complete).drop("expected").sort(*GROUP, "metric")


_SCHEMA = pl.Schema(
    {name: pl.String for name in (*GROUP, "metric")}
    | {"low": pl.Float64, "high": pl.Float64, "seeds": pl.Int64, "categories": pl.Int64}
)


def resample(
    labels_N: NDArray[np.bool_], scores_N: NDArray[np.float64], weights_DN: NDArray[np.int32]
) -> Drawn:
    """The image metrics of D draws at once; an image counts as often as its weight.

    Each draw needs an image of either label. AUROC counts a tie one half, as in `metrics`.
    """
    order = np.argsort(-scores_N, kind="stable")
    ranked = scores_N[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    weights_ND = weights_DN.T[order]  # draws side by side: sums down the images are fast
    hits = np.cumsum(weights_ND * labels_N[order, None], axis=0, dtype=np.float64)[last]
    false = np.cumsum(weights_ND * ~labels_N[order, None], axis=0, dtype=np.float64)[last]
    anomalous, normal = hits[-1], false[-1]
    gained = np.diff(hits, axis=0, prepend=0)
    before = np.concatenate((np.zeros_like(false[:1]), false[:-1]))
    found = hits + false
    return {
        "image_auroc": 1 - (gained * (false + before)).sum(axis=0) / (2 * anomalous * normal),
        # The first scores may have been drawn 0 times: they gain nothing.
        "image_ap": (gained * hits / np.maximum(found, 1)).sum(axis=0) / anomalous,
        "image_f1max": (2 * hits / (found + anomalous)).max(axis=0),
    }


class _Weights:
    """How often each image is drawn: that depends on the images alone, not on who scored them."""

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self.seed = draws, seed
        self.known: dict[int, NDArray[np.int32]] = {}

    def of(self, keys: pl.Series, labels: NDArray[np.bool_]) -> NDArray[np.int32]:
        """(draws + 1, images): all images once, then each label as often as there are of it."""
        name = zlib.crc32("\n".join(keys).encode() + labels.tobytes())
        if name not in self.known:
            generator = np.random.default_rng((self.seed, name))
            weights = np.zeros((self.draws + 1, len(labels)), dtype=np.int32)
            weights[0] = 1
            for of in (True, False):
                (members,) = np.nonzero(labels == of)
                chosen = members[generator.integers(0, len(members), (self.draws, len(members)))]
                np.add.at(weights, (np.arange(1, self.draws + 1)[:, None], chosen), 1)
            self.known[name] = weights
        return self.known[name]


def _intervals(by_seed: list[list[Drawn]], seed: int) -> dict[str, dict[str, float | int]]:
    """Each metric's interval, from the draws of each seed and category; the first is the real one.

    The variance of a mean over seeds and images is that over seeds plus that over images.
    """
    seeds, draws = len(by_seed), len(by_seed[0][0][IMAGE_METRICS[0]])
    several = seeds > 1
    noise_D = np.random.default_rng(seed).standard_t(seeds - 1, draws) if several else 0.0
    found: dict[str, dict[str, float | int]] = {}
    for metric in IMAGE_METRICS:
        of_SD = np.array([np.mean([drawn[metric] for drawn in drawns], 0) for drawns in by_seed])
        error = of_SD[:, 0].std(ddof=1) / np.sqrt(seeds) if several else 0.0
        means_D = of_SD.mean(axis=0) + error * noise_D
        low, high = np.quantile(means_D, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        counts = {"seeds": seeds, "categories": len(by_seed[0])}
        found[metric] = {"low": float(low), "high": float(high), **counts}
    return found
