"""The one model of a table, which terminal, Markdown, LaTeX and the page render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from results.reports.numbers import UNKNOWN

BEST, WORDS = "best", "words"
"""Marks of an entry: the best of its column, not by noise, and a text that is no number."""


@dataclass(frozen=True)
class Entry:
    """One cell of a table."""

    text: str = UNKNOWN
    small: str = ""  # written behind the text: an uncertainty, or which category it is of
    note: str = ""  # why it is not comparable: never the best, and marked by text formats with *
    sort: float | None = None  # what a column is sorted by
    mark: str = ""  # BEST or WORDS
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

    def left(self, column: int) -> bool:
        """Whether a column of names or words stands at the left, as numbers do not."""
        return column < self.names or any(row[column].mark == WORDS for row in self.rows)
