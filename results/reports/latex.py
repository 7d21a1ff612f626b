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
from results.identity import POOLED
from results.reports.layout import plain
from results.reports.numbers import UNKNOWN_IN_LATEX, percent

KINDS = {"image_auroc": "detection", "pixel_auroc": "localisation"}
_SPELLED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}


def latex(frame: pl.DataFrame) -> str:
    """The tables of `table.read`'s frame: one by category for each section, then the ablations.

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


def marked(
    values: Mapping[str, float | None], *, lowest: bool = False, decimals: int = 1
) -> dict[str, str]:
    """Fractions in percent, by column: the best in bold, the second best underlined.

    Unknown ones are dashes. A single column is not the best of anything.
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
    kinds, names = _measured(rows), list(dict.fromkeys(map(label, rows.to_dicts())))
    whole = [_whole(rows, kind, names) for kind in kinds]
    stds = [_column(summaries, "category_std") for summaries in whole]
    lines = [
        _row(["Category", *map(escaped, names)]),
        r"\midrule",
        *_category_lines(frame, kinds, names),
        r"\midrule",
        _line("Average", names, [_with_noise(summaries) for summaries in whole]),
        _line("Inter-category Std", names, [marked(std, lowest=True, decimals=2) for std in stds]),
    ]
    caption = _caption(rows, " / ".join(KINDS[kind] for kind in kinds))
    return _table(caption, "c" * len(names), lines)


def _category_lines(
    frame: pl.DataFrame, kinds: Sequence[str], names: Sequence[str]
) -> Iterator[str]:
    means = [
        {(row["category"], label(row)): row["mean"] for row in per_category(frame, kind).to_dicts()}
        for kind in kinds
    ]
    categories = {category for by_key in means for category, _ in by_key} - {POOLED}
    for category in sorted(categories):
        shown = [marked({name: by_key.get((category, name)) for name in names}) for by_key in means]
        yield _line(escaped(category), names, shown)


def _ablation(rows: pl.DataFrame) -> Iterator[str]:
    """The means of methods that have variants, by data set and kind of AUROC."""
    part = rows.filter(pl.col("variant").n_unique().over("method") > 1)
    if part.is_empty():
        return
    names = list(dict.fromkeys(map(label, part.to_dicts())))
    columns = [
        (benchmark, KINDS[kind], marked(_column(_whole(group, kind, names), "mean")))
        for (benchmark,), group in part.group_by("benchmark", maintain_order=True)
        for kind in _measured(group)
    ]
    lines = [
        _row(["", *(escaped(benchmark) for benchmark, _, _ in columns)]),
        _row(["Method", *(kind for _, kind, _ in columns)]),
        r"\midrule",
        *(_row([escaped(name), *(shown[name] for _, _, shown in columns)]) for name in names),
    ]
    caption = _caption(part.with_columns(benchmark=pl.lit("ablation")), "what each part adds")
    yield _table(caption, "c" * len(columns), lines)


def _measured(rows: pl.DataFrame) -> list[str]:
    known = set(rows.drop_nulls("mean")["metric"])
    return [kind for kind in KINDS if kind in known] or [next(iter(KINDS))]


def _whole(rows: pl.DataFrame, kind: str, names: Sequence[str]) -> dict[str, Record]:
    """The summary of each row that has all categories; of others nothing."""
    complete = rows.filter(pl.col("metric") == kind, "complete").to_dicts()
    summaries = {label(row): row for row in complete}
    return {name: summaries.get(name, {}) for name in names}


def _column(summaries: Mapping[str, Record], key: str) -> dict[str, float | None]:
    return {name: row.get(key) for name, row in summaries.items()}


def _with_noise(summaries: Mapping[str, Record]) -> dict[str, str]:
    shown = marked(_column(summaries, "mean"))
    for name, std in _column(summaries, "std").items():
        if std is not None:
            shown[name] += rf"{{\scriptsize$\pm${percent(std, decimals=2)}}}"
    return shown


def _caption(rows: pl.DataFrame, content: str) -> str:
    return f"{title(rows.row(0, named=True)).replace(' · ', ', ')}: {content}, AUROC in %"


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
