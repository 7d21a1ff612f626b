"""Agreement of pseudo-validation and test, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from results.analysis.election import Election, Image
from results.analysis.selection import (
    ALL,
    AVERAGE,
    agreement,
    by_setting,
    image_auroc,
    opinions,
)


def rows(values: dict[str, tuple[float | None, ...]], seed: int = 0) -> pl.DataFrame:
    """Settings "0", "1", ... of categories, with a pooled row that must not count."""
    length = len(next(iter(values.values())))
    whole = values | {"(pooled)": (0.0,) * length}
    return pl.DataFrame(
        [
            {
                "knobs_json": str(number),
                "category": category,
                "metric": "image_auroc",
                "value": value,
                "seed": seed,
            }
            for category, line in whole.items()
            for number, value in enumerate(line)
        ]
    )


TEST = rows({"a": (0.5, 0.6, 0.8, 0.7), "b": (0.6, 0.7, 0.5, 0.9)})


def thought(values: dict[tuple[str, str], tuple[float, ...]]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {"family": family, "category": category, "knobs_json": str(number), "value": value}
            for (family, category), line in values.items()
            for number, value in enumerate(line)
        ]
    )


def test_correlations_regret_and_rank() -> None:
    opinion = thought(
        {
            (ALL, "a"): (0.5, 0.6, 0.7, 0.8),
            (ALL, "b"): (0.9, 0.9, 0.9, 0.9),
            (ALL, AVERAGE): (0.7, 0.75, 0.8, 0.85),
            ("blur", "a"): (0.9, 0.2, 0.3, 0.1),
        }
    )
    a, b, mean, blur = agreement(opinion, TEST, chosen="2").to_dicts()
    assert (a["category"], b["category"], mean["category"]) == ("a", "b", "mean")
    # One adjacent swap of four: 1 - 6 * 2 / 60.
    assert a["spearman"] == pytest.approx(0.8)
    assert (a["best"], a["chosen"], a["regret"], a["rank"]) == (0.8, 0.8, 0.0, 1)
    assert b["spearman"] is None, "a constant has no ranks"
    assert b["regret"] == pytest.approx(40) and b["rank"] == 4
    # Means on test: 0.55, 0.65, 0.65, 0.8.
    assert mean["best"] == pytest.approx(0.8) and mean["regret"] == pytest.approx(15)
    assert mean["rank"] == 2 and mean["settings"] == 4
    # A family alone would choose setting 0, whatever all together choose.
    assert (blur["family"], blur["chosen"]) == ("blur", 0.5)
    assert blur["regret"] == pytest.approx(30)


def test_opinions_weigh_ranks_or_means() -> None:
    images = [
        Image(f"{c}{n}", c, f, f"{c}{n}") for c in "ab" for f in ("blur", "scar") for n in range(4)
    ]
    random = np.random.default_rng(0)
    election = Election(random.normal(size=(2, 3, len(images))), images)
    robust, plain = (
        opinions(election, ["x", "y", "z"], by_rank=by_rank).sort(
            "family", "category", "knobs_json"
        )
        for by_rank in (True, False)
    )
    for family in ("blur", "scar"):
        of = robust.filter(family=family, category="a")["value"].to_list()
        members = [
            n for n, image in enumerate(images) if image.category == "a" and image.family == family
        ]
        assert of == pytest.approx(election.differences.mean(0)[:, members].mean(1).tolist())
    whole = pl.col("family") == ALL, pl.col("category") == AVERAGE
    assert robust.filter(*whole)["value"].to_list() == pytest.approx(election.scores.tolist())
    assert plain.filter(*whole)["value"].to_list() == pytest.approx(
        election.values.mean(0).tolist()
    )


def test_seeds_are_averaged_before_anything_is_compared() -> None:
    both = pl.concat([rows({"a": (0.2, 0.4)}), rows({"a": (0.6, 0.0)}, seed=1)])
    means = by_setting(both).filter(pl.col("category") == "a").sort("knobs_json")
    assert means["value"].to_list() == pytest.approx([0.4, 0.2])


def test_a_setting_that_was_not_revealed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no value on the test split"):
        opinion = thought({(ALL, "a"): (0.5, 0.6, 0.7, 0.8)})
        agreement(opinion, TEST.filter(pl.col("knobs_json") != "1"), chosen="2")


def test_the_image_auroc_of_a_cell_is_a_mean_over_real_categories() -> None:
    assert image_auroc(rows({"a": (0.8,), "b": (0.6,)})) == pytest.approx(0.7)
    assert image_auroc(rows({"a": (None,)})) is None
