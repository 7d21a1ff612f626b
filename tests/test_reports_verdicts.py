"""What reports say of differences: the best against others, two rows, published numbers."""

from __future__ import annotations

import json

import polars as pl
import pytest
from made_rows import made_frame

from results.analysis.published import MEAN, beside_published
from results.analysis.statistics import turned
from results.reports.sections import sections
from results.reports.tables import published
from results.reports.text import frames, render
from results.reports.verdicts import best_against_others, comparison


def _values(**means):
    return {
        (method, seed, f"c{category}"): mean + 0.01 * category + 0.001 * ((seed + category) % 3)
        for method, mean in means.items()
        for seed in range(3)
        for category in range(8)
    }


def _best(frame):
    """Title and texts of the table of the best row."""
    (section,) = sections(frame)
    table = best_against_others(section, "image_auroc")
    return (table.title, _texts(table)) if table else ("", [])


def _texts(table):
    return [[entry.text for entry in row] for row in table.rows]


def test_the_best_row_stands_against_each_of_the_others():
    title, rows = _best(made_frame(_values(a=0.8, b=0.9, c=0.85)))
    assert title == "image_auroc: b, the highest mean, against the others"
    assert [row[:2] for row in rows] == [["a", "+10.0"], ["c", "+5.0"]]
    assert {row[-1] for row in rows} == {"b is better"}
    assert {row[3] for row in rows} == {"0.023"}  # three times 2 / 2**8


def test_one_row_is_compared_with_nothing():
    assert _best(made_frame(_values(a=0.8))) == ("", [])


def test_the_best_row_is_a_complete_one():
    values = _values(a=0.8, b=0.7, broken=0.99)
    del values["broken", 0, "c0"]
    title, rows = _best(made_frame(values))
    assert title.startswith("image_auroc: a,")
    assert rows[1][0] == "broken" and "categories are missing" in rows[1][-1]


def test_rows_without_anything_in_common_are_not_compared():
    for other in ((1, "c0"), (0, "c1")):  # another seed, another category
        frame = made_frame({("a", 0, "c0"): 0.5, ("b", *other): 0.8, ("c", 0, "c0"): 0.6})
        render(frame, "terminal")
        assert "no category was measured with the same seed" in comparison(frame, "a", "b", "md")
    frame = made_frame({("a", 0, "c0"): 0.5, ("b", 1, "c0"): 0.8})
    _, [row] = _best(frame)
    assert row[:4] == ["a", "–", "–", "–"]


def test_a_turned_pair_says_the_same():
    pair = {"a": "x", "b": "y", "difference": 0.2, "low": 0.1, "high": 0.3}
    pair |= {"wins": 3, "losses": 1, "better": 0.6, "worse": 0.1}
    back = turned(pair)
    assert (back["a"], back["difference"], back["low"], back["high"]) == ("y", -0.2, -0.3, -0.1)
    assert (back["wins"], back["losses"]) == (1, 3)
    assert (back["better"], back["worse"]) == (0.1, 0.6)
    assert turned(back) == pair


def test_a_comparison_has_a_verdict_a_metric_and_gaps_by_category():
    frame = pl.concat(
        [
            made_frame(_values(a=0.8, b=0.9)),
            made_frame(_values(a=0.5, b=0.5), metric="pixel_aupro"),
        ]
    )
    text = comparison(frame, "b", "a", "terminal", 120)
    (image,) = [line for line in text.splitlines() if line.startswith("image_auroc")]
    assert "b is better; b +10.0 points, ahead on 8 of 8 categories, 3 seeds" in image
    assert image.endswith("; p = 0.008, in the whole table 0.008")
    assert "within 0.5 points" in text and "another training: 95 % of the difference" in text
    (pixel,) = [line for line in text.splitlines() if line.startswith("pixel_aupro")]
    assert "within noise of training; b +0.0 points" in pixel
    assert "b minus a, points" in text
    (row,) = [line.split() for line in text.splitlines() if line.strip().startswith("c3")]
    assert row == ["c3", "+10.0", "+0.0"]


def test_of_metrics_asked_for_all_are_corrected_and_one_that_nobody_has_is_named():
    metrics = ("image_auroc", "pixel_aupro")
    frame = pl.concat([made_frame(_values(a=0.8, b=0.9, c=0.7), metric) for metric in metrics])
    text = comparison(frame, "b", "a", "terminal", 120, metrics=metrics)
    assert text.count("b is better; b +10.0 points") == 2
    assert text.count("p = 0.016, in the whole table 0.047") == 2
    with pytest.raises(ValueError, match="no results in 'image_ap'; there are: image_auroc, pixel"):
        comparison(frame, "b", "a", "terminal", metrics=("image_ap",))


