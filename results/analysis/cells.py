"""Choice of the finished cells that a report counts, and of the categories that it averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from results.files import ResultsError
from results.identity import POOLED, parts
from results.profiles import DEFAULT_PROFILE, PROFILES
from results.table import DONE

SECTION = ("benchmark", "data", "mode", "preset", "profile", "shared")
"""Columns that all rows of a table share: sections are never averaged or compared."""
GROUP = (*SECTION, "method", "variant")
"""Columns that all cells behind a row share; these differ in seed, in separate mode in category."""
METRIC = "image_auroc"
"""The metric that rows are compared and knobs are chosen by unless others are asked for."""
Record = dict[str, Any]


def one_cell_per_seed(frame: pl.DataFrame) -> pl.DataFrame:
    """The finished rows of one cell for each group and seed.

    Of several cells that with the most categories counts, of these the newest: one model's
    categories never fill another's gaps. In separate mode each category is a model of its own.
    Adds breadth, the number of real categories in a row's cell.
    """
    alone = pl.when(pl.col("mode") == "separate").then("category").otherwise(pl.lit(""))
    real = pl.col("category").filter(pl.col("category") != POOLED)
    done = frame.filter(pl.col("status") == DONE).with_columns(
        breadth=real.n_unique().over("cell_id"), alone=alone
    )
    ranked = done.sort("breadth", "finished_at", descending=True, maintain_order=True)
    best = pl.col("cell_id").first().over(*GROUP, "seed", "alone")
    return ranked.filter(pl.col("cell_id") == best).drop("alone")


def with_every_seed(done: pl.DataFrame) -> pl.DataFrame:
    """The rows of `one_cell_per_seed` to average: real categories measured with every seed."""
    single = done.filter(pl.col("category") != POOLED, pl.col("value").is_not_null())
    keys = (*GROUP, "metric")
    seeds = pl.col("seed").n_unique()
    return single.filter(seeds.over(*keys, "category") == seeds.over(*keys))


def expected_categories(frame: pl.DataFrame) -> pl.DataFrame:
    """benchmark, metric, expected: the number of its real categories that any row has a value of.

    A category without anomalous images has none of any row: it is left out, not missing.
    """
    known = frame.filter(pl.col("category") != POOLED, pl.col("value").is_not_null())
    return known.group_by("benchmark", "metric").agg(expected=pl.col("category").n_unique())


def undefined(frame: pl.DataFrame) -> list[str]:
    """A line for each reason why values of a section are null: of which metrics and categories."""
    done = one_cell_per_seed(frame)
    known = pl.col("value").is_not_null().any()
    kinds = {"known": known.over("metric", "category"), "has_mean": known.over("metric")}
    by = ("reason", *kinds)
    rows = done.with_columns(**kinds).filter(pl.col("value").is_null())
    reasons = rows.group_by(by).agg(pl.col("metric", "category").unique(maintain_order=True))
    return [
        f"{', '.join(metrics)} of {', '.join(sorted(categories))}: {reason}"
        + ("; left out of means and ranks" if has_mean and not known else "")
        for reason, known, has_mean, metrics, categories in reasons.sort(by).iter_rows()
    ]


def label(row: Mapping[str, Any]) -> str:
    """The name of a row in tables: its method, and of its variant what not all rows share."""
    shared = parts(row["shared"])
    own = [part for part in parts(row["variant"]) if part not in shared]
    return " ".join(filter(None, (row["method"], ", ".join(own))))


def title(row: Mapping[str, Any]) -> str:
    """The name of a row's section; the metric profile only where it is not the default."""
    names = [f"{row['benchmark']} {row['data']}".rstrip(), row["mode"], row["preset"]]
    if row["profile"] != DEFAULT_PROFILE:
        names.append(f"metrics of {row['profile']}")
    return " · ".join(names)


def heading(frame: pl.DataFrame) -> str:
    """The title of a section, and what holds of all its rows: how much of the data set there is,
    which pixels are judged, settings and backbone."""
    row = frame.row(0, named=True)
    pixels = frame["value"].is_not_null() & frame["metric"].str.starts_with("pixel_")
    view = f"pixels of {PROFILES[row['profile']].view}" if pixels.any() else ""
    return " · ".join(filter(None, (title(row), coverage(frame), view, row["shared"])))


def coverage(frame: pl.DataFrame) -> str:
    """`1 of 15 categories` where a section lacks some of a published data set, else nothing."""
    there = frame.filter(pl.col("category") != POOLED)["category"].n_unique()
    known = frame["published_categories"].max()
    return f"{there} of {known} categories" if isinstance(known, int) and there < known else ""


def labelled(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with each row's `label`."""
    by = ("method", "variant", "shared")
    names = frame.select(by).unique()
    labels = pl.Series([label(row) for row in names.to_dicts()], dtype=pl.String)
    return frame.join(names.with_columns(label=labels), on=by)


def row_named(frame: pl.DataFrame, name: str) -> str:
    """The label of the row that is meant: by its label, or by some of its words if no other row has
    them all.

    Words are the method and what the variant names. ResultsError, naming what there is, where none
    or several rows have them.
    """
    rows = labelled(frame).select("label", "method", "variant").unique().sort("label").to_dicts()
    labels = dict.fromkeys(row["label"] for row in rows)
    if name in labels:
        return name
    wanted = set(_words(name))
    meant = dict.fromkeys(
        row["label"] for row in rows if wanted <= {row["method"], *_words(row["variant"])}
    )
    if len(meant) == 1:
        return str(next(iter(meant)))
    if meant:
        raise ResultsError(f"'{name}' is one of {len(meant)} rows: which of {'; '.join(meant)}?")
    raise ResultsError(f"no results of '{name}'; there are: {'; '.join(labels)}")


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()
