"""LaTeX tables: layout, marks, escaped names; compiled where there is a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess

import polars as pl
import pytest
from made_rows import made_frame

from results.reports import latex
from results.reports.latex import escaped
from results.reports.model import Entry, ranked
from results.reports.numbers import percent
from results.reports.sections import sections


def _frame(pixels=True):
    means = {"good_one": 0.9512, "second": 0.9512, "third": 0.5003}
    values = {
        (method, seed, category): mean + gap + 0.001 * seed
        for method, mean in means.items()
        for seed in range(2)
        for category, gap in (("metal_nut", 0.03), ("50 % {odd} \\name & #1 ~^$", -0.03))
    }
    parts = [made_frame(values)]
    if pixels:
        parts.append(made_frame({k: 1.45 - v for k, v in values.items()}, metric="pixel_auroc"))
    return pl.concat(parts)


def _latex(frame):
    return latex.latex(sections(frame))


def _marked(values, decimals=1, **how):
    """Fractions as they are printed, with what a mark says of them."""
    entries = [Entry(percent(v, decimals=decimals), sort=v) for v in values]
    return [f"{entry.mark} {entry.text}".strip() for entry in ranked(entries, **how)]


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_best_is_bold_the_second_underlined_as_printed():
    best, second = "best 98.5", "second 98.4"
    assert _marked([0.98449, 0.98451, 0.97, None, 0.1]) == [second, best, "97.0", "–", "10.0"]
    assert _marked([0.9001, 0.9, 0.8]) == ["best 90.0", "best 90.0", "second 80.0"]
    assert _marked([0.9]) == ["90.0"]
    assert _marked([0.0204, 0.0173], 2, lowest=True) == ["second 2.04", "best 1.73"]
    missing = [Entry("99.0", sort=0.99, note="1 of 2 categories"), Entry("80.0", sort=0.8)]
    assert [entry.mark for entry in ranked([*missing, Entry("70.0", sort=0.7)])][:2] == ["", "best"]


def test_names_cannot_break_out():
    assert escaped("a_b & 5% #1 {x} $y\n~^\\") == (
        r"a\_b \& 5\% \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_a_table_by_category_like_the_papers():
    text = _latex(_frame())
    assert r"\usepackage{booktabs}" in text.splitlines()[0]
    assert r"\begin{tabular}{lccc}" in text
    assert r"Category & good\_one & second & third \\" in text
    (row,) = _lines(text, r"metal\_nut")
    best = r"\textbf{98.2} / \underline{46.8}"
    assert row == rf"metal\_nut & {best} & {best} & \underline{{53.1}} / \textbf{{91.9}} \\"
    (average,) = _lines(text, "Average")
    assert average.count(r"{\scriptsize$\pm$0.07}") == 6
    (spread,) = _lines(text, "Inter-category Std")
    assert spread.count("3.00") == 6  # ddof 0
    assert text.count(r"\begin{") == text.count(r"\end{")
    columns = [re.findall(r"(?<!\\)&", line) for line in text.splitlines() if line[-2:] == r"\\"]
    assert {len(separators) for separators in columns} == {3}


def test_without_pixel_metrics_cells_have_one_value():
    (average,) = _lines(_latex(_frame(pixels=False)), "Average")
    assert "/" not in average


def test_an_incomplete_mean_is_a_dash():
    frame = _frame().filter(~((pl.col("method") == "second") & (pl.col("category") == "metal_nut")))
    (average,) = _lines(_latex(frame), "Average")
    assert average.split(" & ")[2] == "-- / --"


def test_the_ablation_has_a_row_for_each_variant_and_columns_by_data_set():
    values = {("lafite", 0, "a"): 0.9, ("patchcore", 0, "a"): 0.99}
    parts = [
        made_frame(values, benchmark=name, cell_id=f"{name}-plain").with_columns(
            cell_id=pl.col("cell_id") + pl.col("method")
        )
        for name in ("mvtec", "mpdd")
    ]
    without = made_frame({("lafite", 0, "a"): 0.7}, variant="without editing", benchmark="mpdd")
    text = _latex(pl.concat([*parts, without.with_columns(cell_id=pl.lit("w"))]))
    table = text[text.index("ablation") :]
    assert "patchcore" not in table  # it has no variants
    assert r"Method & mpdd & mvtec \\" in table
    assert _lines(table, "lafite without") == [r"lafite without editing & \underline{70.0} & -- \\"]
    assert _lines(table, "lafite &") == [r"lafite & \textbf{90.0} & 90.0 \\"]


def test_it_compiles(tmp_path):
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    text = _latex(_frame())
    assert re.search(r"\\label\{tab:[a-z0-9-]+\}", text)
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run([compiler, "page.tex"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
