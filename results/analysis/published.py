"""Published multi-class numbers beside ours: the LafitE paper's, ADer's independent ones, and what
authors of later methods report of their own.

`results/paper/` holds Tables 1, 2 and 4 of the paper (five seeds for LafitE, an unknown number for
the others; its AU-PR table could not be had), what ADer reports at 256 pixels with one seed, and of
Dinomaly and INP-Former their authors' image AUROC (means over categories, one seed).
Numbers are compared where the protocol is the same, see `protocols`; elsewhere reasons say why not.
"""

from __future__ import annotations

import math
from pathlib import Path

import polars as pl

from results.analysis.cells import GROUP, Record, one_cell_per_seed, with_every_seed
from results.analysis.protocols import mismatches
from results.analysis.statistics import t_interval
from results.analysis.summary import summary

MEAN = "mean"
"""The category of what is averaged over the categories of a data set."""
INTER_STD = "inter_category_std"
TOLERANCE, CATEGORY_TOLERANCE = 0.01, 0.03
"""How far a mean, and a value of one category, may lie from a number that it agrees with."""
THEIRS = 2.776 / 5**0.5
"""Half a 95 % interval of a mean of the paper's five seeds, in standard deviations."""
CATEGORIES = {"visa": 12, "real_iad": 30}
"""Number of categories of the data sets of which means alone are published."""
AGREES, BELOW = "agrees", "below: not reproduced"
ABOVE = "above: too good is a finding too"
NOISY = "too noisy to tell"

_FOLDER = Path(__file__).parents[1] / "paper"
_KEYS = ("benchmark", "method", "metric", "category")
_ABLATIONS = {"lafite_without_editing": "without editing", "uniad_with_editing": "with editing"}


def published() -> pl.DataFrame:
    """source, benchmark, method, variant, epochs, metric, category, value, std of every number.

    value and std (over seeds) are fractions. category is a real one, MEAN or INTER_STD, the
    paper's spread over categories. epochs is null where the source does not vary them.
    """
    ablation = pl.read_csv(_FOLDER / "table4_ablation.csv").unpivot(
        index=["benchmark", "variant"], variable_name="metric", value_name="percent"
    )
    return pl.concat(
        [
            _table("table1_mvtec", benchmark="mvtec", source="paper", variant=""),
            _table("table2_mpdd", benchmark="mpdd", source="paper", variant=""),
            _numbers(
                ablation.filter(pl.col("variant").is_in(_ABLATIONS)),
                source="paper", category=MEAN,
                method=pl.col("variant").str.split("_").list.first(),
                variant=pl.col("variant").replace(_ABLATIONS),
            ),
            _table("ader", source="ader", category=MEAN, variant=""),
            _table("authors", source="authors", category=MEAN, variant=""),
        ]
    )  # fmt: skip


def beside_published(frame: pl.DataFrame) -> pl.DataFrame:
    """Each of our means, by category and overall, beside each number published for it.

    mean, low, high, seeds: ours, with the interval over seeds; value, std: theirs; difference:
    ours minus theirs; reason: why they are not comparable, empty where they are. verdict: null
    where they are not; AGREES where the interval of the difference (ours, and THEIRS times their
    std) lies within the tolerance, BELOW or ABOVE where it lies beyond, NOISY else or of one seed.
    """
    numbers = published().filter(pl.col("category") != INTER_STD)
    numbers = numbers.rename({"variant": "their_variant"})
    real = numbers.filter(pl.col("category") != MEAN).group_by("benchmark")
    counts = real.agg(expected=pl.col("category").n_unique().cast(pl.Int64))
    others = {"benchmark": list(CATEGORIES), "expected": list(CATEGORIES.values())}
    numbers = numbers.join(pl.concat([counts, pl.DataFrame(others)]), on="benchmark")
    rows = _ours(frame).join(numbers, on=_KEYS, maintain_order="left_right")
    known = [row for row in rows.to_dicts() if _named(row)]
    judged = [row | _judged(row) for row in known]
    names = (*GROUP, "metric", "category", "source", "epochs", "value", "std", "mean", "low")
    columns = [*names, "high", "seeds", "difference", "verdict", "reason"]
    schema = {name: rows.schema.get(name, pl.String) for name in columns}
    return pl.DataFrame(judged, schema=schema | {"difference": pl.Float64})


def agreement(row: Record) -> str:
    """The verdict on a row of `beside_published` whose numbers are comparable."""
    tolerance = TOLERANCE if row["category"] == MEAN else CATEGORY_TOLERANCE
    if row["seeds"] < 2:
        return NOISY
    # Seeds that are all equal have no interval: nothing was seen of noise.
    ours = [row["mean"] if row[end] is None else row[end] for end in ("low", "high")]
    theirs, difference = THEIRS * (row["std"] or 0), row["mean"] - row["value"]
    low = difference - math.hypot(row["mean"] - ours[0], theirs)
    high = difference + math.hypot(ours[1] - row["mean"], theirs)
    if -tolerance <= low and high <= tolerance:
        return AGREES
    if low <= tolerance and -tolerance <= high:
        return NOISY
    return ABOVE if low > tolerance else BELOW


def _table(name: str, **columns: str) -> pl.DataFrame:
    types = {"seed_std": pl.Float64, "epochs": pl.Int64}
    return _numbers(pl.read_csv(_FOLDER / f"{name}.csv", schema_overrides=types), **columns)


def _numbers(frame: pl.DataFrame, **columns: str | pl.Expr) -> pl.DataFrame:
    """The columns of `published`: those of the frame, and others, as text or an expression."""
    unknown = {"seed_std": pl.lit(None, pl.Float64), "epochs": pl.lit(None, pl.Int64)}
    missing = {name: null for name, null in unknown.items() if name not in frame.columns}
    texts = {name: pl.lit(text) for name, text in columns.items() if isinstance(text, str)}
    full = frame.with_columns(**missing | columns | texts)
    return full.select(
        *("source", "benchmark", "method", "variant", "epochs", "metric"),
        pl.col("category").replace({"average": MEAN}),
        value=(pl.col("percent") / 100).round(6),
        std=pl.col("seed_std") / 100,
    )


def _ours(frame: pl.DataFrame) -> pl.DataFrame:
    """Our means, overall and by category, with the settings that they were made with."""
    done = one_cell_per_seed(frame)
    keys = (*GROUP, "metric", "category")
    seeds = (
        with_every_seed(done)
        .group_by(keys)
        .agg(mean=pl.col("value").mean(), std=pl.col("value").std(), seeds=pl.len())
    )
    whole = summary(frame).drop_nulls("mean").with_columns(category=pl.lit(MEAN))
    columns = [*keys, "mean", "low", "high", "seeds"]
    both = pl.concat([means.select(columns) for means in (whole, t_interval(seeds))])
    settings = done.group_by(GROUP).agg(pl.col("config_json", "knobs_json").first())
    counts = whole.select(*GROUP, "metric", "categories")
    return both.join(counts, on=(*GROUP, "metric")).join(settings, on=GROUP).sort(keys)


def _named(row: Record) -> bool:
    """Whether the number is published for this row: of an ablation, for the same one alone."""
    if row["their_variant"] or row["variant"] in _ABLATIONS.values():
        return bool(row["variant"] == row["their_variant"])
    return True


def _judged(row: Record) -> Record:
    difference = row["mean"] - row["value"]
    if reason := "; ".join(mismatches(row)):
        return {"difference": difference, "verdict": None, "reason": reason}
    return {"difference": difference, "verdict": agreement(row), "reason": ""}
