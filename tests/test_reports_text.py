"""Means, deviations and notes of the report, and names that try to break out of its tables."""

from __future__ import annotations

import io
from datetime import timedelta

import polars as pl
import pytest
from made_rows import NOON, framed, made_frame, made_row

from results.analysis import summary
from results.analysis.cells import row_named
from results.files import ResultsError
from results.identity import POOLED
from results.metrics import METRICS
from results.reports import text as report
from results.reports.sections import sections

AUROC = "image_auroc"


def _rows(values, *, seed=0, cell_id=None, **changes):
    """Rows of one cell from {category: value} or {(category, metric): value}."""
    name = changes.get("method", "patchcore")
    base = made_row(
        method="patchcore", seed=seed, cell_id=cell_id or f"{name}-{seed}",
        fit_seconds=10.0 + seed, images_per_second=5.0, peak_memory_bytes=2**30,
    )  # fmt: skip
    rows = []
    for key, value in values.items():
        category, metric = key if isinstance(key, tuple) else (key, AUROC)
        reason = "" if value is not None else "no anomalous test images"
        row = {"category": category, "metric": metric, "value": value, "reason": reason}
        rows.append(base | row | changes)
    return rows


def _failed(seed, error, **changes):
    (row,) = _rows({"": None}, seed=seed, cell_id=f"failed-{seed}")
    unknown = {"category": None, "metric": None, "reason": None}
    return [row | unknown | {"status": "diverged", "error": error} | changes]


def _frame(*cells):
    return framed([row for cell in cells for row in cell])


def _only_row(frame):
    (row,) = summary.summary(frame).to_dicts()
    return row


def test_mean_over_categories_then_mean_and_std_over_seeds():
    frame = _frame(
        _rows({"a": 0.9, "b": 0.7, POOLED: 0.6}, seed=0),
        _rows({"a": 0.8, "b": 0.4, POOLED: 0.5}, seed=1),
    )
    row = _only_row(frame)
    assert row["mean"] == pytest.approx(0.7)  # of 0.8 and 0.6
    assert row["std"] == pytest.approx(0.02**0.5)
    assert row["seeds"] == 2
    assert row["category_std"] == pytest.approx(0.15)  # of 0.85 and 0.55, ddof 0
    assert (row["worst_category"], row["worst"]) == ("b", pytest.approx(0.55))
    assert row["pooled"] == pytest.approx(0.55)
    assert (row["categories"], row["expected"], row["complete"]) == (2, 2, True)
    assert row["fit_seconds"] == pytest.approx(10.5)
    assert _only_row(_frame(_rows({"a": 0.9, "b": 0.7})))["std"] is None, "of one seed"


def test_a_category_that_one_method_lacks_marks_its_mean_as_incomplete():
    lacking = _rows({"a": 0.9, "b": None, "c": 0.7, ("a", "pixel_ap"): None})
    frame = _frame(lacking, _rows({"a": 0.9, "b": 0.5, "c": 0.7}, method="uniad"))
    for rows, expected in ((_frame(lacking), 2), (frame, 3)):
        row = summary.summary(rows).filter(metric=AUROC).row(0, named=True)
        assert (row["categories"], row["expected"]) == (2, expected)
        assert (row["complete"], row["reason"]) == (expected == 2, "no anomalous test images")
    text = report.render(frame, "terminal")
    assert "80.0 *" in text
    assert "* patchcore, image_auroc: over 2 of 3 categories only, not comparable" in text
    assert "– image_auroc of b: no anomalous test images\n" in text
    assert "pixel_ap, %" not in text, "nobody measured it"


def test_only_categories_measured_with_every_seed_are_averaged():
    separate = {"mode": "separate", "fit_seconds": 10.0}
    frame = _frame(
        _rows({"a": 0.9}, seed=0, cell_id="a0", **separate),
        _rows({"b": 0.1}, seed=0, cell_id="b0", **separate),
        _rows({"a": 0.7}, seed=1, cell_id="a1", **separate),
        _failed(1, "out of memory", mode="separate"),
    )
    row = _only_row(frame)
    assert row["mean"] == pytest.approx(0.8)
    assert (row["categories"], row["expected"], row["complete"]) == (1, 2, False)
    assert row["failed"] == 1
    assert row["fit_seconds"] == pytest.approx(15.0)  # 20 s for seed 0, 10 s for seed 1


def test_a_separate_model_has_no_pooled_score_of_the_whole():
    frame = _frame(
        _rows({"a": 0.9, POOLED: 0.9}, cell_id="a0", mode="separate"),
        _rows({"b": 0.7, POOLED: 0.7}, cell_id="b0", mode="separate"),
    )
    row = _only_row(frame)
    assert (row["mean"], row["pooled"]) == (pytest.approx(0.8), None)


