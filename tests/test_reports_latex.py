"""LaTeX tables: layout, marks, escaped names; compiled where there is a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from made_rows import made_frame

from results.reports.latex import escaped
from results.reports.text import render


def _frame(third=0.5003):
    means = {"good_one": 0.9512, "second": 0.9512, "third": third}
    odd = "50 % {odd} \\name & #1 ~^$"
    return made_frame(
        {
            (method, seed, category): mean + gap + 0.001 * seed
            for method, mean in means.items()
            for seed in range(2)
            for category, gap in {
                odd: -0.03,
                **{f"metal_nut {n}": n / 300 for n in range(9)},
            }.items()
        },
        published_categories=15,
        config_json='{"backbone": "tf_efficientnet_lite0"}',
    )


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_names_cannot_break_out():
    assert escaped("a_b & 5% #1 {x} $y\n~^\\") == (
        r"a\_b \& 5\% \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_each_table_of_the_report_is_a_float_with_all_that_a_reader_needs():
    text = render(_frame(), "latex")
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 4
    assert r"\usepackage{booktabs}" in text.splitlines()[0]
    first, *_ = captions = _lines(text, r"\caption")
    for caption in captions:
        assert caption.startswith(
            r"\caption{mixed, multi-class, quick, 10 of 15 categories, backbone"
        )
        assert r"tf\_efficientnet\_lite0, 2 seeds: " in caption
    assert r"95 \%, seeds: where the mean of other trainings would lie (Student's t)" in first
    assert r"category & good\_one & second & third \\" in text
    (row,) = _lines(text, r"metal\_nut 0")
    high = r"95.2 {\scriptsize $\pm$ 0.1}"
    assert row == rf"metal\_nut 0 & {high} & {high} & 50.1 {{\scriptsize $\pm$ 0.1}} \\"
    columns = [re.findall(r"(?<!\\)&", line) for line in text.splitlines() if line[-2:] == r"\\"]
    sides = re.findall(r"tabular}{(\w+)}", text)
    assert {len(separators) + 1 for separators in columns} == set(map(len, sides))


def test_bold_is_what_is_told_from_each_of_the_others_alone():
    assert r"\textbf" not in render(_frame(third=0.9511), "latex")
    told = render(_frame(third=0.99), "latex")
    assert re.findall(r"\\textbf{(.*?)}", told) == ["100.0"]
    assert "Bold: better than each of the others." in _lines(told, r"\caption")[0]


def test_an_incomplete_mean_has_a_star_that_the_caption_explains():
    frame = _frame()
    lacking = frame.filter((frame["method"] != "second") | (frame["category"] != "metal_nut 0"))
    (caption, *_) = _lines(text := render(lacking, "latex"), r"\caption")
    assert "* 9 of 10 categories only" in caption
    assert r"\textsuperscript{*}" in _lines(text, "second")[0]


def test_it_compiles(tmp_path):
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    text = render(_frame(), "latex")
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run([compiler, "page.tex"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
