"""Agreement of pseudo-validation and test, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from results.analysis.anchored import Comparison, Group
from results.analysis.selection import (
    ALL,
    AVERAGE,
    agreement,
    by_setting,
    image_auroc,
    opinions,
    regrets,
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


def test_opinions_are_distances_by_category_and_mean_gains() -> None:
    groups = [Group("blur", "a"), Group("blur", "b"), Group("scar", "a")]
    rows = np.array([[1.0, 2, 4], [1, 3, 1], [2, 2, 5]])
    case = Comparison(groups, rows, np.stack([rows] * 10), 0)
    found = opinions(case, ["x", "y", "z"])

    def of(family: str, category: str) -> list[float]:
        return found.filter(family=family, category=category)["value"].to_list()

    assert of("blur", "b") == [1, 3, 1] and of("blur", AVERAGE) == [0, 1.5, 1.5]
    assert of(ALL, "a") == [1.5, 2, 4.5] and of(ALL, AVERAGE) == [0, 0.75, 2.25]


def test_regrets_are_of_each_seed() -> None:
    both = pl.concat([rows({"a": (0.9, 0.8, 0.5)}), rows({"a": (0.6, 0.6, 0.8)}, seed=1)])
    chosen, own, median = regrets(both, {"chosen": "1", "own": "2"})
    assert (chosen["setting"], median["setting"]) == ("chosen", "median setting")
    assert chosen["regret"] == pytest.approx((0.1 + 0.2) / 2) and chosen["seeds"] == 2
    assert own["regret"] == pytest.approx((0.4 + 0.0) / 2)
    assert own["spread"] == pytest.approx(0.4 / 2**0.5) and own["test"] == pytest.approx(0.65)
    assert median["regret"] == pytest.approx((0.1 + 0.2) / 2)
    assert regrets(rows({"a": (0.9, 0.8)}), {"chosen": "1"})[0]["spread"] is None


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
