"""The carried numbers hold together, and stand beside ours only where the protocol is the same."""

from __future__ import annotations

import json

import polars as pl
import pytest
from made_rows import made_frame

from results.analysis.published import (
    ABOVE,
    AGREES,
    BELOW,
    INTER_STD,
    MEAN,
    beside_published,
    published,
)

NUMBERS = published()
PAPER = NUMBERS.filter(source="paper", variant="")
# Printed with the sample, not the population deviation (see the paper's Table 1).
SAMPLE_STD = {("patchsvdd", "pixel_auroc"), ("draem", "pixel_auroc"), ("revdistill", "pixel_auroc")}


@pytest.mark.parametrize("benchmark, categories", [("mvtec", 15), ("mpdd", 6)])
def test_the_papers_averages_and_deviations_follow_from_its_cells(benchmark, categories):
    rows = PAPER.filter(benchmark=benchmark)
    assert rows["method"].n_unique() == 8
    for (method, metric), part in rows.group_by("method", "metric"):
        printed = dict(part.select("category", "value").iter_rows())
        mean, spread = printed.pop(MEAN), printed.pop(INTER_STD)
        values = pl.Series(list(printed.values()))
        assert len(values) == categories
        assert mean == pytest.approx(values.mean(), abs=0.0016), (method, metric)
        if benchmark == "mpdd" or (method, metric) not in SAMPLE_STD:
            assert spread == pytest.approx(values.std(ddof=0), abs=0.0015), (method, metric)


def test_table_4_repeats_the_averages_of_tables_1_and_2():
    ablation = NUMBERS.filter(pl.col("variant") != "")
    assert ablation.group_by("method", "variant").len().sort("method").rows() == [
        ("lafite", "without editing", 4),
        ("uniad", "with editing", 4),
    ]
    best = PAPER.filter(method="lafite", category=MEAN, metric="image_auroc", benchmark="mpdd")
    assert best.select("value", "std").rows() == [(0.965, 0.0008)]


def _papers_lafite(shift=0.0, seeds=3, categories=15, **changes):
    """Rows of ours that equal the paper's LafitE on MVTec, but for a shift of image AUROC."""
    real = PAPER.filter(benchmark="mvtec", method="lafite", metric="image_auroc").filter(
        ~pl.col("category").is_in([MEAN, INTER_STD])
    )
    values = {
        ("lafite", seed, category): value + shift + 0.001 * (seed - 1)
        for category, value in real.head(categories).select("category", "value").iter_rows()
        for seed in range(seeds)
    }
    settings = {"benchmark": "mvtec", "preset": "paper", "config_json": _config(224, 1000)}
    return made_frame(values, **settings | changes)


def _config(side, epochs):
    return json.dumps({"image_size": side, "epochs": epochs})


def _mean(frame, source="paper", **wanted):
    rows = beside_published(frame).filter(source=source, category=MEAN, **wanted)
    return rows.row(0, named=True)


@pytest.mark.parametrize("shift, verdict", [(0, AGREES), (-0.05, BELOW), (0.013, ABOVE)])
def test_the_verdict_is_two_sided(shift, verdict):
    row = _mean(_papers_lafite(shift))
    assert row["verdict"] == verdict and row["reason"] == ""
    assert row["difference"] == pytest.approx(shift, abs=5e-4)  # 98.5 is a rounded mean
    assert (row["value"], row["std"], row["seeds"]) == (0.985, 0.0003, 3)


def test_categories_stand_beside_theirs_with_a_wider_tolerance():
    rows = beside_published(_papers_lafite(0.02)).filter(source="paper")
    assert len(rows) == 15 + 1
    assert rows.filter(pl.col("category") != MEAN)["verdict"].unique().to_list() == [AGREES]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"mode": "separate"}, "one model a category, theirs is multi-class"),
        ({"preset": "quick"}, "the preset is quick, not paper"),
        ({"profile": "ader"}, "the metric profile is ader, not default"),
        ({"variant": "k=9"}, "a variant: k=9"),
        ({"categories": 14}, "14 of 15 categories"),
    ],
)
def test_another_protocol_has_a_reason_and_no_verdict(changes, reason):
    row = _mean(_papers_lafite(**changes))
    assert (row["verdict"], row["reason"]) == (None, reason)


def test_a_tuned_row_is_the_papers_protocol():
    assert _mean(_papers_lafite(variant="tuned"))["verdict"] == AGREES


def test_an_ablation_stands_beside_the_same_ablation():
    rows = beside_published(_papers_lafite(variant="without editing"))
    assert rows.select("category", "value").rows() == [(MEAN, 0.982)]


def test_ader_is_comparable_at_its_resolution_epochs_and_profile_alone():
    uniad = {"method": "uniad", "variant": "epochs=100, image_size=256"}
    alike = _papers_lafite(**uniad, profile="ader", config_json=_config(256, 100))
    assert _mean(alike, "ader", epochs=100)["verdict"] == ABOVE  # LafitE's values are no UniAD
    assert _mean(alike, "ader", epochs=300)["reason"] == "100 epochs, theirs are 300"
    ours = _papers_lafite(method="uniad")
    reason = _mean(ours, "ader", epochs=100)["reason"]
    assert "images of 224 pixels, theirs have 256" in reason and "not ader" in reason


def test_a_data_set_without_published_numbers_has_no_rows():
    assert beside_published(_papers_lafite(benchmark="mixed")).is_empty()
