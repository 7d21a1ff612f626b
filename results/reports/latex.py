r"""LaTeX tables laid out like the paper's Tables 1, 2 and 4, ready to paste.

They need \usepackage{booktabs}. The best value of a line is bold and the second underlined, as
printed, so equal ones share. A mean that lacks categories is a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from results.analysis.cells import SECTION, Record, label, title
from results.analysis.summary import per_category, summary
from results.reports.layout import plain
from results.reports.numbers import UNKNOWN_IN_LATEX, percent
from results.table import POOLED

KINDS = {"image_auroc": "detection", "pixel_auroc": "localisation"}
_SPELLED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}

Values = Mapping[str, float | None]
"""Fractions by column."""


def latex(frame: pl.DataFrame) -> str:
    """Of `table.read`'s frame: for each section a table by category, then the ablations.

    Cells are image and pixel AUROC in percent, "98.5 / 97.6"; averages have the std over seeds.
    """
    rows = summary(frame)
    tables = [
        _by_category(frame.filter(**dict(zip(SECTION, key, strict=True))), part)
        for key, part in rows.group_by(SECTION, maintain_order=True)
    ]
    for _, part in rows.group_by(SECTION[1:], maintain_order=True):
        tables += _ablation(part)
    return "\n\n".join([r"% needs \usepackage{booktabs}", *tables]) + "\n"


def escaped(text: str) -> str:
    """The text on one line, as LaTeX prints it."""
    return "".join(_SPELLED.get(letter, letter) for letter in plain(text))


def marked(values: Values, *, lowest: bool = False, decimals: int = 1) -> dict[str, str]:
    """Percentages as printed: the best in bold, the second best underlined, unknown ones dashes.

    A single column is not the best of anything.
    """
    printed = {
        name: percent(value, decimals=decimals, unknown=UNKNOWN_IN_LATEX)
        for name, value in values.items()
    }
    ranked = sorted({float(text) for text in printed.values() if text != UNKNOWN_IN_LATEX})
    order = [] if len(values) < 2 else ranked if lowest else ranked[::-1]
    marks = dict(zip(order, (r"\textbf{%s}", r"\underline{%s}"), strict=False))
    return {
        name: text if text == UNKNOWN_IN_LATEX else marks.get(float(text), "%s") % text
        for name, text in printed.items()
    }


def _by_category(frame: pl.DataFrame, rows: pl.DataFrame) -> str:
    kinds = _measured(rows)
    names = [
        label(row) for row in rows.unique(["method", "variant"], maintain_order=True).to_dicts()
    ]
    by_kind = [per_category(frame, kind).to_dicts() for kind in kinds]
    categories = sorted({row["category"] for of in by_kind for row in of} - {POOLED})
    lines = []
    for category in categories:
        found = [{label(r): r["mean"] for r in of if r["category"] == category} for of in by_kind]
        shown = [marked({name: of.get(name) for name in names}) for of in found]
        lines.append(_line(escaped(category), names, shown))
    whole = [_whole(rows, kind, names) for kind in kinds]
    stds = [{name: row.get("category_std") for name, row in of.items()} for of in whole]
    spread = [marked(of, lowest=True, decimals=2) for of in stds]
    lines += [
        r"\midrule",
        _line("Average", names, [_with_noise(of) for of in whole]),
        _line("Inter-category Std", names, spread),
    ]
    what = " / ".join(KINDS[kind] for kind in kinds)
    head = _row(["Category", *map(escaped, names)])
    return _table(_caption(rows, what), "c" * len(names), [head, r"\midrule", *lines])


def _ablation(rows: pl.DataFrame) -> Iterator[str]:
    """The means of methods that have variants: rows are these, columns data sets and kinds."""
    part = rows.filter(pl.col("variant").n_unique().over("method") > 1)
    if part.is_empty():
        return
    names = [
        label(row) for row in part.unique(["method", "variant"], maintain_order=True).to_dicts()
    ]
    columns = [
        (benchmark, KINDS[kind], _whole(of, kind, names))
        for (benchmark,), of in part.group_by("benchmark", maintain_order=True)
        for kind in _measured(of)
    ]
    shown = [marked({name: row.get("mean") for name, row in of.items()}) for *_, of in columns]
    lines = [
        _row(["", *(escaped(benchmark) for benchmark, *_ in columns)]),
        _row(["Method", *(kind for _, kind, _ in columns)]),
        r"\midrule",
        *(_row([escaped(name), *(of[name] for of in shown)]) for name in names),
    ]
    caption = _caption(part.with_columns(benchmark=pl.lit("ablation")), "what each part adds")
    yield _table(caption, "c" * len(columns), lines)


def _measured(rows: pl.DataFrame) -> list[str]:
    known = set(rows.drop_nulls("mean")["metric"])
    return [kind for kind in KINDS if kind in known] or [next(iter(KINDS))]


def _whole(rows: pl.DataFrame, kind: str, names: Sequence[str]) -> dict[str, Record]:
    """The summary of each row that has all categories; of others nothing."""
    of = rows.filter(pl.col("metric") == kind, "complete").to_dicts()
    found = {label(row): row for row in of}
    return {name: found.get(name, {}) for name in names}


def _with_noise(of: Mapping[str, Record]) -> dict[str, str]:
    shown = marked({name: row.get("mean") for name, row in of.items()})
    stds = {name: row.get("std") for name, row in of.items()}
    return {
        name: text if (std := stds[name]) is None else rf"{text}{{\scriptsize$\pm${100 * std:.2f}}}"
        for name, text in shown.items()
    }


def _caption(rows: pl.DataFrame, what: str) -> str:
    return f"{title(rows.row(0, named=True)).replace(' · ', ', ')}: {what}, AUROC in %"


def _line(first: str, names: Sequence[str], kinds: Sequence[Mapping[str, str]]) -> str:
    return _row([first, *(" / ".join(shown[name] for shown in kinds) for name in names)])


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _table(caption: str, columns: str, lines: Sequence[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", caption.partition(":")[0].lower()).strip("-")
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{escaped(caption)}.}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    )
