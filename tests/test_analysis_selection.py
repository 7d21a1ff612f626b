"""Agreement of pseudo-validation and test, against numbers worked out by hand."""

from __future__ import annotations

import polars as pl
import pytest

from results.analysis.selection import agreement, by_setting, objective, without_signal


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


PSEUDO = rows({"a": (0.5, 0.6, 0.7, 0.8), "b": (0.9, 0.9, 0.9, 0.9)})
TEST = rows({"a": (0.5, 0.6, 0.8, 0.7), "b": (0.6, 0.7, 0.5, 0.9)})


def test_correlations_regret_and_rank() -> None:
    a, b, mean = agreement(PSEUDO, TEST, chosen="2").to_dicts()
    assert (a["category"], b["category"], mean["category"]) == ("a", "b", "mean")
    # One adjacent swap of four: Spearman 1 - 6 * 2 / 60, Kendall (5 - 1) / 6.
    assert a["spearman"] == pytest.approx(0.8) and a["kendall"] == pytest.approx(4 / 6)
    assert (a["best"], a["chosen"], a["regret"], a["rank"]) == (0.8, 0.8, 0.0, 1)
    assert b["spearman"] is None and b["kendall"] is None, "a constant has no ranks"
    assert b["regret"] == pytest.approx(40) and b["rank"] == 4
    # Means on test: 0.55, 0.65, 0.65, 0.8.
    assert mean["best"] == pytest.approx(0.8) and mean["regret"] == pytest.approx(15)
    assert mean["rank"] == 2 and mean["settings"] == 4


def test_seeds_are_averaged_before_anything_is_compared() -> None:
    both = pl.concat([rows({"a": (0.2, 0.4)}), rows({"a": (0.6, 0.0)}, seed=1)])
    means = by_setting(both).filter(pl.col("category") == "a").sort("knobs_json")
    assert means["value"].to_list() == pytest.approx([0.4, 0.2])


def test_a_setting_that_was_not_revealed_is_an_error() -> None:
    with pytest.raises(ValueError, match="no value on the test split"):
        agreement(PSEUDO, TEST.filter(pl.col("knobs_json") != "1"), chosen="2")


def test_the_objective_is_a_mean_of_means_over_real_categories() -> None:
    cell = pl.DataFrame(
        {
            "metric": ["image_auroc"] * 3 + ["pixel_ap"] * 2,
            "category": ["a", "b", "(pooled)", "a", "b"],
            "value": [0.8, 0.6, 0.0, 0.2, None],
        }
    )
    assert objective(cell, ["image_auroc"]) == pytest.approx(0.7)
    assert objective(cell, ["image_auroc", "pixel_ap"]) == pytest.approx((0.7 + 0.2) / 2)
    assert objective(cell, ["image_ap"]) is None


def test_a_category_at_the_level_of_a_coin_has_no_vote() -> None:
    tried = rows({"coin": (0.45, 0.61, 0.5), "sharp": (0.7, 0.8, 0.9), "tiny": (0.8, 0.7, 0.7)})
    # Standard error of a coin's AUROC: sqrt((n + m + 1) / 12 n m) = 0.058, 0.058 and 0.373.
    images = {"coin": (50, 50), "sharp": (50, 50), "tiny": (2, 2)}
    assert without_signal(tried, images) == ["coin", "tiny"]
    assert without_signal(tried, images | {"coin": (60, 60)}) == ["tiny"]
    assert without_signal(rows({"coin": (0.5, 0.4)}), images) == [], "somebody has to vote"
    first = tried.filter(pl.col("knobs_json") == "0")
    assert objective(first, ["image_auroc"], ["coin", "tiny"]) == 0.7
