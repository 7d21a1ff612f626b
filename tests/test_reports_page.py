"""The HTML report: large, small, without evidence, and with names that try to break out of it."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from made_reports import publish, spot, write_cell

from results import table
from results.evidence import pictures_path
from results.identity import POOLED
from results.reports.page.gallery import Picture, peak_on_defect, telling_pair, within
from results.reports.page.page import page
from results.reports.page.selectors import selectors

MVTEC = tuple(f"product {number}" for number in range(15))
MPDD = tuple(f"part {number}" for number in range(6))
METHODS = ("draem", "fastflow", "lafite", "padim", "patchcore", "patchsvdd", "revdistill", "uniad")


class Words(HTMLParser):
    """All text and all tags of a page, without its script and data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags = "", []
        self.feed(re.sub(r"(<(style|script)[^>]*>).*?</\2>", r"\1</\2>", text, flags=re.DOTALL))

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def _data(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


@pytest.mark.slow
def test_eight_methods_21_categories_and_5_seeds_take_25_megabytes(
    tmp_path: Path,
) -> None:
    for method in METHODS:
        for seed in range(5):
            for benchmark, categories in (("mvtec", MVTEC), ("mpdd", MPDD)):
                publish(tmp_path, benchmark, categories, method, seed, evidence=seed == 0)
    text = page(tmp_path)
    assert 1e6 < len(text.encode()) < 25e6
    data = _data(text)
    assert len(data["pictures"]) == 8 * 21 * 12
    # Twelve images, a mask, and maps of finds and of misses.
    assert len(set(data["files"])) == len(data["files"]) == 15, "each file once"
    # A mean and each category of 8 metrics, image metrics pooled as well.
    assert len(data["traced"]) == 8 * (8 * (15 + 6 + 2) + 3 * 2)


NASTY = ("<script>alert(1)</script>", '" onload="alert(1)', "$x_{&amp;}$ | a.b", "</script><b>")


def test_names_do_not_break_out_and_the_page_asks_for_nothing(tmp_path: Path) -> None:
    categories = [f"{name} {number}" for number, name in enumerate(NASTY)]
    for name in NASTY[:3]:
        publish(tmp_path, NASTY[0], categories, name, variant=NASTY[1])
    text = page(tmp_path)
    words = Words(text)
    assert sum(tag == "script" for tag, _ in words.tags) == 2, "the data and the page's own"
    assert not any(tag == "b" and not attributes for tag, attributes in words.tags[-3:])
    for name in (*categories, *NASTY[:3]):
        assert name in words.text
    for tag, attributes in words.tags:
        for name in ("src", "href", "xlink:href", "action", "srcset"):
            value = attributes.get(name) or ""
            assert value.startswith("#") or not value, (tag, name, value[:60])
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in re.sub(r"url\(#[\w${}]+\)", "", text) and "@import" not in text


def test_what_is_missing_is_said_with_its_reason(tmp_path: Path) -> None:
    for method in ("lafite", "uniad"):
        publish(tmp_path, "mvtec", MVTEC[:2], method, evidence=False)
    cell = publish(tmp_path, "elpv", ["mono"], "uniad")
    part = table.part_path(tmp_path, cell)
    rows = table.read_part(part).to_dicts()
    for row in rows:
        if row["metric"].startswith("pixel_"):
            row |= {"value": None, "reason": "elpv has image labels only"}
    table.write_part(part, rows, replace=True)
    (tmp_path / "pixel_curves" / f"{cell}.parquet").unlink()
    text = page(tmp_path)
    assert "The folder has no pictures of 2 of the cells" in " ".join(Words(text).text.split())
    elpv, mvtec = _data(text)["choices"]
    assert "image scores: this folder holds none" in mvtec["missing"][0]
    assert elpv["missing"][0] == "pixel curves: elpv has image labels only"
    assert _data(text)["curves"] == {}


def test_a_folder_of_failures_is_a_report_too(tmp_path: Path) -> None:
    cell = publish(tmp_path, "mvtec", MVTEC[:1], "lafite")
    row = table.read_part(table.part_path(tmp_path, cell)).row(0, named=True)
    failed = row | {"value": None, "reason": "x", "status": "error", "error": "OutOfMemory: 9 GB"}
    table.part_path(tmp_path, cell).unlink()
    table.write_part(table.failure_path(tmp_path, cell, 1), [failed])
    text = Words(page(tmp_path)).text
    assert "No cell has finished yet." in text and "OutOfMemory: 9 GB" in text
    with pytest.raises(ValueError, match="no results here"):
        page(tmp_path / "nothing")


def test_incomplete_means_are_marked_and_never_the_best(tmp_path: Path) -> None:
    for method, categories in (("a", ["x", "y"]), ("b", ["x"])):
        values = [(name, "image_auroc", 0.7 + (method == "b") * 0.2) for name in categories]
        names = {"benchmark": "mvtec", "method": method, "seed": 0}
        write_cell(tmp_path, f"{method}-cell", names, values)
    text = page(tmp_path)
    assert re.search(r'class="incomplete">.*?90\.0 <small>1 of 2 categories', text)
    assert 'class="best"' not in text[: text.index("<h3>Categories</h3>")]
    assert "a leads in image_auroc (70.0\u00a0%)" in text, "b is no leader"


def test_each_seed_of_a_number_and_its_cells_are_in_the_page(tmp_path: Path) -> None:
    cells = [publish(tmp_path, "mvtec", MVTEC[:2], "lafite", seed) for seed in range(3)]
    data = _data(page(tmp_path))
    frame = table.read(tmp_path)
    traced = data["traced"]["0.0.0.0"]  # the mean of image_auroc
    assert [seed for seed, _, _ in traced] == [0, 1, 2]
    for seed, value, numbers in traced:
        assert [data["cells"][number] for number in numbers] == [cells[seed]]
        rows = frame.filter(pl.col("category") != POOLED, metric="image_auroc", seed=seed)
        assert value == pytest.approx(rows["value"].mean(), abs=1e-6)


def _picture(label: int, rank: int, size: int = 75) -> Picture:
    image = f"{label}.{rank}".encode().ljust(size)
    return Picture(0, 0, label, rank, "key", "cut", True, 0.5, image, None, b"", 0, 1, 0.5)


def test_pictures_that_do_not_fit_are_left_out_evenly_the_mildest_first() -> None:
    pictures = [_picture(label, rank) for label in range(4) for rank in range(3)]
    shown, ranks = within(pictures, 900)
    assert ranks == 2 and sorted({picture.rank for picture in shown}) == [0, 1]
    assert len(shown) == 8
    assert within(pictures, 10_000) == (sorted(pictures, key=lambda picture: picture.rank), 3)
    assert within([], 10) == ([], 0)
    same = [picture._replace(image=b"one for all") for picture in pictures]
    assert within(same, 20) == (sorted(same, key=lambda picture: picture.rank), 3)


def test_a_defect_is_found_where_its_map_is_highest() -> None:
    mask = spot(0.3, 0.05)
    assert peak_on_defect(spot(0.3, 0.2), mask) and peak_on_defect(spot(0.34, 0.2), mask)
    assert not peak_on_defect(spot(0.7, 0.2), mask)


def test_the_first_screen_has_a_clear_find_and_a_clear_miss() -> None:
    mask, there, elsewhere = spot(0.3, 0.05), spot(0.3, 0.2), spot(0.7, 0.2)
    starts = {"0.0.0": 0.5, "0.0.1": 0.5}

    def pair(*seen: tuple[int, float, bytes], masked: bool = True) -> list[int]:
        pictures = [
            _picture(label, rank)._replace(
                score=score,
                map=map_file,
                mask=mask if masked else None,
                on_defect=map_file == there if masked else None,
            )
            for rank, (label, score, map_file) in enumerate(seen)
        ]
        assert telling_pair(pictures, 1, [0], starts) == [], "another section"
        return telling_pair(pictures, 0, [0, 1], starts)

    high, low = (0, 0.9, elsewhere), (0, 0.6, there)
    assert pair(high, low) == [1], "an alarm for another place is no find"
    assert pair(high) == []
    assert pair((0, 0.2, there), (0, 0.3, elsewhere)) == [1], "the map shows nothing of it"
    assert pair(low, (1, 0.2, elsewhere)) == [0, 1], "the best method misses none"
    assert pair(low, high, masked=False) == [1], "without masks the highest score"


def test_a_threshold_that_calls_all_images_defective_finds_nothing(tmp_path: Path) -> None:
    cell = publish(tmp_path, "mvtec", MVTEC[:1], "lafite")
    path = table.scores_path(tmp_path, cell)
    rows = table.read_part(path, table.SCORES_SCHEMA).to_dicts()
    for number, row in enumerate(rows):
        row["score"] = 0.5 + number / 100 if not row["label"] else 0.5
    table.write_rows(path, rows, table.SCORES_SCHEMA, replace=True)
    data = _data(page(tmp_path))
    assert data["blind"] == ["0.0.0", "0.1.0"] and data["first"] == [[]]


def test_no_axis_leaves_100_percent(tmp_path: Path) -> None:
    publish(tmp_path, "mvtec", MVTEC[:2], "lafite", evidence=False)
    charts = [json.loads(text) for text in re.findall(r"data-chart='(.*?)'", page(tmp_path))]
    axes = [chart[axis] for chart in charts for axis in ("x", "y")]
    assert {tuple(axis["limits"]) for axis in axes if "%" in axis.get("name", "")} == {(0, 100)}


def test_the_title_says_what_was_compared_and_how_much_of_it(tmp_path: Path) -> None:
    publish(tmp_path, "mvtec", MVTEC[:1], "lafite", published_categories=15)
    publish(tmp_path, "shapes", ["disc"], "lafite")
    text = page(tmp_path)
    [title] = re.findall(r"<title>(.*?)</title>", text)
    assert title.startswith("mvtec (1 of 15 categories), shapes: lafite")


def test_losses_of_kept_models_are_drawn(tmp_path: Path) -> None:
    cell = publish(tmp_path, "mvtec", MVTEC[:2], "lafite")
    other = publish(tmp_path, "mvtec", MVTEC[:2], "uniad")
    for name, content in ((cell, '{"losses": [3.0, 2.5, 0.5]}'), (other, '{"losses": ["<b>"]}')):
        (tmp_path / "models" / name / "cells").mkdir(parents=True)
        (tmp_path / "models" / name / "fit.json").write_text(content)
        (tmp_path / "models" / name / "cells" / f"{name}.json").write_text("{}")
    charts = [json.loads(text) for text in re.findall(r"data-chart='(.*?)'", page(tmp_path))]
    [drawn] = [chart for chart in charts if chart["x"]["name"] == "epoch"]
    assert [line["name"] for line in drawn["lines"]] == ["lafite, seed 0"]
    assert drawn["lines"][0]["y"] == [3.0, 2.5, 0.5]


def _tried(out: Path, values: dict[int, tuple[float, float]], config: str) -> None:
    """Settings t of a search, as `tune --reveal` leaves them: (pseudo-validation, test)."""
    for t, pair in values.items():
        for folder, value in zip(("trials", "revealed"), pair, strict=True):
            knobs = json.dumps({"t": t, "k": 0})
            names = {"benchmark": "mixed", "method": "lafite", "seed": 0, "knobs_json": knobs}
            names |= {"config_json": config, "data_fingerprint": "kept0test0"}
            cell = f"{t}-{folder}-{len(config)}"
            write_cell(out, cell, names, [("screw", "image_auroc", value)])
            (out / folder).mkdir(exist_ok=True)
            table.part_path(out, cell).rename(out / folder / f"{cell}.parquet")


def test_figure_6_shows_each_tried_setting_on_both_sets(tmp_path: Path) -> None:
    values = {100: (0.70, 0.81), 200: (0.75, 0.80), 300: (0.72, 0.83)}
    _tried(tmp_path, values, '{"epochs": 10}')
    _tried(tmp_path, {t: (0.1, 0.1) for t in values}, '{"epochs": 2000}')  # another search
    tried = [{"knobs": {"t": t, "k": 0}, "values": [pair[0]]} for t, pair in values.items()]
    failed = {"knobs": {"t": 900, "k": 0}, "values": []}
    choice = {
        "benchmark": "mixed", "method": "lafite", "preset": "quick", "knobs": {"t": 200, "k": 0},
        "frozen_at": "2026-01-02T12:00:00.5+00:00", "config": {"epochs": 10},
        "kept_fingerprint": "kept0", "verdict": {"why": "5 of 9 families agree"},
        "stages": [{"knobs": ["t"], "best": 1, "tried": [*tried, failed]}],
    }  # fmt: skip
    path = tmp_path / "choices" / "mixed-lafite-1.json"
    path.parent.mkdir()
    path.write_text(json.dumps(choice))
    [hidden] = selectors(tmp_path)
    assert not hidden["tables"] and not hidden["charts"]
    agreement = {"category": "screw", "settings": 3, "spearman": None, "best": 0.83}
    agreement |= {"chosen": 0.8, "regret": 3.0, "rank": 3}
    regret = {"setting": "chosen", "test": 0.8, "regret": 0.03, "spread": None, "seeds": 1}
    revealed = {"regrets": [regret], "agreement": [agreement | {"family": "blur"}]}
    path.with_suffix(".revealed.json").write_text(json.dumps(revealed))
    [shown] = selectors(tmp_path)
    assert (shown["name"], shown["chosen"]) == ("mixed lafite, quick", "t = 200, k = 0")
    [[fell_short], [row]] = [table.rows for table in shown["tables"]]
    assert [entry.text for entry in fell_short] == ["chosen", "80.0", "3.0"]
    texts = [entry.text for entry in row]
    assert texts == ["blur", "screw", "–", "83.0", "80.0", "3.0", "3"]
    [chart] = shown["charts"]
    assert chart["title"] == "pseudo-validation and test against t"
    assert [rule["x"] for rule in chart["rules"]] == [200]
    pseudo, test = chart["lines"]
    assert pseudo["x"] == test["x"] == [100, 200, 300]
    assert pseudo["y"] == pytest.approx([70, 75, 72])
    assert test["y"] == pytest.approx([81, 80, 83])


def test_damaged_files_are_named(tmp_path: Path) -> None:
    cell = publish(tmp_path, "mvtec", MVTEC[:1], "lafite")
    pictures_path(tmp_path, cell).write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=cell):
        page(tmp_path)
    path = tmp_path / "choices" / "x.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(ValueError, match=r"choices/x\.json: no choice that can be read"):
        selectors(tmp_path)
