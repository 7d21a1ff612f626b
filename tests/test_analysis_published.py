"""The carried numbers hold together, and stand beside ours only where the protocol is the same."""

from __future__ import annotations

import json
from dataclasses import asdict
from dataclasses import fields as dataclass_fields

import polars as pl
import pytest
from made_rows import made_frame

from harness.plan.registry import load
from results.analysis.protocols import PROTOCOLS
from results.analysis.published import (
    ABOVE,
    AGREES,
    BELOW,
    INTER_STD,
    MEAN,
    NOISY,
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
    settings = {"benchmark": "mvtec", "preset": "paper", "config_json": json.dumps(LAFITE)}
    settings["knobs_json"] = json.dumps({"coreset": 0.1, "sigma": 4.0, "t": 200})
    return made_frame(values, **settings | changes)


LAFITE = {"backbone": "tf_efficientnet_b4.aa_in1k", "image_size": 224, "epochs": 1000}
LAFITE |= {"batch_size": 64, "bank_rate": 0.1}


def _mean(frame, source="paper", **wanted):
    rows = beside_published(frame).filter(source=source, category=MEAN, **wanted)
    return rows.row(0, named=True)


@pytest.mark.parametrize(
    "shift, verdict",
    [(0, AGREES), (-0.006, AGREES), (-0.05, BELOW), (0.015, ABOVE), (0.009, NOISY)],
)
def test_the_verdict_is_that_of_the_interval_of_the_difference(shift, verdict):
    row = _mean(_papers_lafite(shift))
    assert row["verdict"] == verdict and row["reason"] == ""
    assert row["difference"] == pytest.approx(shift, abs=5e-4)  # 98.5 is a rounded mean
    assert (row["value"], row["std"], row["seeds"]) == (0.985, 0.0003, 3)


@pytest.mark.parametrize("seeds", [[0.985], [0.90, 0.96]])
def test_seeds_that_are_too_few_or_too_unlike_agree_with_nothing(seeds):
    frame = _papers_lafite(seeds=len(seeds))
    value = pl.col("seed").replace_strict(dict(enumerate(seeds)), return_dtype=pl.Float64)
    row = _mean(frame.with_columns(value=value))
    assert (row["verdict"], row["reason"]) == (NOISY, "")


def test_categories_stand_beside_theirs_with_a_wider_tolerance():
    rows = beside_published(_papers_lafite(-0.02)).filter(source="paper")
    assert len(rows) == 15 + 1
    assert rows.filter(pl.col("category") != MEAN)["verdict"].unique().to_list() == [AGREES]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"mode": "separate"}, "one model a category, theirs is multi-class"),
        ({"preset": "quick"}, "the preset is quick, not paper"),
        ({"profile": "ader"}, "the metric profile is ader, not default"),
        ({"metric": "pixel_auroc"}, "the metric profile is default, not uniad"),
        ({"variant": "k=9"}, "a variant: k=9"),
        ({"categories": 14}, "14 of 15 categories"),
    ],
)
def test_another_protocol_has_a_reason_and_no_verdict(changes, reason):
    row = _mean(_papers_lafite(**changes))
    assert (row["verdict"], row["reason"]) == (None, reason)


def test_an_ablation_stands_beside_the_same_ablation():
    assert _mean(_papers_lafite(variant="tuned"))["verdict"] == AGREES, "the same protocol"
    rows = beside_published(_papers_lafite(variant="without editing"))
    assert rows.select("category", "value").rows() == [(MEAN, 0.982)]


def _settings(method, preset, **changes):
    """A row's settings, as the method's preset has them."""
    config, knobs = load("methods", method).presets[preset]
    return {
        "method": method,
        "preset": preset,
        "profile": "ader",
        "config_json": json.dumps(asdict(config) | changes),
        "knobs_json": json.dumps(asdict(knobs)),
    }


@pytest.mark.parametrize("method", ["uniad", "revdistill", "patchcore"])
def test_the_preset_of_ader_reaches_its_protocol(method):
    rows = beside_published(_papers_lafite(**_settings(method, "ader"))).filter(source="ader")
    reasons = set(rows.filter(pl.col("epochs").is_null() | (pl.col("epochs") == 100))["reason"])
    assert reasons == {""}
    for epochs in rows.filter(epochs=300)["reason"]:
        assert epochs == "epochs is 100, theirs 300"


