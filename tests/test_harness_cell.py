"""Planning: names, types and ranges are checked before anything runs; identity is content."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_cells import smoke_cells

from harness.plan.cell import Cell, Held, cell_in
from harness.plan.registry import UsageError, load
from harness.work.jobs import jobs


def cells(*overrides: str, **others: Any) -> list[Cell]:
    return smoke_cells("lafite", overrides=overrides, **others)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["lafite.k=three"], "type int"),
        (["lafite.weighting=softmx"], "one of softmax, inverse, uniform"),
        (["lafite.weights=/nowhere.pth"], "no .safetensors or .pth file"),
        (["lafite.backbone=resnet1"], "knows no such model"),
        (["lafite.layers=0,9"], "has layers 0..4"),
    ],
)
def test_bad_settings_are_refused_in_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        cells(*overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_are_typed_by_their_field_and_named() -> None:
    words = ["k=7", "sigma=2", "weighting=uniform", "multipliers=1,2,4", "projection=none"]
    [cell] = cells(*(f"lafite.{word}" for word in words))
    knobs, config = cell.knobs, cell.config
    assert (knobs.k, knobs.sigma, knobs.weighting) == (7, 2.0, "uniform")
    assert (config.multipliers, config.projection) == ((1, 2, 4), None)
    assert cell.variant == "k=7, multipliers=1,2,4, projection=none, sigma=2, weighting=uniform"


def test_a_cell_is_its_content() -> None:
    first = cells()[0]
    assert cells()[0].cell_id == first.cell_id
    assert cells("lafite.k=4")[0].cell_id != first.cell_id
    assert cells("lafite.k=4")[0].fit_id == first.fit_id, "knobs need no new fit"
    assert cells("lafite.epochs=3")[0].fit_id != first.fit_id
    assert replace(first, seed=1).fit_id != first.fit_id
    moved = replace(first, config=replace(first.config, weights="/elsewhere/file.pth"))
    assert moved.cell_id == first.cell_id, "where the weights lie is not content"
    assert replace(first, weights_sha256="0").cell_id != first.cell_id
    hashes = {cell.config_hash for cell in (first, moved, replace(first, seed=1))}
    assert hashes == {first.config_hash} != {cells("lafite.k=4")[0].config_hash}


def test_a_revision_of_a_methods_code_names_new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cells()[0]
    assert before.fit_id and before.cell_id and before.config_hash
    declared = load("methods", "lafite")
    revised = replace(declared, revision=lambda config: 99)
    monkeypatch.setattr("harness.plan.cell.load", lambda kind, name: revised)
    after = replace(before)
    assert after.fit_id != before.fit_id and after.cell_id != before.cell_id
    assert after.config_hash != before.config_hash


def test_a_cell_comes_back_from_its_record() -> None:
    [calibrated] = smoke_cells("patchcore", calibrate=0.2)
    [tried] = smoke_cells("patchcore", held=Held(anomalies=2), limit=20)
    named = replace(tried, data=replace(tried.data, benchmark="/data/parts", root=Path("/data")))
    for cell in (*smoke_cells(), calibrated, tried, named):
        again = cell_in(json.loads(json.dumps(cell.record)))
        assert replace(again, weights=cell.weights) == cell and again.cell_id == cell.cell_id
    assert calibrated.calibrated and calibrated.splits == ("train", "test", "calibration")
    assert not tried.calibrated and tried.splits == ("train", "validation")


def test_seed_zero_is_a_seed() -> None:
    assert [cell.seed for cell in cells(seeds=3)] == [0, 1, 2]


def test_separate_mode_makes_a_cell_for_each_category() -> None:
    separate = cells(mode="separate")
    names = [cell.data.categories for cell in separate]
    assert names == [("disc",), ("gear",), ("screw",), ("weave",)]
    assert len({cell.cell_id for cell in separate}) == 4


def test_no_cell_is_given_what_another_one_has_reserved() -> None:
    """Images of other categories would come as anomalies of a search."""
    first, *others = smoke_cells("padim", mode="separate", calibrate=0.3)
    seen = {sample.key for sample in first.data.open().train()}
    for cell in others:
        _, reserved = cell.data.open_reserved()
        assert reserved and not seen & {sample.key for sample in reserved}


def test_cells_that_differ_in_knobs_share_a_job() -> None:
    both = [cells()[0], cells("lafite.k=4")[0], cells("lafite.epochs=3")[0]]
    assert sorted(map(len, jobs(both))) == [1, 2]


def test_a_folder_is_a_data_set_by_its_path(real_data: Path) -> None:
    cell = smoke_cells("patchcore", benchmark=str(real_data / "mixed"))[0]
    assert cell.data.name == "mixed"
    assert cell.data.categories == ("commutator", "metal_plate", "screw")
    assert cell.data.train_images == 320 + 54 + 278
