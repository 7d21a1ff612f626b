r"""The report's tables in LaTeX, ready to paste; they need \usepackage{booktabs}."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from results.reports.layout import Block, without_codes
from results.reports.model import BEST, Entry, Table

INTERVALS = {
    "95 %, seeds": "where the mean of other trainings would lie (Student's t)",
    "95 %, images too": "the same on other test images",
}
"""Columns with intervals, as a caption explains them."""
_SPELLED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "·": ",",
    **{letter: rf"\{letter}" for letter in "&%$#_{}"},
}


def latex(blocks: Mapping[str, Sequence[Block]]) -> str:
    """The tables among the blocks of each section, by its title."""
    floats = [
        "\n".join(_float(title, block))
        for title, of_section in blocks.items()
        for block in of_section
        if isinstance(block, Table)
    ]
    return "\n\n".join([r"% needs \usepackage{booktabs}", *floats]) + "\n"


def escaped(text: str) -> str:
    """The text on one line, as LaTeX prints it."""
    return "".join(_SPELLED.get(letter, letter) for letter in without_codes(text))


def _float(title: str, table: Table) -> Iterator[str]:
    entries = [entry for row in table.rows for entry in row]
    said = [f"{title.replace(' ·', ',')}: {table.title}", *table.notes]
    said += [f"{name}: {meaning}" for name, meaning in INTERVALS.items() if name in table.header]
    said += ["Bold: better than each of the others"] * any(e.mark == BEST for e in entries)
    said += sorted({f"* {entry.note} only" for entry in entries if entry.note})
    what = f"{title}: {table.title.partition(',')[0]}".lower()
    name = re.sub(r"[^a-z0-9]+", "-", what).strip("-")
    sides = "".join("l" if table.left(column) else "r" for column in range(len(table.header)))
    yield r"\begin{table*}[t]"
    yield r"\centering"
    yield rf"\caption{{{escaped('. '.join(said))}.}}"
    yield rf"\label{{tab:{name}}}"
    yield rf"\begin{{tabular}}{{{sides}}}"
    yield r"\toprule"
    yield _line(map(escaped, table.header))
    yield r"\midrule"
    yield from (_line(map(_entry, row)) for row in table.rows)
    yield r"\bottomrule"
    yield r"\end{tabular}"
    yield r"\end{table*}"


def _line(cells: Iterator[str]) -> str:
    return " & ".join(cells) + r" \\"


def _entry(entry: Entry) -> str:
    text = escaped(entry.text)
    if entry.mark == BEST:
        text = rf"\textbf{{{text}}}"
    small = rf" {{\scriptsize {escaped(entry.small)}}}" if entry.small else ""
    return text + small + (r"\textsuperscript{*}" if entry.note else "")