def _authors(method, benchmark="mvtec", **changes):
    ours = _settings(method, "paper", **changes) | {"profile": "default", "benchmark": benchmark}
    categories = {"mvtec": 15, "visa": 12, "real_iad": 30}[benchmark]
    values = {(method, seed, f"c{i}"): 0.996 for i in range(categories) for seed in range(2)}
    return _mean(made_frame(values, **ours), "authors")


@pytest.mark.parametrize("benchmark, value", [("mvtec", 0.996), ("visa", 0.987)])
def test_the_paper_preset_is_its_authors_protocol(benchmark, value):
    row = _authors("dinomaly", benchmark)
    assert (row["value"], row["reason"]) == (value, "")
    assert row["verdict"] == AGREES
    assert _authors("inpformer", benchmark)["reason"] == ""


def test_what_authors_change_for_one_data_set_is_asked_there_alone():
    row = _authors("dinomaly", "real_iad")
    assert row["reason"] == "iterations is 10000, theirs 50000; dropout is 0.2, theirs 0.4"
    row = _authors("dinomaly", "real_iad", iterations=50_000, dropout=0.4)
    assert (row["reason"], row["verdict"]) == ("", ABOVE)
    assert "iterations is 50000, theirs 10000" in _authors("dinomaly", iterations=50_000)["reason"]
    assert _authors("inpformer", epochs=10)["reason"] == "epochs is 10, theirs 200"


@pytest.mark.parametrize(
    "method, changes, reason",
    [
        ("uniad", {"feature_size": 14}, "feature_size is 14, theirs 16"),
        ("uniad", {"image_size": 224, "neighbours": 7}, "image_size is 224, theirs 256; neighb"),
        (
            "revdistill",
            {"backbone": "wide_resnet50_2.tv_in1k"},
            "backbone is wide_resnet50_2.tv_in1k, theirs wide_resnet50_2.racm_in1k",
        ),
        ("patchcore", {"crop": 224}, "crop is 224, theirs 256"),
        ("patchcore", {"image_score": "patches"}, "image_score is patches, theirs map"),
        ("patchcore", {"image_score": None}, "image_score is not recorded, theirs map"),
    ],
)
def test_any_field_of_a_protocol_that_differs_is_named(method, changes, reason):
    ours = _settings(method, "ader")
    for kind in ("config_json", "knobs_json"):
        settings = json.loads(ours[kind])
        settings |= {name: value for name, value in changes.items() if name in settings}
        unset = {name for name, value in changes.items() if value is None}
        ours[kind] = json.dumps({k: v for k, v in settings.items() if k not in unset})
    rows = beside_published(_papers_lafite(**ours)).filter(source="ader")
    first = rows.filter(pl.col("epochs").is_null() | (pl.col("epochs") == 100)).row(0, named=True)
    assert first["verdict"] is None and first["reason"].startswith(reason)


@pytest.mark.parametrize("preset, source, profile", [("ader", "ader", "ader"),
                                                     ("paper", "paper", "default")])  # fmt: skip
@pytest.mark.parametrize("textures", ["own", "/data/dtd"])
def test_draem_with_its_own_textures_is_nobodys(preset, source, profile, textures):
    ours = _settings("draem", preset, textures=textures) | {"profile": profile}
    rows = beside_published(_papers_lafite(**ours)).filter(source=source)
    said = ["textures is own, theirs not own" in reason for reason in rows["reason"]]
    assert said and all(own == (textures == "own") for own in said)


def test_every_stated_field_is_one_of_the_methods():
    for (_, method), fields in PROTOCOLS.items():
        kind = load("methods", method).method
        known = {
            field.name for field in (*dataclass_fields(kind.Config), *dataclass_fields(kind.Knobs))
        }
        assert fields.keys() <= known


def test_a_data_set_without_published_numbers_has_no_rows():
    assert beside_published(_papers_lafite(benchmark="mixed")).is_empty()
