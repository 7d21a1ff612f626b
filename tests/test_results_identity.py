"""Rows that differ in what makes them are never averaged as seeds."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from made_rows import NOON, framed, made_row

from results.analysis.cells import title
from results.analysis.summary import per_category, summary
from results.identity import distinct_ends
from results.reports.text import render

OLD, NEW, TRAINED = "a" * 16 + "b" * 16, "a" * 16 + "c" * 16, "d" * 16 + "b" * 16


def cell(seed, categories=("bolt", "nut"), minute=0, **changes):
    """The rows of one cell, a value of 0.5 each."""
    row = made_row(
        benchmark="parts", value=0.5, data_fingerprint=OLD, config_hash="1",
        weights_sha256="w" * 64, location="/data/parts", seed=seed,
        config_json='{"k": 3}', knobs_json='{"t": 10}',
        finished_at=NOON + timedelta(minutes=minute),
        cell_id=f"{seed}{minute}{sorted(changes.items())}",
    ) | changes  # fmt: skip
    row["images_fingerprint"] = row["images_fingerprint"] or row["data_fingerprint"]
    return [row | {"category": category} for category in categories]


def told(*cells):
    return framed([row for rows in cells for row in rows])


def names(*cells):
    """(title of the table, variant) -> seeds, of the summary."""
    frame = told(*cells)
    render(frame, "terminal")
    per_category(frame, "image_auroc")
    rows = summary(frame).to_dicts()
    return {(title(row).split(" · ")[0], row["variant"]): row["seeds"] for row in rows}


def notes(*cells):
    """What is said of each version, sorted."""
    frame = told(*cells).select("data_note", "variant_note").unique()
    return sorted("; ".join(filter(None, row)) for row in frame.rows())


def lasting(name):
    """A name with 0 for each digit of a hash."""
    return re.sub("#[0-9a-f]{6}$", "#000000", name)


DIFFER = {
    "test images": (
        {"data_fingerprint": NEW},
        ("parts #000000", ""),
        ["test images bbbbbb", "test images cccccc"],
    ),
    "training images": (
        {"data_fingerprint": TRAINED},
        ("parts #000000", ""),
        ["training images aaaaaa", "training images dddddd"],
    ),
    "folders of one name": (
        {"data_fingerprint": NEW, "location": "/other/parts"},
        ("parts #000000", ""),
        ["folder /data/parts; test images bbbbbb", "folder /other/parts; test images cccccc"],
    ),
    "weights": (
        {"weights_sha256": "x" * 64},
        ("parts", "#000000"),
        ["weights wwwwww", "weights xxxxxx"],
    ),
    "textures": (
        {"weights_sha256": "x" * 64, "config_json": '{"k": 3, "textures": "dtd"}'},
        ("parts", "#000000"),
        ["textures xxxxxx", "weights wwwwww"],
    ),
    "a setting": (
        {"config_hash": "2", "config_json": '{"k": 5}'},
        ("parts", "#000000"),
        ["k = 3", "k = 5"],
    ),
    "a knob and weights": (
        {"config_hash": "2", "knobs_json": '{"t": 20}', "weights_sha256": "x" * 64},
        ("parts", "#000000"),
        ["weights wwwwww; t = 10", "weights xxxxxx; t = 20"],
    ),
    "the code": ({"config_hash": "2"}, ("parts", "#000000"), ["code 1", "code 2"]),
}


@pytest.mark.parametrize("what", DIFFER)
def test_cells_that_differ_are_rows_of_their_own_and_a_note_says_in_what(what):
    changes, name, said = DIFFER[what]
    cells = cell(0), cell(1), cell(2, minute=1, **changes)
    found = names(*cells)
    assert sorted(found.values()) == [1, 2]
    assert {tuple(map(lasting, names)) for names in found} == {name}
    assert notes(*cells) == said
    table = render(told(*cells), "md")
    assert "differs in" in table and all(note in table for note in said)


@pytest.mark.parametrize(
    "changes",
    [{"location": "/moved/parts"}, {"code_version": "0.2"}, {"device": "b", "torch_version": "3"}],
)
def test_a_moved_folder_another_release_or_machine_makes_no_other_row(changes):
    assert names(cell(0), cell(1), cell(2, minute=1, **changes)) == {("parts", ""): 3}


def test_fewer_categories_are_a_table_of_their_own_and_incomplete():
    frame = told(cell(0), cell(1, ("bolt",), data_fingerprint=NEW))
    complete = {lasting(name): whole for name, whole in summary(frame)["data", "complete"].rows()}
    assert complete == {"": True, "#000000": False}


def test_one_model_a_category_keeps_its_table_whole():
    separate = {"mode": "separate"}
    found = names(
        *(cell(seed, ("bolt",), data_fingerprint=OLD, **separate) for seed in (0, 1)),
        *(cell(seed, ("nut",), data_fingerprint=TRAINED, **separate) for seed in (0, 1)),
        *(cell(seed, ("nut",), 5, data_fingerprint="e" * 32, **separate) for seed in (0, 1)),
    )
    assert found[("parts", "")] == 2
    assert {lasting(name) for name, _ in found} == {"parts", "parts #000000"}
    tuned = {"mode": "separate", "variant": "tuned"}
    bolt = cell(0, ("bolt",), data_fingerprint=OLD, config_hash="1", **tuned)
    nut = cell(0, ("nut",), data_fingerprint=NEW, config_hash="2", knobs_json='{"t": 99}', **tuned)
    assert names(bolt, nut) == {("parts", "tuned"): 1}, "each category has its own choice"


def test_a_failure_of_other_images_is_told_apart_too():
    failed = [row | {"category": None, "metric": None, "value": None, "status": "error"}
              for row in cell(2, ("",), 1, data_fingerprint=NEW)]  # fmt: skip
    assert len(names(cell(0), cell(1), failed)) == 2


def test_a_row_that_held_images_out_stands_beside_the_others():
    tuned = cell(0, variant="tuned", data_fingerprint=TRAINED, images_fingerprint=OLD)
    assert names(cell(0), cell(1), tuned) == {("parts", ""): 2, ("parts", "tuned"): 1}
    other = cell(1, variant="tuned", data_fingerprint="e" * 32, images_fingerprint="f" * 32)
    assert len(names(cell(0), tuned, other)) == 3


def test_three_versions_have_three_names():
    many = [f"c{number}" for number in range(9)]
    found = names(
        cell(0, many),
        cell(1, many[:5], data_fingerprint=NEW),
        cell(2, many[4:], data_fingerprint=TRAINED),
    )
    assert sorted(found.values()) == [1, 1, 1]
    assert ("parts", "") in found, "the data set with all categories keeps its name"


def test_ends_of_paths_tell_them_apart():
    assert distinct_ends(["/a/x/parts", "/b/x/parts", "/c"]) == ["a/x/parts", "b/x/parts", "c"]
    assert distinct_ends(["/data/parts"]) == ["parts"]
    assert distinct_ends(["/parts", "/a/parts"]) == ["//parts", "a/parts"]
