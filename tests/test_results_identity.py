"""Rows that differ in what makes them are never averaged as seeds."""

from __future__ import annotations

import json
from datetime import timedelta

import polars as pl
import pytest
from made_rows import NOON

from results import table
from results.analysis.cells import title
from results.analysis.summary import per_category, summary
from results.identity import distinct_ends, told_apart
from results.reports.text import render

OLD, NEW, TRAINED = "a" * 16 + "b" * 16, "a" * 16 + "c" * 16, "d" * 16 + "b" * 16


def cell(seed, categories=("bolt", "nut"), minute=0, **changes):
    """The rows of one cell, a value of 0.5 each."""
    base = dict.fromkeys(table.SCHEMA.names) | {
        "mode": "multi-class", "preset": "quick", "profile": "default", "benchmark": "parts",
        "method": "lafite", "variant": "", "split": "test", "status": "done", "reason": "",
        "metric": "image_auroc", "value": 0.5, "data_fingerprint": OLD, "config_hash": "1",
        "weights_sha256": "w" * 64, "config_json": '{"k": 3}', "knobs_json": '{"t": 10}',
        "location": "/data/parts", "seed": seed, "finished_at": NOON + timedelta(minutes=minute),
    }  # fmt: skip
    row = base | {"cell_id": f"{seed}{minute}{sorted(changes.items())}"} | changes
    return [row | {"category": category} for category in categories]


def framed(*cells):
    schema = pl.DataFrame(table.SCHEMA.empty_table()).schema
    return pl.DataFrame([row for rows in cells for row in rows], schema=schema)


def names(*cells):
    """(title of the table, variant) -> seeds, of the summary."""
    frame = told_apart(framed(*cells))
    render(frame, "terminal")
    per_category(frame, "image_auroc")
    rows = summary(frame).to_dicts()
    return {(title(row).split(" · ")[0], row["variant"]): row["seeds"] for row in rows}


DIFFER = {
    "test images": (
        {"data_fingerprint": NEW},
        {("parts (test images bbbbbb)", ""): 2, ("parts (test images cccccc)", ""): 1},
    ),
    "training images": (
        {"data_fingerprint": TRAINED},
        {("parts (images", ""): 2},
    ),
    "folders of one name": (
        {"data_fingerprint": NEW, "location": "/other/parts"},
        {("data/parts", ""): 2, ("other/parts", ""): 1},
    ),
    "the folder alone": ({"location": "/moved/parts"}, {("parts", ""): 3}),
    "weights": (
        {"weights_sha256": "x" * 64},
        {("parts", "weights wwwwww"): 2, ("parts", "weights xxxxxx"): 1},
    ),
    "textures": (
        {"weights_sha256": "x" * 64, "config_json": '{"k": 3, "textures": "dtd"}'},
        {("parts", "weights wwwwww"): 2, ("parts", "textures xxxxxx"): 1},
    ),
    "a setting": (
        {"config_hash": "2", "config_json": '{"k": 5}'},
        {("parts", "k=3"): 2, ("parts", "k=5"): 1},
    ),
    "a knob": (
        {"config_hash": "2", "knobs_json": '{"t": 20}'},
        {("parts", "t=10"): 2, ("parts", "t=20"): 1},
    ),
    "a knob and weights": (
        {"config_hash": "2", "knobs_json": '{"t": 20}', "weights_sha256": "x" * 64},
        {("parts", "t=10, weights wwwwww"): 2, ("parts", "t=20, weights xxxxxx"): 1},
    ),
    "the code": ({"config_hash": "2"}, {("parts", "code"): 2}),
    "the version of the program": ({"code_version": "0.2"}, {("parts", ""): 3}),
    "the machine": ({"device": "another", "torch_version": "3"}, {("parts", ""): 3}),
}


@pytest.mark.parametrize("what", DIFFER)
def test_cells_that_differ_are_rows_of_their_own(what):
    changes, wanted = DIFFER[what]
    found = names(cell(0), cell(1), cell(2, minute=1, **changes))
    if what == "training images":
        assert sorted(found.values()) == [1, 2]
        assert all(data.startswith("parts (images ") for data, _ in found)
    elif what == "the code":
        assert sorted(found.values()) == [1, 2]
        assert all(variant.startswith("code ") for _, variant in found)
    else:
        assert found == wanted


def test_of_equal_seeds_too():
    assert sorted(names(cell(0), cell(0, minute=1, data_fingerprint=NEW)).values()) == [1, 1]