def test_two_models_never_make_one_mean_and_of_equal_ones_the_newest_is_shown():
    later = NOON + timedelta(hours=1)
    frame = _frame(
        _rows({"a": 0.9, "b": 0.7}, cell_id="first"),
        _rows({"c": 0.1}, cell_id="second", finished_at=later),
    )
    row = _only_row(frame)
    assert row["mean"] == pytest.approx(0.8)
    assert (row["categories"], row["expected"]) == (2, 3)
    assert "1 finished cells not shown" in report.render(frame, "md")
    equal = _rows({"a": 0.9}, cell_id="new", finished_at=later), _rows({"a": 0.1}, cell_id="old")
    assert _only_row(_frame(*equal))["mean"] == pytest.approx(0.9)


def test_failed_cells_are_counted_and_a_method_that_only_failed_stays_in_the_table():
    error = "NaN loss \x1b[31mat step 3\nwith a traceback below"
    frame = _frame(
        _rows({"a": 0.9}), _failed(1, error), _failed(0, "no memory", method="uniad", cell_id="u")
    )
    rows = summary.summary(frame).to_dicts()
    assert [(r["method"], r["mean"], r["failed"]) for r in rows] == [
        ("patchcore", 0.9, 1),
        ("uniad", None, 1),
    ]
    text = report.render(frame, "terminal")
    assert "diverged: patchcore, seed 1: NaN loss  at step 3\n" in text
    assert "\x1b" not in text and "no memory" in text
    assert "no memory" in report.render(_frame(_failed(0, "no memory")), "terminal")


def test_per_category_puts_the_pooled_row_last():
    frame = _frame(
        _rows({POOLED: 0.5, "b": 0.7, "a": 0.9}, seed=0),
        _rows({POOLED: 0.6, "b": 0.7, "a": None}, seed=1),
    )
    rows = summary.per_category(frame, AUROC)
    assert rows.select("category", "seeds").rows() == [("a", 1), ("b", 2), (POOLED, 2)]
    assert rows["mean"].to_list() == pytest.approx([0.9, 0.7, 0.55])
    assert rows["std"][1] == 0.0


def test_new_names_need_no_edit():
    frame = _frame(
        _rows({("a", "sound_eer"): 0.25, ("a", AUROC): 0.5}, method="newcomer", variant="k=3")
    )
    text = report.render(frame, "md")
    assert "**sound_eer, % (± std over seeds)**" in text
    assert "| newcomer | 25.0 | 1 |" in text
    assert text.startswith("mixed · multi-class · quick · k=3  ")


B4, LITE = (f'{{"backbone": "tf_efficientnet_{name}"}}' for name in ("b4", "lite0"))


def test_what_all_rows_share_is_said_once_and_rows_are_called_by_the_rest():
    variants = ("precision=float32", "precision=float32, tuned", "precision=float32, layers=[1, 2]")
    cells = [
        _rows({"a": 0.9}, variant=variant, cell_id=variant, config_json=LITE)
        for variant in variants
    ]
    frame = _frame(*cells, _rows({"a": 0.8}, method="padim", variant=variants[0], config_json=LITE))
    title, *lines = report.render(frame, "md", brief=True).splitlines()
    assert title == (
        "mixed · multi-class · quick · precision=float32, backbone tf_efficientnet_lite0  "
    )
    names = [line.split(" | ")[0] for line in lines if line.startswith(("| padim", "| patchcore"))]
    plain, layers = "| patchcore", r"| patchcore layers=\[1, 2\]"
    assert sorted(names) == ["| padim", plain, layers, "| patchcore tuned"]
    frame = _frame(*cells, _rows({"a": 0.8}, method="padim", config_json=B4))
    title, *lines = report.render(frame, "md", brief=True).splitlines()
    assert title == "mixed · multi-class · quick  "
    assert any(line.startswith("| patchcore precision=float32, tuned |") for line in lines)
    said = "backbone tf_efficientnet_b4: padim; tf_efficientnet_lite0: patchcore precision=float32,"
    assert said in " ".join(" ".join(lines).split())
    assert "| padim | 80.0 | 1 | tf_efficientnet_b4 |" in report.render(frame, "md")


