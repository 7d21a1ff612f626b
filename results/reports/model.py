"""The one model of a table, which text, LaTeX and the page render: entries with their marks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from results.reports.numbers import UNKNOWN

BEST, SECOND, WORDS = "best", "second", "words"
"""Marks of an entry: the best and the second of its line, and a text that is no number."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table."""

    text: str = UNKNOWN
    small: str = ""  # written behind the text: an uncertainty, or which category it is of
    note: str = ""  # why it is not comparable: never the best, and marked by text formats with *
    sort: float | None = None  # what a column is sorted by
    mark: str = ""  # BEST, SECOND or WORDS
    key: str = ""  # of a number whose source a click shows: `Section.key`
    heat: float | None = None  # 0 at the table's lowest value, 1 at 100 %
    category: str = ""  # which a click opens under "One category"


@dataclass(frozen=True)
class Table:
    """A title, a header, rows whose first `names` entries name them, and lines below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Entry]]
    names: int = 1
    notes: Sequence[str] = ()


def ranked(entries: Sequence[Entry], *, lowest: bool = False) -> list[Entry]:
    """The entries with BEST and SECOND as printed, so that equal ones share a mark.

    A line with a single comparable number has no best one.
    """
    comparable = [entry for entry in entries if entry.sort is not None and not entry.note]
    printed = sorted({float(entry.text) for entry in comparable}, reverse=not lowest)
    marks = dict(zip(printed if len(comparable) > 1 else (), (BEST, SECOND), strict=False))
    return [
        replace(entry, mark=marks.get(float(entry.text), "")) if entry in comparable else entry
        for entry in entries
    ]
