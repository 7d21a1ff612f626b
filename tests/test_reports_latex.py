"""LaTeX tables: layout, marks, escaped names; compiled where there is a compiler."""

from __future__ import annotations

import re
import shutil
import subprocess

import polars as pl
import pytest
from made_rows import made_frame

from results.reports.latex import escaped, latex, marked


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


def _lines(text, start):
    return [line for line in text.splitlines() if line.startswith(start)]


def test_the_best_is_bold_the_second_underlined_as_printed():
    assert marked({"a": 0.98449, "b": 0.98451, "c": 0.97, "d": None, "e": 0.1}) == {
        "a": r"\underline{98.4}",
        "b": r"\textbf{98.5}",
        "c": "97.0",
        "d": "--",
        "e": "10.0",
    }
    assert marked({"a": 0.9001, "b": 0.9, "c": 0.8}) == {
        "a": r"\textbf{90.0}",
        "b": r"\textbf{90.0}",
        "c": r"\underline{80.0}",
    }
    assert marked({"alone": 0.9}) == {"alone": "90.0"}
    lowest = marked({"a": 0.0204, "b": 0.0173}, lowest=True, decimals=2)
    assert lowest == {"a": r"\underline{2.04}", "b": r"\textbf{1.73}"}


def test_names_cannot_break_out():
    assert escaped("a_b & 5% #1 {x} $y\n~^\\") == (
        r"a\_b \& 5\% \#1 \{x\} \$y \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_a_table_by_category_like_the_papers():
    text = latex(_frame())
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
    (average,) = _lines(latex(_frame(pixels=False)), "Average")
    assert "/" not in average


def test_an_incomplete_mean_is_a_dash():
    frame = _frame().filter(~((pl.col("method") == "second") & (pl.col("category") == "metal_nut")))
    (average,) = _lines(latex(frame), "Average")
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
    text = latex(pl.concat([*parts, without.with_columns(cell_id=pl.lit("w"))]))
    table = text[text.index("ablation") :]
    assert "patchcore" not in table  # it has no variants
    assert r" & mpdd & mvtec \\" in table
    assert _lines(table, "lafite without") == [r"lafite without editing & \underline{70.0} & -- \\"]
    assert _lines(table, "lafite &") == [r"lafite & \textbf{90.0} & \textbf{90.0} \\"]


def test_it_compiles(tmp_path):
    compiler = shutil.which("pdflatex") or shutil.which("tectonic")
    if compiler is None:
        pytest.skip("neither pdflatex nor tectonic is installed")
    text = latex(_frame())
    assert re.search(r"\\label\{tab:[a-z0-9-]+\}", text)
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{text}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run([compiler, "page.tex"], cwd=tmp_path, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
