"""Tables as text for a terminal, Markdown and spreadsheets, with names that cannot break out."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import polars as pl
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

NAME_WIDTH = 16  # letters to which a name may be folded; columns of numbers are narrower
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f-\x9f]")
_MARKDOWN_MARKS = re.compile(r"([\\`*\[\]<>|#])")
_FORMULA = r"^([=+\-@\t\r])"


class Cells(NamedTuple):
    """A table: its title, header and rows, all text; the first `names` columns are names.

    `best` are places, row and column, that stand out.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    names: int = 1
    best: frozenset[tuple[int, int]] = frozenset()


def join_blocks(
    blocks: Sequence[list[str] | Cells], fmt: str, width: int, *, styled: bool = False
) -> str:
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


def columns(table: Cells) -> int:
    """The columns of a terminal that a table needs, its names folded."""
    lines = (table.header, *table.rows)
    widths = [max(len(plain(cell)) for cell in column) for column in zip(*lines, strict=True)]
    names = [min(width, NAME_WIDTH) for width in widths[: table.names]]
    return 1 + sum(width + 3 for width in (*names, *widths[table.names :]))


def csv_text(frame: pl.DataFrame) -> str:
    """The frame as CSV; text that a spreadsheet would take for a formula gets a leading quote."""
    return frame.with_columns(pl.col(pl.String).str.replace(_FORMULA, "'${1}")).write_csv()


def _terminal(block: list[str] | Cells, width: int, styled: bool) -> str:
    if not isinstance(block, Cells):
        return "\n".join(plain(line) for line in block)
    table = Table(box=box.SIMPLE_HEAD, title=Text(plain(block.title)), title_justify="left")
    for number, name in enumerate(block.header):
        side: JustifyMethod = "left" if number < block.names else "right"
        table.add_column(Text(plain(name)), justify=side, overflow="fold")
    for number, row in enumerate(block.rows):
        style = ["bold" if (number, column) in block.best else "" for column in range(len(row))]
        table.add_row(*(Text(plain(cell), s) for cell, s in zip(row, style, strict=True)))
    system: Literal["standard"] | None = "standard" if styled else None
    console = Console(
        file=io.StringIO(), width=width, color_system=system, force_terminal=styled, no_color=True
    )
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines()).strip("\n")


def _markdown(block: list[str] | Cells) -> str:
    if not isinstance(block, Cells):
        return "\n".join(f"{_escaped(line)}  " for line in block)  # two spaces break a line
    rule = ["---"] * block.names + ["---:"] * (len(block.header) - block.names)
    lines = [[_escaped(cell) for cell in row] for row in (block.header, *block.rows)]
    for row, column in block.best:
        lines[row + 1][column] = f"**{lines[row + 1][column]}**"
    lines.insert(1, rule)
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"**{_escaped(block.title)}**\n\n{table}"


def plain(text: str) -> str:
    """One line without control characters or terminal codes."""
    return _TERMINAL_CODES.sub(" ", text).strip()


def _escaped(text: str) -> str:
    return _MARKDOWN_MARKS.sub(r"\\\1", plain(text))