@pytest.mark.parametrize("seeds, categories", [(1, 8), (3, 1), (1, 1)])
def test_little_input_has_a_verdict_too(seeds, categories):
    values = {
        key: value
        for key, value in _values(a=0.8, b=0.9).items()
        if key[1] < seeds and int(key[2][1:]) < categories
    }
    text = comparison(made_frame(values), "b", "a", "md", 120)
    [line] = [line for line in text.splitlines() if line.startswith("image")]
    told = "b is ahead, with one training each" if categories > 1 else "too few categories"
    assert told in line and f"ahead on {categories} of {categories} categories" in line
    assert "nan" not in render(made_frame(values), "md")


def test_a_category_without_anomalies_is_left_out_and_said():
    values = _values(a=0.8, b=0.9)
    without = {(name, seed, "plain"): None for name in "ab" for seed in range(3)}
    reason = {"reason": "no anomalous test images"}
    frame = pl.concat([made_frame(values), made_frame(without, **reason)])
    said = "– image_auroc of plain: no anomalous test images; left out of means and ranks"
    text = comparison(frame, "b", "a", "terminal", 120)
    assert "b is better; b +10.0 points, ahead on 8 of 8 categories" in text and said in text
    brief = render(frame, "terminal", brief=True)
    assert "b leads in image_auroc (93.6 %): better than all others" in brief and said in brief
    assert "not comparable" not in brief


def test_rows_of_different_sections_have_nothing_in_common():
    quick, paper = made_frame(_values(a=0.8)), made_frame(_values(b=0.8), preset="paper")
    with pytest.raises(ValueError, match="'a' and 'b' have no data set"):
        comparison(pl.concat([quick, paper]), "a", "b", "terminal")


def _uniad(value):
    config = json.dumps({"image_size": 224, "epochs": 1000})
    categories = ["bracket_black", "bracket_brown", "bracket_white"]
    categories += ["connector", "metal_plate", "tubes"]
    values = {("uniad", seed, name): value for seed in range(2) for name in categories}
    return made_frame(values, benchmark="mpdd", preset="paper", config_json=config)


def test_published_numbers_stand_beside_ours_and_reasons_below():
    frame = _uniad(0.875)
    (section,) = sections(frame)
    table = published(section, "image_auroc", beside_published(frame).filter(category=MEAN))
    assert _texts(table) == [["uniad", "mean", "the paper", "87.5", "87.5", "+0.0", "agrees"]]
    reasons = [line for line in render(frame, "md").splitlines() if "is not beside" in line]
    assert len(reasons) == 2  # ADer's 100 and 300 epochs
    assert reasons[0].startswith("uniad is not beside ADer, 100 epochs: the metric profile is")
    text = render(_uniad(0.95), "md")
    assert "too good is a finding too" in text
    assert "uniad is not beside ADer, 300 epochs" in text


def test_the_same_as_frames():
    frame = made_frame(_values(a=0.8, b=0.9))
    by_name = frames(frame)
    assert list(by_name) == [
        "summary", "categories", "pairs", "published", "failures", "alarms",
    ]  # fmt: skip
    assert by_name["pairs"]["verdict"].to_list() == ["b is better"]
    assert by_name["categories"].select("metric", "category", "method").unique().height == 16
    assert by_name["published"].is_empty() and by_name["failures"].is_empty()


def test_frames_of_a_folder_where_all_failed_are_empty():
    failed = made_frame({("a", 0, None): None}, status="error", metric=None, error="no memory")
    by_name = frames(failed)
    assert len(by_name["failures"]) == 1 and by_name["pairs"].is_empty()
    assert "no memory" in render(failed, "terminal")


def test_with_scores_the_summary_has_an_interval_over_images():
    frame = made_frame({("a", 0, "x"): 0.75})
    rows = [(True, 0.9), (True, 0.1), (False, 0.2), (False, 0.0)]
    scores = pl.DataFrame(
        [
            {"cell_id": "a-0", "key": str(i), "category": "x", "label": label, "score": score}
            for i, (label, score) in enumerate(rows)
        ]
    )
    row = frames(frame, scores)["summary"].row(0, named=True)
    assert row["images_low"] < 0.75 < row["images_high"]
    assert "95 %, images too" in render(frame, "md", scores=scores)
    assert "95 %" not in render(frame, "md")  # one seed, no images
