r"""LaTeX tables laid out like the paper's Tables 1, 2 and 4, ready to paste.

They need \usepackage{booktabs}. The best value of a line is bold and the second underlined, as
printed, so equal ones share. A mean that lacks categories is a dash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from results.identity import POOLED
from results.reports.layout import without_codes
from results.reports.model import BEST, SECOND, Entry, Table, ranked
from results.reports.numbers import UNKNOWN, UNKNOWN_IN_LATEX, percent
from results.reports.sections import Section
from results.reports.tables import by_category, overview

KINDS = {"image_auroc": "detection", "pixel_auroc": "localisation"}
_MARKS = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}
_SPELLED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}


def latex(sections: Sequence[Section]) -> str:
    """The tables of a report: one by category for each section, then the ablations.

    Cells are image and pixel AUROC in percent, "98.5 / 97.6"; averages have the std over seeds.
    """
    done = [section for section in sections if section.done]
    tables = [_by_category(section) for section in done]
    ways = dict.fromkeys(section.title.partition(" · ")[2] for section in done)
    for way in ways:
        same = [section for section in done if section.title.partition(" · ")[2] == way]
        tables += _ablation(same, way)
    return "\n\n".join([r"% needs \usepackage{booktabs}", *tables]) + "\n"


def escaped(text: str) -> str:
    """The text on one line, as LaTeX prints it."""
    return "".join(_SPELLED.get(letter, letter) for letter in without_codes(text))


def _by_category(section: Section) -> str:
    """Categories x methods, and below a rule the averages."""
    kinds = _measured([section])
    values, averages = (
        [table(section, kind) for kind in kinds] for table in (by_category, _averages)
    )
    lines = [*_lines(values, section.present), r"\midrule"]
    lines += _lines(averages, section.present, noise=True)
    what = " / ".join(KINDS[kind] for kind in kinds)
    header = _line(["Category", *section.present])
    return _table(f"{section.title}: {what}", len(section.present), [header, r"\midrule", *lines])


def _averages(section: Section, metric: str) -> Table:
    """The mean over categories of each method that has all, and its spread over them."""
    rows = [section.row(metric, name) or {} for name in section.present]
    rows = [row if row.get("complete") else {} for row in rows]
    means = [_entry(row.get("mean"), row.get("std")) for row in rows]
    spreads = [_entry(row.get("category_std"), decimals=2) for row in rows]
    lines = [
        [Entry("Average"), *ranked(means)],
        [Entry("Inter-category Std"), *ranked(spreads, lowest=True)],
    ]
    return Table("", ["", *section.present], lines)


def _ablation(sections: Sequence[Section], way: str) -> Iterator[str]:
    """The means of methods that have variants, by data set, of sections run in the same way."""
    methods: dict[str, set[str]] = {}
    for section in sections:
        for method, name in section.summary.select("method", "label").iter_rows():
            methods.setdefault(method, set()).add(name)
    names = sorted(name for variants in methods.values() if len(variants) > 1 for name in variants)
    if not names:
        return
    kinds = _measured(sections)
    tables = [overview(sections, kind, names) for kind in kinds]
    titles = [section.title for section in sections]
    header = _line(["Method", *(title.partition(" · ")[0] for title in titles)])
    what = " / ".join(KINDS[kind] for kind in kinds)
    caption = f"ablation, {way}: what each part adds, {what}"
    yield _table(caption, len(sections), [header, r"\midrule", *_lines(tables, titles)])


def _measured(sections: Sequence[Section]) -> list[str]:
    known = {metric for section in sections for metric in section.metrics}
    return [kind for kind in KINDS if kind in known] or [next(iter(KINDS))]


def _lines(
    tables: Sequence[Table], columns: Sequence[str], *, noise: bool = False
) -> Iterator[str]:
    """The lines of tables of equal rows in one: the entries of each cell beside one another."""
    cells = [
        {
            (row[0].text, column): entry
            for row in table.rows
            for column, entry in zip(table.header[1:], row[1:], strict=True)
        }
        for table in tables
    ]
    for name in dict.fromkeys(row[0].text for table in tables for row in table.rows):
        if name != POOLED:
            yield _line(
                [name], [[_shown(of.get((name, c)), noise) for of in cells] for c in columns]
            )


def _line(names: Sequence[str], values: Sequence[Sequence[str]] = ()) -> str:
    return " & ".join([*map(escaped, names), *map(" / ".join, values)]) + r" \\"


def _entry(value: float | None, std: float | None = None, decimals: int = 1) -> Entry:
    noise = "" if std is None else percent(std, decimals=2)
    return Entry(percent(value, decimals=decimals), noise, sort=value)


def _shown(entry: Entry | None, noise: bool) -> str:
    if entry is None or entry.note or entry.text == UNKNOWN:
        return UNKNOWN_IN_LATEX
    spread = rf"{{\scriptsize$\pm${entry.small}}}" if noise and entry.small else ""
    return _MARKS.get(entry.mark, "%s") % entry.text + spread


def _table(caption: str, columns: int, lines: Sequence[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", caption.partition(":")[0].lower()).strip("-")
    caption = f"{caption.replace(' · ', ', ')}, AUROC in %"
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering",
            rf"\caption{{{escaped(caption)}.}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{'c' * columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table*}",
        ]
    )