def test_fewer_categories_are_a_table_of_their_own_and_incomplete():
    found = names(cell(0), cell(1, ("bolt",), data_fingerprint=NEW))
    assert found == {("parts", ""): 1, ("parts (only bolt)", ""): 1}
    frame = told_apart(framed(cell(0), cell(1, ("bolt",), data_fingerprint=NEW)))
    complete = dict(summary(frame).select("data", "complete").iter_rows())
    assert complete == {"": True, "only bolt": False}


def test_one_model_a_category_keeps_its_table_whole():
    separate = {"mode": "separate"}
    found = names(
        *(cell(seed, ("bolt",), data_fingerprint=OLD, **separate) for seed in (0, 1)),
        *(cell(seed, ("nut",), data_fingerprint=TRAINED, **separate) for seed in (0, 1)),
        *(cell(seed, ("nut",), 5, data_fingerprint="e" * 32, **separate) for seed in (0, 1)),
    )
    assert found[("parts", "")] == 2
    [(older, _)] = [key for key in found if key != ("parts", "")]
    assert older.startswith("parts (images ")


def test_choices_of_each_category_are_one_row():
    tuned = {"mode": "separate", "variant": "tuned"}
    bolt = cell(0, ("bolt",), data_fingerprint=OLD, config_hash="1", **tuned)
    nut = cell(0, ("nut",), data_fingerprint=NEW, config_hash="2", knobs_json='{"t": 99}', **tuned)
    assert names(bolt, nut) == {("parts", "tuned"): 1}


def test_a_failure_of_other_images_is_told_apart_too():
    failed = [row | {"category": None, "metric": None, "value": None, "status": "error"}
              for row in cell(2, ("",), 1, data_fingerprint=NEW)]  # fmt: skip
    assert len(names(cell(0), cell(1), failed)) == 2


@pytest.mark.parametrize("schema", [2, 3])
def test_a_row_that_held_images_out_stands_beside_the_others(schema):
    whole = OLD if schema == 3 else None
    tuned = cell(0, variant="tuned", data_fingerprint=TRAINED, images_fingerprint=whole)
    assert names(cell(0), cell(1), tuned) == {("parts", ""): 2, ("parts", "tuned"): 1}
    if schema == 3:
        other = cell(1, variant="tuned", data_fingerprint="e" * 32, images_fingerprint="f" * 32)
        assert len(names(cell(0), tuned, other)) == 3


@pytest.mark.parametrize(
    "before, now",
    [
        ("", "textures=own"),
        ("textures=own", "textures=own"),
        ("epochs=3", "epochs=3, textures=own"),
        ("window=64", "textures=own, window=64"),
        ("epochs=3, tuned, refit", "epochs=3, textures=own, tuned, refit"),
    ],
)
def test_own_textures_are_named_in_rows_of_before_as_in_those_of_now(before, now):
    own = {"config_json": '{"textures": "own"}'}
    assert names(cell(0, variant=before, **own), cell(1, variant=now, **own)) == {("parts", now): 2}


def test_names_that_say_too_little_get_a_hash():
    k3, k5 = {"config_json": '{"k": 3}'}, {"config_json": '{"k": 5}', "config_hash": "2"}
    found = names(cell(0, **k3), cell(1, **k5), cell(2, **k3 | {"config_hash": "3"}))
    assert list(found.values()) == [1, 1, 1]
    assert sum(variant == "k=5" for _, variant in found) == 1
    many = [f"c{number}" for number in range(9)]
    found = names(
        cell(0, many),
        cell(1, many[:5], data_fingerprint=NEW),
        cell(2, many[4:], data_fingerprint=TRAINED),
    )
    assert sorted(found.values()) == [1, 1, 1]


def test_older_images_of_a_folder_that_is_named_by_its_path_are_told_apart_too():
    found = names(
        cell(0, location="/a/parts"),
        cell(1, location="/b/parts", data_fingerprint=NEW),
        cell(2, benchmark="a/parts", location="/a/parts", data_fingerprint=TRAINED),
    )
    assert sorted(found.values()) == [1, 1, 1]


def test_ends_of_paths_tell_them_apart():
    assert distinct_ends(["/a/x/parts", "/b/x/parts", "/c"]) == ["a/x/parts", "b/x/parts", "c"]
    assert distinct_ends(["/data/parts"]) == ["parts"]
    assert distinct_ends(["/parts", "/a/parts"]) == ["//parts", "a/parts"]


def test_settings_of_many_differences_are_named_by_a_hash():
    many = json.dumps({name: 1 for name in "abcde"})
    other = json.dumps({name: 2 for name in "abcde"})
    found = names(cell(0, config_json=many), cell(1, config_json=other, config_hash="2"))
    assert all(variant.startswith("settings ") for _, variant in found)
