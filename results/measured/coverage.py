"""How often the intervals and verdicts of a report are right, on made scores.

`python -m results.measured.coverage [--quick]`

Shapes: R tables, S seeds, C categories, M normal and A anomalous images of each, N images.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from results.analysis.alarms import share_interval
from results.analysis.cells import GROUP, METRIC
from results.analysis.images import gaps_over_images, with_images
from results.analysis.published import AGREES, BELOW, MEAN, TOLERANCE, agreement
from results.analysis.statistics import AHEAD, LEVEL, gap, holm, t_interval, verdict
from results.calibration import expected_rate, threshold

Floats = NDArray[np.float64]
AUROCS = (0.7, 0.9, 0.97, 0.99, 0.999)
IMAGES = ((7, 7), (14, 18), (5, 60), (50, 50), (100, 400))
"""Normal and anomalous images of a category."""
SHARED, DRIFT = 0.9, 0.15
"""The share of an image's score that all trainings see alike, and how far a training moves all
anomalous images of a category, in standard deviations of scores."""
DIFFICULTY = (0.5, 1.0, 1.5)
"""The errors of categories beside their mean."""
GAPS: dict[str, Callable[[np.random.Generator, Sequence[int]], Floats]] = {
    "normal": lambda draw, shape: draw.normal(size=shape),
    "Student's t, 3 degrees": lambda draw, shape: draw.standard_t(3, shape) / 3**0.5,
    "exponential": lambda draw, shape: draw.exponential(size=shape) - 1,
    "lognormal": lambda draw, shape: (
        (draw.lognormal(size=shape) - np.exp(0.5)) / np.sqrt(np.exp(2) - np.exp(1))
    ),
}
"""Gaps of two methods over products, of mean 0 and standard deviation 1."""


class World(NamedTuple):
    """Scores of R tables, and what is true of them."""

    scores: Floats  # (R, S, C, N)
    anomalous: NDArray[np.bool_]  # (N,)
    here: Floats  # (R,): the mean AUROC of all trainings on these images
    trained: Floats  # (R, S): of each of these trainings on all images


def world(
    draw: np.random.Generator, shape: Sequence[int], images: tuple[int, int], auroc: float,
    missed: bool = False, common_RCN: Floats | None = None,
) -> World:  # fmt: skip
    """Scores of (tables, seeds, categories) `shape`, normal in both kinds of images.

    Where defects are `missed`, half of the errors are of anomalous images that score as normal
    ones do. `common_RCN` is what another method sees in the same images, and half of this one's.
    """
    (R, S, C), (normal, anomalous) = shape, images
    anomalous_N = np.arange(normal + anomalous) >= normal
    errors_C = (1 - auroc) * np.resize(DIFFICULTY, C) if C > 1 else np.array([1 - auroc])
    missed_C = errors_C * missed
    seen_C = (1 - errors_C - missed_C / 2) / (1 - missed_C)
    spread = np.sqrt(2 + DRIFT**2)
    lift_C = spread * stats.norm.ppf(seen_C)
    own_RCN = draw.normal(size=(R, C, len(anomalous_N)))
    image_RCN = own_RCN if common_RCN is None else (own_RCN + common_RCN) / np.sqrt(2)
    seen_RCN = (draw.random(own_RCN.shape) >= missed_C[:, None]) & anomalous_N
    moves_RSC = DRIFT * (draw.normal(size=(R, S, 1)) + draw.normal(size=(R, S, C))) / np.sqrt(2)
    noise_RSCN = draw.normal(size=(R, S, C, len(anomalous_N)))
    scores_RSCN = np.sqrt(SHARED) * image_RCN[:, None] + np.sqrt(1 - SHARED) * noise_RSCN
    scores_RSCN += seen_RCN[:, None] * (lift_C + moves_RSC)[..., None]
    # Over all trainings each pair of these images is in order with a known probability.
    alike_RCN = np.sqrt(SHARED) * image_RCN + seen_RCN * lift_C[:, None]
    apart = alike_RCN[..., anomalous_N, None] - alike_RCN[..., None, ~anomalous_N]
    drift = np.where(seen_RCN[..., anomalous_N, None], DRIFT, 0)
    here_R = stats.norm.cdf(apart / np.sqrt(2 * (1 - SHARED) + drift**2)).mean(axis=(1, 2, 3))
    trained_RSC = stats.norm.cdf((lift_C + moves_RSC) / np.sqrt(2))
    trained_RSC = (1 - missed_C) * trained_RSC + missed_C / 2
    return World(scores_RSCN, anomalous_N, here_R, trained_RSC.mean(axis=2))


def tables(made: World, method: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A frame and scores as `table.read` and `read_scores` give them; tables are data sets."""
    R, S, C, N = made.scores.shape
    ranks_RSCN = stats.rankdata(made.scores, axis=-1)[..., made.anomalous]
    count = ranks_RSCN.shape[-1]
    auroc_RSC = (ranks_RSCN.mean(axis=-1) - (count + 1) / 2) / (N - count)
    table, seed, category = (axis.ravel() for axis in np.indices((R, S, C)))
    cells = pl.DataFrame({"table": table, "seed": seed, "category": category}).with_columns(
        cell_id=pl.format("{}-{}-{}", pl.lit(method), "table", "seed"),
        category=pl.format("c{}", "category"),
    )
    text = {name: pl.lit("") for name in GROUP} | {"method": pl.lit(method)}
    costs = ("fit_seconds", "images_per_second", "peak_memory_bytes")
    frame = cells.with_columns(
        **text | {"benchmark": pl.col("table").cast(pl.String), "mode": pl.lit("multi-class")},
        **{name: pl.lit(None, pl.Float64) for name in costs},
        metric=pl.lit(METRIC), value=pl.Series(auroc_RSC.ravel()), status=pl.lit("done"),
        reason=pl.lit(""), finished_at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)),
    )  # fmt: skip
    scores = cells[np.repeat(np.arange(len(cells)), N)].select(
        "cell_id",
        "category",
        key=pl.Series(np.tile(np.arange(N), len(cells))).cast(pl.String),
        label=pl.Series(np.tile(made.anomalous, len(cells))),
        score=pl.Series(made.scores.ravel()),
    )
    return frame, scores


