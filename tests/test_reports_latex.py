"""LaTeX tables: layout, marks, escaped names; compiled where there is a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from made_rows import made_frame

from results.reports.latex import escaped
from results.reports.model import Entry, ranked
from results.reports.text import render


def _frame():
    means = {"good_one": 0.9512, "second": 0.9512, "third": 0.5003}
    return made_frame(
        {
            (method, seed, category): mean + gap + 0.001 * seed
            for method, mean in means.items()
            for seed in range(2)
            for category, gap in (("metal_nut", 0.03), ("50 % {odd} \\name & #1 ~^$", -0.03))
        }
    )


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_best_is_what_is_printed_highest_and_complete():
    def best(*entries):
        return [entry.text for entry in ranked(entries) if entry.mark == "best"]

    high, alike, low = (
        Entry("98.5", sort=0.98451),
        Entry("98.5", sort=0.98549),
        Entry("9.0", sort=1),
    )
    assert best(low, high, Entry(), alike) == ["98.5", "98.5"]
    assert best(high) == [], "alone"
    assert best(Entry("99.0", sort=0.99, note="1 of 2 categories"), low, high) == ["98.5"]


def test_names_cannot_break_out():
    assert escaped("a_b & 5% #1 {x} $y\n~^\\") == (
        r"a\_b \& 5\% \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_each_table_of_the_report_is_a_float():
    frame = _frame()
    text = render(frame, "latex")
    assert text.count(r"\begin{table*}") == text.count(r"\end{table*}") == 4
    assert r"\usepackage{booktabs}" in text.splitlines()[0]
    assert _lines(text, r"\caption{mixed, multi-class, quick: image\_auroc by category, \%")
    assert r"category & good\_one & second & third \\" in text
    (row,) = _lines(text, r"metal\_nut")
    best = r"\textbf{98.2} {\scriptsize $\pm$ 0.1}"
    assert row == rf"metal\_nut & {best} & {best} & 53.1 {{\scriptsize $\pm$ 0.1}} \\"
    columns = [re.findall(r"(?<!\\)&", line) for line in text.splitlines() if line[-2:] == r"\\"]
    sides = re.findall(r"tabular}{(\w+)}", text)
    assert {len(separators) + 1 for separators in columns} == set(map(len, sides))


def test_an_incomplete_mean_has_a_star_that_the_caption_explains():
    frame = _frame()
    lacking = frame.filter((frame["method"] != "second") | (frame["category"] != "metal_nut"))
    (caption, *_) = _lines(text := render(lacking, "latex"), r"\caption")
    assert "* 1 of 2 categories only" in caption
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
