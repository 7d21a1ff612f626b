"""Tables as text for a terminal, Markdown and spreadsheets, with names that cannot break out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Literal

import polars as pl
from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from results.reports.model import BEST, Entry, Table

_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")
_MARKDOWN_MARKS = re.compile(r"([\\`*\[\]<>|#])")
_FORMULA = r"^([=+\-@\t\r])"
NAME_WIDTH = 16  # letters of a name that are kept together
Block = Sequence[str] | Table


def join_blocks(blocks: Sequence[Block], fmt: str, width: int, *, styled: bool = False) -> str:
    """Paragraphs (lists of lines) and tables as one text, for "terminal" or "md".

    What is `styled` has the codes by which a terminal shows bold letters.
    """
    if fmt == "md":
        shown = [_markdown(block) for block in blocks]
    elif fmt == "terminal":
        shown = [_terminal(block, width, styled) for block in blocks]
    else:
        raise ValueError(f"unknown report format {fmt!r}: choose terminal, md, latex or csv")
    return "\n\n".join(text for text in shown if text) + "\n"


def columns(table: Table) -> int:
    """The columns of a terminal that a table needs, its names folded between words."""
    whole, folded = _widths(table)
    return _total([*folded[: table.names], *whole[table.names :]])


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as CSV; text that a spreadsheet would take for a formula gets a leading quote."""
    return frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${1}")).write_csv()


def _text(entry: Entry) -> str:
    """All that an entry says on one line; a star is explained by the notes of its section."""
    whole = f"{entry.text} {entry.small}".rstrip() + (" *" if entry.note else "")
    return without_codes(whole)


def _widths(table: Table) -> tuple[list[int], list[int]]:
    """The letters of each column in whole, and of its longest word; a name may be broken."""
    lines = (table.header, *([_text(entry) for entry in row] for row in table.rows))
    texts = [[*map(without_codes, column)] for column in zip(*lines, strict=True)]
    words = [[word for text in column for word in text.split() or " "] for column in texts]
    least = [max(map(len, of)) for of in words]
    names = [min(letters, NAME_WIDTH) for letters in least[: table.names]]
    return [max(map(len, of)) for of in texts], [*names, *least[table.names :]]


def _fitting(table: Table, width: int) -> list[int] | list[None]:
    """Widths of columns at which no word is broken; None each where there are none."""
    widths, least = _widths(table)
    while _total(widths) > width:
        roomy = max(range(len(widths)), key=lambda n: widths[n] - least[n])
        if widths[roomy] == least[roomy]:
            return [None] * len(widths)
        widths[roomy] -= 1
    return widths


def _total(widths: Sequence[int]) -> int:
    """The columns of a terminal that a table takes, with what stands between its columns."""
    return 1 + sum(width + 3 for width in widths)


def _terminal(block: Block, width: int, styled: bool) -> str:
    if not isinstance(block, Table):
        return "\n".join(map(without_codes, block))
    grid = Grid(box=box.SIMPLE_HEAD, title=Text(without_codes(block.title)), title_justify="left")
    widths = _fitting(block, width)
    for column, name in enumerate(block.header):
        side: Literal["left", "right"] = "left" if block.left(column) else "right"
        title = Text(without_codes(name))
        grid.add_column(title, justify=side, overflow="fold", width=widths[column])
    for row in block.rows:
        grid.add_row(*(Text(_text(e), "bold" if e.mark == BEST else "") for e in row))
    system: Literal["standard"] | None = "standard" if styled else None
    console = Console(
        file=io.StringIO(), width=width, color_system=system, force_terminal=styled, no_color=True
    )
    with console.capture() as capture:
        console.print(grid)
    text = "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")
    return "\n\n".join(filter(None, (text, _terminal(block.notes, width, styled))))


def _markdown(block: Block) -> str:
    if not isinstance(block, Table):
        return "\n".join(f"{_escaped(line)}  " for line in block)  # two spaces break a line
    lines = [[*map(_escaped, block.header)]]
    lines.append(["---" if block.left(n) else "---:" for n in range(len(block.header))])
    for row in block.rows:
        texts = [(_escaped(_text(entry)), entry.mark == BEST) for entry in row]
        lines.append([f"**{text}**" if best else text for text, best in texts])
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    parts = (f"**{_escaped(block.title)}**", table, _markdown(block.notes))
    return "\n\n".join(filter(None, parts))


def without_codes(text: str) -> str:
    """One line without control characters or terminal codes."""
    return _TERMINAL_CODES.sub(" ", text).strip()


def _escaped(text: str) -> str:
    return _MARKDOWN_MARKS.sub(r"\\\1", without_codes(text))