def covered(low: pl.Series, high: pl.Series, truth_R: Floats) -> str:
    """Percent of the intervals that hold the truth, and of tables that have one if not all do."""
    known = (low.is_not_null() | high.is_not_null()).to_numpy()
    lows, highs = low.fill_null(-1).to_numpy(), high.fill_null(1).to_numpy()
    if not known.any():
        return "-"
    held = ((lows <= truth_R + 1e-12) & (truth_R <= highs + 1e-12))[known].mean()
    return f"{100 * held:.1f}" + ("" if known.all() else f" of {100 * known.mean():.0f}")


def over_seeds_and_images(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: AUROC's two intervals by seeds, categories and images."""
    ways = [(S, C, (14, 18), False) for C in (1, 3, 15) for S in (1, 2, 3, 5, 10)]
    ways += [(S, 1, images, missed) for missed in (False, True) for S in (1, 3)
             for images in IMAGES]  # fmt: skip
    for seeds, categories, images, missed in dict.fromkeys(ways):
        lines: dict[str, list[str]] = {"seeds": [], "images too": []}
        for auroc in AUROCS:
            draw = np.random.default_rng((seeds, categories, *images, int(1000 * auroc)))
            R = repeats if sum(images) < 500 else repeats // 2
            made = world(draw, (R, seeds, categories), images, auroc, missed)
            rows = with_images(*tables(made, "a")).sort(pl.col("benchmark").cast(pl.Int64))
            truth_R = made.trained[:, 0] if seeds == 1 else np.full(R, auroc)
            lines["seeds"].append(covered(rows["low"], rows["high"], made.here))
            lines["images too"].append(covered(rows["images_low"], rows["images_high"], truth_R))
        counts = [str(seeds), str(categories), " + ".join(map(str, images))]
        for kind, values in lines.items():
            if set(values) != {"-"}:
                yield [kind, *counts, "missed" if missed else "binormal", *values]


def of_other_metrics(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: intervals over seeds of AP and F1-max; the truth is of 200 trainings."""
    for seeds in (2, 3, 5, 10):
        lines: dict[str, list[str]] = {"seeds, AP": [], "seeds, F1-max": []}
        for auroc in AUROCS:
            draw = np.random.default_rng((6, seeds, int(1000 * auroc)))
            made = world(draw, (repeats, seeds + 200, 3), (14, 18), auroc)
            falling = made.anomalous[np.argsort(-made.scores, axis=-1)]
            hits, called = falling.cumsum(axis=-1), np.arange(1, falling.shape[-1] + 1)
            ap = (hits / called * falling).sum(axis=-1) / 18
            for kind, values in zip(lines, (ap, (2 * hits / (called + 18)).max(-1)), strict=True):
                of_training = values.mean(axis=2)
                ours = of_training[:, :seeds]
                rows = pl.DataFrame({"mean": ours.mean(axis=1), "std": ours.std(axis=1, ddof=1)})
                ends = t_interval(rows.with_columns(seeds=pl.lit(seeds)))
                truth_R = of_training[:, seeds:].mean(axis=1)
                lines[kind].append(covered(ends["low"], ends["high"], truth_R))
        for kind, cells in lines.items():
            yield [kind, str(seeds), "3", "14 + 18", "binormal", *cells]


def of_differences(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: intervals of the difference of two methods."""
    for seeds, categories, images in ((1, 1, (14, 18)), (2, 1, (50, 50)), (2, 3, (14, 18)),
                                      (3, 15, (14, 18)), (5, 3, (50, 50))):  # fmt: skip
        lines: dict[str, list[str]] = {"another training": [], "another test set": []}
        for auroc in AUROCS:
            draw = np.random.default_rng((7, seeds, categories, *images, int(1000 * auroc)))
            shape = (repeats, seeds, categories)
            common_RCN = draw.normal(size=(repeats, categories, sum(images)))
            made = [world(draw, shape, images, a, common_RCN=common_RCN)
                    for a in (auroc, 1 - 1.3 * (1 - auroc))]  # fmt: skip
            (frame_a, scores_a), (frame_b, scores_b) = map(tables, made, "ab")
            frame, scores = pl.concat([frame_a, frame_b]), pl.concat([scores_a, scores_b])
            drawn = gaps_over_images(frame, scores, "a", "b")
            every = pl.DataFrame({"benchmark": [str(number) for number in range(repeats)]})
            drawn = every.join(drawn, on="benchmark", how="left", maintain_order="left")
            truth_R = (made[0].trained - made[1].trained).mean(axis=1)
            lines["another test set"].append(covered(drawn["low"], drawn["high"], truth_R))
            values = [f["value"].to_numpy().reshape(repeats, seeds, categories)
                      for f in (frame_a, frame_b)]  # fmt: skip
            gaps = pl.DataFrame([gap(g_SC.T) for g_SC in values[0] - values[1]])
            low, high = gaps["low"].cast(pl.Float64), gaps["high"].cast(pl.Float64)
            truth_R = made[0].here - made[1].here
            lines["another training"].append(covered(low, high, truth_R))
        counts = [str(seeds), str(categories), " + ".join(map(str, images))]
        for kind, row in lines.items():
            if set(row) != {"-"}:
                yield [kind, *counts, "", *row]


def said(gaps_PCS: Floats) -> list[str]:
    """The verdicts on P pairs of one table, whose categories are all there."""
    pairs = [gap(gaps_CS) | {"a": "a", "b": "b", "complete": True} for gaps_CS in gaps_PCS]
    corrected = holm([pair["p_value"] for pair in pairs])
    return [verdict(pair, p, len(pairs)) for pair, p in zip(pairs, corrected, strict=True)]


def named(gaps_PCS: Floats) -> list[str]:
    """Who is called better, or ahead by one training, in one table."""
    return [words[0] for words in said(gaps_PCS) if words.endswith(("is better", AHEAD))]


def with_seeds(draw: np.random.Generator, gaps_PC: Floats, seeds: int = 3) -> Floats:
    """Gaps over products with a little noise of training."""
    return gaps_PC[..., None] + 0.1 * draw.normal(size=(*gaps_PC.shape, seeds))


def of_equal_products(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: how often a command names a winner where no method is better on average."""
    for name, draws in GAPS.items():
        for products in (6, 10, 15, 21):
            draw = np.random.default_rng((8, products, len(name)))
            pairs = [draws(draw, (repeats, 1, products)), draws(draw, (repeats, 1, products)) + 1]
            rates = [
                np.mean([bool(named(with_seeds(draw, gaps_PC))) for gaps_PC in gaps_RPC])
                for gaps_RPC in pairs
            ]
            yield ["one pair", name, str(products), *(f"{100 * rate:.1f}" for rate in rates)]
        draw = np.random.default_rng((9, len(name)))
        hits = []
        for _ in range(repeats // 4):  # eight methods; one is unlike the others, by such gaps
            values_LC = 0.3 * draw.normal(size=(8, 15))
            values_LC[0] += draws(draw, (15,))
            first, second = np.triu_indices(8, 1)
            hits.append(bool(named(with_seeds(draw, values_LC[first] - values_LC[second]))))
        yield ["28 pairs of a report", name, "15", f"{100 * np.mean(hits):.1f}", ""]
        draw = np.random.default_rng((10, len(name)))
        asked = []
        for _ in range(repeats // 2):  # seven metrics, half of whose variance is common
            common_1C, own_PC = draws(draw, (1, 15)), draws(draw, (7, 15))
            asked.append(bool(named(with_seeds(draw, (common_1C + own_PC) / np.sqrt(2)))))
        yield ["seven metrics asked for", name, "15", f"{100 * np.mean(asked):.1f}", ""]


def wrong_names(repeats: int) -> str:
    """How many tables name a winner whose mean or whose ranks say otherwise, of so many."""
    draw, wrong, won = np.random.default_rng(11), 0, 0
    for _ in range(repeats):
        products = int(draw.integers(6, 22))
        gaps_C = np.abs(draw.normal(0.1, 0.05, products))  # ahead by a little on nearly all,
        behind = draw.random(products) < draw.choice([0.07, 0.2, 0.4])
        gaps_C[behind] *= -draw.choice([1, 5, 60])  # and behind on some, by more
        gaps_1CS = with_seeds(draw, gaps_C[None]) if draw.random() < 0.5 else gaps_C[None, :, None]
        means_C = gaps_1CS[0].mean(axis=1)
        ranks = (stats.rankdata(np.abs(means_C)) * np.sign(means_C)).sum()
        for name in named(gaps_1CS):
            won += 1
            wrong += (name == "a") != (means_C.mean() > 0) or (name == "a") != (ranks > 0)
    return f"{wrong} wrong names in {repeats} tables, of which {won} name one"


def of_published(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: verdicts on published means, by how far ours truly is from them."""
    for seeds in (2, 3, 5, 10):
        for noise in (0.001, 0.005, 0.02):
            cells = []
            for off in (0.0, TOLERANCE, 2 * TOLERANCE):
                draw = np.random.default_rng((12, seeds, int(1000 * noise), int(1000 * off)))
                ours_RS = np.minimum(0.97 - off + noise * draw.normal(size=(repeats, seeds)), 1)
                theirs_R = 0.97 + noise * draw.normal(size=repeats) / np.sqrt(5)
                rows = pl.DataFrame(
                    {"mean": ours_RS.mean(axis=1), "std": ours_RS.std(axis=1, ddof=1)}
                ).with_columns(seeds=pl.lit(seeds))
                verdicts = [
                    agreement(row | {"value": value, "std": noise, "category": MEAN})
                    for row, value in zip(t_interval(rows).to_dicts(), theirs_R, strict=True)
                ]
                cells.append(" / ".join(f"{100 * np.mean([v == w for v in verdicts]):.1f}"
                                        for w in (AGREES, BELOW)))  # fmt: skip
            yield [str(seeds), f"{100 * noise:g}", *cells]


def of_alarms(repeats: int) -> Iterator[list[str]]:
    """Lines of a table: intervals of shares of images, and what held-out images foretell."""
    for images in (14, 60, 500):
        row = []
        for share in (0.01, 0.05, 0.3, 0.9):
            draw = np.random.default_rng((13, images, int(100 * share)))
            seen_R = draw.binomial(images, share, repeats) / images
            ends = [share_interval(float(seen), images) for seen in seen_R]
            row.append(f"{100 * np.mean([low <= share <= high for low, high in ends]):.1f}")
        yield ["share of test images", str(images), *row]
    for held in (19, 60, 200):
        draw, alpha, tested = np.random.default_rng((14, held)), 0.05, 60
        low, high = expected_rate([held], [tested], alpha)
        scores_RN = draw.normal(size=(repeats, held + tested))
        rates = [float((row[held:] > threshold(row[:held], alpha)).mean()) for row in scores_RN]
        inside = np.mean([low <= rate <= high for rate in rates])
        yield [f"expected of {tested} images, {held} held out", "", "", f"{100 * inside:.1f}"]


def show(title: str, header: Sequence[str], lines: Iterator[list[str]]) -> None:
    """Print a Markdown table, a line as soon as it is known."""
    print(f"\n## {title}\n\n| {' | '.join(header)} |\n|{' --- |' * len(header)}", flush=True)
    for line in lines:
        print(f"| {' | '.join(line + [''] * (len(header) - len(line)))} |", flush=True)


def main(quick: bool) -> None:
    """Print how often each kind of interval holds the truth, and each verdict is wrong."""
    repeats = 12 if quick else 400
    aurocs = [f"AUROC {100 * auroc:g}" for auroc in AUROCS]
    shape = ["seeds", "categories", "normal + anomalous", "scores", *aurocs]
    title = f"Intervals of a mean: % that hold the truth, {100 * LEVEL:g} are said"
    show(title, ["interval", *shape], over_seeds_and_images(repeats))
    show("The same of AP and F1-max", ["interval", *shape], of_other_metrics(repeats))
    show("The same of a difference", ["interval", *shape], of_differences(repeats))
    header = ["command", "gaps over products", "products", "% named, equal", "% named, 1 SD apart"]
    show("Who is called better", header, of_equal_products(5 * repeats))
    print(f"\n{wrong_names(25 * repeats)}", flush=True)
    header = [
        "seeds",
        "noise, points",
        *(f"{100 * off * TOLERANCE:g} points below" for off in range(3)),
    ]
    show("Published: % agrees / below", header, of_published(repeats))
    header = ["interval", "images", *(f"{share} %" for share in (1, 5, 30, 90))]
    show("Alarms", header, of_alarms(5 * repeats))


if __name__ == "__main__":
    main("--quick" in sys.argv)