def test_any_words_that_only_one_row_has_name_it():
    variants = ("precision=float32, sigma=2", "precision=float32, tuned")
    frame = _frame(
        *(_rows({"a": 0.9}, variant=variant, cell_id=variant) for variant in variants),
        _rows({"a": 0.9}, method="padim", variant="k=3"),
    )
    meant = {
        "padim": "padim k=3",
        "patchcore tuned": "patchcore precision=float32, tuned",
        "patchcore sigma=2": "patchcore precision=float32, sigma=2",
    }
    assert {name: row_named(frame, name) for name in meant} == meant
    with pytest.raises(ResultsError, match=r"'patchcore' is one of 2 rows: which of patchcore pr"):
        row_named(frame, "patchcore")
    with pytest.raises(ResultsError, match="no results of 'lafite'; there are: padim k=3; patchc"):
        row_named(frame, "lafite")
    plain = _frame(_rows({"a": 0.9}), _rows({"a": 0.9}, variant="sigma=2", cell_id="s"))
    assert row_named(plain, "patchcore") == "patchcore"


def test_rows_of_another_view_stand_in_a_section_that_names_it_and_are_not_ranked_together():
    both = {("a", AUROC): 0.9, ("a", "pixel_ap"): 0.6}
    frame = _frame(
        _rows(both),
        _rows(both, profile="patchcore", cell_id="p"),
        _rows(both, profile="patchcore", cell_id="l", method="lafite"),
    )
    titles = [line for line in report.render(frame, "md").splitlines() if line.startswith("mixed")]
    assert titles == [
        f"mixed · multi-class · quick · {view}  "
        for view in (
            "pixels of the whole image at 256",
            "metrics of patchcore · pixels of its centre, 224 of 256 at 224",
        )
    ]
    assert [section.present for section in sections(frame)] == [
        ["patchcore"],
        ["lafite", "patchcore"],
    ]
    assert {pair["profile"] for s in sections(frame) for pair in s.pairs("pixel_ap")} == {
        "patchcore"
    }


def test_seeds_of_unlike_formats_are_named() -> None:
    frame = made_frame({("lafite", seed, "screw"): 0.9 for seed in (0, 1)}, precision="float32")
    said = "seeds of unlike number formats are averaged: bfloat16 on float32 features, float32"
    assert said not in report.render(frame, "md")
    second = pl.when(pl.col("seed") == 1).then(pl.lit("bfloat16 on float32 features"))
    mixed = frame.with_columns(precision=second.otherwise(pl.col("precision")))
    assert f"lafite: {said}" in report.render(mixed, "md")


def test_sections_keep_modes_and_presets_apart():
    frame = _frame(
        _rows({"a": 0.9}),
        _rows({"a": 0.8}, cell_id="s", mode="separate"),
        _rows({"a": 0.7}, cell_id="p", preset="paper"),
    )
    assert summary.summary(frame)["mean"].to_list() == [0.7, 0.9, 0.8]
    text = report.render(frame, "terminal")
    assert [line for line in text.splitlines() if line.startswith("mixed · ")] == [
        "mixed · multi-class · paper",
        "mixed · multi-class · quick",
        "mixed · separate · quick",
    ]


def test_names_stay_in_their_cell():
    frame = _frame(_rows({"a|b [red]x[/red] <b>`\n| # y": 0.5, "ok": 0.9, "=cmd()": 0.1}))
    (line,) = [line for line in report.render(frame, "md").splitlines() if line.startswith("| a")]
    assert line == r"| a\|b \[red\]x\[/red\] \<b\>\` \| \# y | 50.0 |"
    text = report.render(frame, "terminal", width=80)
    assert "[red]x[/red]" in text and max(map(len, text.splitlines())) <= 80
    parsed = pl.read_csv(io.StringIO(report.render(frame, "csv")))
    assert parsed["mean"].to_list() == [0.5]
    assert parsed["worst_category"].to_list() == ["'=cmd()"], "a spreadsheet would run it"


METHODS = ("draem", "fastflow", "lafite", "padim", "patchcore", "patchsvdd", "revdistill", "uniad")
LONG = "coreset=0.25, image_size=320, crop=288"


def _grid(metrics, variant=""):
    """Eight methods, each with a twin of a variant name, by seven metrics and two seeds."""
    cells = [
        _rows(
            {(c, m): 0.9 + 0.01 * seed for c in ("a", "b") for m in metrics},
            seed=seed, method=method, variant=name, cell_id=f"{method}-{name}-{seed}",
        )
        for method in METHODS
        for name in ("", variant)
        for seed in range(2)
    ]  # fmt: skip
    failed = [
        _failed(
            seed, f"no memory {seed}", method=method, variant=variant, cell_id=f"{method}{seed}"
        )
        for method in METHODS[:3]
        for seed in (7, 8)
    ]
    return _frame(*cells, *failed)


