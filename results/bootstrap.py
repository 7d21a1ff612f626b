"""How far image metrics would differ with other seeds and other test images."""

from __future__ import annotations

import zlib

import numpy as np
import polars as pl
from numpy.typing import NDArray

from results.cells import GROUP, expected_categories, one_cell_per_seed, with_every_seed
from results.metrics import IMAGE_METRICS
from results.statistics import LEVEL

Drawn = dict[str, NDArray[np.float64]]  # a value for each draw, by metric


def bootstrap(
    frame: pl.DataFrame, scores: pl.DataFrame, draws: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """One row for each group and image metric of `table.read`'s frame: bootstrap low and high.

    Both seeds and test images (`table.read_scores`) are drawn again with replacement; images
    within their category and label, the same ones for every cell. low, high: what holds the middle
    95 % of the means over categories; seeds, categories: what was averaged; complete: whether
    these are all categories of the data set. Cells without stored scores have no row.
    """
    rows = with_every_seed(one_cell_per_seed(frame)).filter(pl.col("metric").is_in(IMAGE_METRICS))
    wanted = rows.select(*GROUP, "seed", "cell_id", "category").unique()
    images = wanted.join(scores, on=("cell_id", "category")).sort("key")
    found: dict[tuple[str, ...], dict[int, list[Drawn]]] = {}
    for (*group, of_seed, _), part in images.group_by(
        *GROUP, "seed", "category", maintain_order=True
    ):
        values = resample(
            part["label"].to_numpy(), part["score"].to_numpy(), _weights(part, draws, seed)
        )
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
    labels_N: NDArray[np.bool_], scores_N: NDArray[np.float64], weights_DN: NDArray[np.int64]
) -> Drawn:
    """The image metrics of D draws at once; an image counts as often as its weight.

    Each draw needs an image of either label. AUROC counts a tie one half, as in `metrics`.
    """
    order = np.argsort(-scores_N, kind="stable")
    ranked = scores_N[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    weights = weights_DN[:, order]
    hits = np.cumsum(weights * labels_N[order], axis=1)[:, last]
    false = np.cumsum(weights * ~labels_N[order], axis=1)[:, last]
    anomalous, normal = hits[:, -1:], false[:, -1:]
    gained = np.diff(hits, axis=1, prepend=0)
    before = np.concatenate((np.zeros_like(normal), false[:, :-1]), axis=1)
    won = (gained * (2 * normal - false - before)).sum(axis=1)
    return {
        "image_auroc": won / (2 * anomalous * normal)[:, 0],
        # The first scores may have been drawn 0 times: they gain nothing.
        "image_ap": (gained * hits / np.maximum(hits + false, 1)).sum(axis=1) / anomalous[:, 0],
        "image_f1max": (2 * hits / (hits + false + anomalous)).max(axis=1),
    }


def _weights(part: pl.DataFrame, draws: int, seed: int) -> NDArray[np.int64]:
    """How often each image is drawn: they depend on the images alone, not on who scored them."""
    labels = part["label"].to_numpy()
    name = zlib.crc32("\n".join(part["key"]).encode())
    generator = np.random.default_rng((seed, name))
    weights = np.zeros((draws, len(labels)), dtype=np.int64)
    for of in (True, False):
        (members,) = np.nonzero(labels == of)
        if len(members):
            even = np.full(len(members), 1 / len(members))
            weights[:, members] = generator.multinomial(len(members), even, size=draws)
    return weights


def _intervals(by_seed: list[list[Drawn]], seed: int) -> dict[str, dict[str, float | int]]:
    """Each metric's interval: seeds are drawn again from values by seed and category."""
    seeds, draws = len(by_seed), len(by_seed[0][0][IMAGE_METRICS[0]])
    generator = np.random.default_rng(seed)
    chosen_DS = generator.integers(0, seeds, (draws, seeds))
    found: dict[str, dict[str, float | int]] = {}
    for metric in IMAGE_METRICS:
        of_SD = np.array([np.mean([drawn[metric] for drawn in drawns], 0) for drawns in by_seed])
        means = of_SD[chosen_DS, np.arange(draws)[:, None]].mean(axis=1)
        low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        counts = {"seeds": seeds, "categories": len(by_seed[0])}
        found[metric] = {"low": float(low), "high": float(high), **counts}
    return found