@pytest.mark.parametrize("width", [80, 120])
def test_a_brief_report_is_one_table_of_80_columns_and_the_notes(width):
    frame = _grid(METRICS, LONG)
    text = report.render(frame, "terminal", width, brief=True)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "mixed · multi-class · quick · pixels of the whole image at 256"
    assert sum("─" in line for line in lines) == 1  # the rule below a header: one table
    (header,) = [line.split() for line in lines if line.lstrip().startswith("method")]
    assert header == ["method", "image_auroc", "image_ap", "seeds", "fit", "s", "images/s"]
    shown = [line.split()[0] for line in lines if "90.5 ± 0.7 " in line]
    assert shown == [method for method in METHODS for _ in range(2)]
    notes = list(report.notes(*sections(frame)))
    assert lines[-len(notes) :] == notes and len(notes) == 6
    assert "diverged: lafite " + LONG + ", seed 8: no memory 8" in notes


def test_a_brief_report_has_all_metrics_where_they_fit():
    frame = _frame(
        _rows({"a": 0.9, ("a", "image_ap"): 0.8, ("a", "sound_eer"): 0.1, "b": None}),
        _rows({"a": 0.7, ("a", "image_ap"): 0.6, "b": 0.7}, method="uniad"),
        _failed(0, "no memory", method="draem"),
    )
    lines = report.render(frame, "md", brief=True).splitlines()
    assert "| method | image_auroc | image_ap | sound_eer | seeds | fit s | images/s |" in lines
    assert "| draem | – | – | – | 0 | – | – |" in lines
    assert r"| patchcore | 90.0 \* | 80.0 | 10.0 | 1 | 10.0 | 5.0 |" in lines
    assert r"| uniad | 70.0 | 60.0 | – | 1 | 10.0 | 5.0 |" in lines
    assert r"\* patchcore, image_auroc: over 1 of 2 categories only, not comparable  " in lines
    assert "– image_auroc of b: no anomalous test images  " in lines
    assert lines[-1] == "diverged: draem, seed 0: no memory  "


def test_a_brief_report_knows_no_metric_by_name():
    sounds = [f"sound_metric_{number}" for number in range(7)]
    lines = report.render(_grid(sounds), "terminal", brief=True).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("sound_metric_0   sound_metric_1 " in line for line in lines) == 1


def test_a_report_is_brief_on_demand_alone_and_another_format_is_refused():
    frame = _grid(METRICS)
    whole = report.render(frame, "md")
    assert "image_ap by category" in whole and "cost of one seed**" in whole
    for fmt in ("csv", "latex"):
        assert report.render(frame, fmt, brief=True) == report.render(frame, fmt)
    with pytest.raises(ValueError, match=r"'pdf'.*terminal, md, latex or csv"):
        report.render(frame, "pdf")


def test_a_brief_report_has_the_best_first_and_says_whether_that_is_told():
    values = {f"c{number}": 0.9 - number / 100 for number in range(9)}
    frame = _frame(
        *(
            _rows({c: v - lower + s / 1000 for c, v in values.items()}, method=name, seed=s)
            for name, lower in (("uniad", 0.1), ("lafite", 0.0))
            for s in (0, 1)
        )
    )
    lines = report.render(frame, "md", brief=True).splitlines()
    table = [line for line in lines if line.startswith(("| lafite", "| uniad"))]
    assert [line.split()[1] for line in table] == ["lafite", "uniad"]
    assert "| **86.1 ± 0.1** |" in table[0] and "**" not in table[1]
    said = (
        "lafite leads in image_auroc (86.1 %): better than all others, by 2 seeds on 9 categories"
    )
    assert said in " ".join(line.strip() for line in lines)
    styled = report.render(frame, "terminal", brief=True, styled=True)
    assert "\x1b[1m86.1 ± 0.1" in styled.replace("\x1b[1m ", "\x1b[1m")
    assert "\x1b" not in report.render(frame, "terminal", brief=True)


def test_a_brief_report_of_one_row_leads_nothing():
    alone = report.render(_frame(_rows({"a": 0.9})), "md", brief=True)
    assert "leads" not in alone and "± std" not in alone and "mean over categories" not in alone


def test_a_title_says_what_is_missing_of_a_published_data_set():
    for known, end in ((15, "quick · 2 of 15 categories"), (2, "quick")):
        rows = [row | {"published_categories": known} for row in _rows({"a": 0.9, "b": 0.8})]
        title = report.render(_frame(rows), "md").splitlines()[0]
        assert title == f"mixed · multi-class · {end}  "
