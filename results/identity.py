"""Identity of the rows of the tables: cells that differ in it are never averaged as seeds of one.

Images, weights, textures, settings and the revision of the code make a row, besides the names that
were asked for. Where cells of equal names differ in one of them, `#` and six digits of a hash of it
tell their names apart, and a note says what the difference is. What all rows of a table share is
said of the table, not of each row.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import polars as pl

POOLED = "(pooled)"
"""The category of rows that judge all test images under one threshold."""
HALF = 16
"""Hex digits of a data fingerprint that are of its training images; the rest are of test images."""
DIGITS = 6
"""Hex digits of a hash in a name."""
ADDED = ("data", "data_note", "variant_note", "shared")
"""The columns that `told_apart` adds."""

_DATA = ("benchmark", "mode", "only")
_TABLE = ("benchmark", "data", "mode", "preset", "profile")
_ROW = (*_TABLE, "method", "variant", "only")
_NEXT_PART = re.compile(r", (?=[\w.]+=|tuned|refit|#|backbone )")
Cell = dict[str, Any]


class Version(NamedTuple):
    """Cells of equal names and equal content; `mark` is a hash of that content."""

    mark: str
    cells: list[Cell]

    @property
    def newest(self) -> Cell:
        """Its newest cell."""
        return max(self.cells, key=_when)


def told_apart(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows, with names that differ where they are not of one kind.

    `benchmark` ends with a hash where data sets of one name lie in several folders, and `data`, a
    new column, is one where a data set had several images; it is empty elsewhere. `variant` ends
    with one where weights, textures, settings or code differ. `data_note` and `variant_note`, new
    columns too, say what differs. `shared` has the settings and the backbone that all rows of a
    table have.
    """
    cells = _cells(frame)
    for versions in _conflicts(cells, _DATA, ("images_fingerprint",)):
        places = {version.newest["location"] for version in versions}
        elsewhere = None not in places and len(places) == len(versions)
        _name(versions, "benchmark" if elsewhere else "data", "data_note", _images_of)
    for versions in _conflicts(cells, _ROW, ("config_hash", "weights_sha256")):
        _name(versions, "variant", "variant_note", _settings_of)
    for table in _grouped(cells, _TABLE).values():
        shared = ", ".join(_shared(table))
        for cell in table:
            cell["shared"] = shared
    names = ("cell_id", "benchmark", "variant", *ADDED)
    schema = dict.fromkeys(names, pl.String)
    told = pl.DataFrame([{name: cell[name] for name in names} for cell in cells], schema=schema)
    rows = frame.drop("benchmark", "variant").join(
        told, on="cell_id", how="left", maintain_order="left"
    )
    return rows.select(*frame.columns, *ADDED)


def parts(variant: str) -> list[str]:
    """The settings and words that a variant's name has."""
    return _NEXT_PART.split(variant) if variant else []


def backbone_of(config_json: str | None) -> str | None:
    """The backbone in a row's settings; None where there is none."""
    name = json.loads(config_json or "{}").get("backbone")
    return name if isinstance(name, str) else None


def distinct_ends(paths: Iterable[str]) -> list[str]:
    """The shortest ends of paths that tell each from all others, in their order."""
    parts = [PurePath(path).parts for path in paths]

    def end(mine: tuple[str, ...]) -> str:
        alone = (
            length
            for length in range(1, len(mine) + 1)
            if sum(other[-length:] == mine[-length:] for other in parts) == 1
        )
        return "/".join(mine[-next(alone, len(mine)) :])

    return [end(mine) for mine in parts]


def _cells(frame: pl.DataFrame) -> list[Cell]:
    """A record for each cell, with its real categories; in separate mode they are `only` ones."""
    names = (
        *("cell_id", "benchmark", "location", "mode", "preset", "profile", "method", "variant"),
        *("data_fingerprint", "images_fingerprint", "config_hash", "weights_sha256"),
        *("config_json", "knobs_json", "finished_at"),
    )
    real = pl.col("category").filter(pl.col("category") != POOLED).drop_nulls()
    grouped = frame.group_by("cell_id", maintain_order=True)
    cells = grouped.agg(pl.col(names[1:]).first(), categories=real.unique().sort()).to_dicts()
    of_data = {cell["data_fingerprint"]: cell["categories"] for cell in cells if cell["categories"]}
    for cell in cells:
        cell |= dict.fromkeys(ADDED, "")
        cell["categories"] = of_data.get(cell["data_fingerprint"], [])  # failed ones name none
        cell["only"] = cell["categories"] if cell["mode"] == "separate" else []
    return cells


def _conflicts(
    cells: Sequence[Cell], group: Sequence[str], content: Sequence[str]
) -> Iterator[list[Version]]:
    """The versions of each group of cells that has several."""
    for members in _grouped(cells, group).values():
        versions = _grouped(members, content)
        if len(versions) > 1:
            yield [
                Version(hashlib.sha256(key.encode()).hexdigest(), of_version)
                for key, of_version in versions.items()
            ]


def _grouped(cells: Sequence[Cell], names: Sequence[str]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault("\0".join(str(cell[name]) for name in names), []).append(cell)
    return groups


def _shared(cells: Sequence[Cell]) -> list[str]:
    """The settings that all cells name, and the backbone of all that have one."""
    first, *others = [parts(cell["variant"]) for cell in cells]
    settings = [part for part in first if "=" in part and all(part in other for other in others)]
    backbones = {backbone_of(cell["config_json"]) for cell in cells} - {None}
    return settings + [f"backbone {name}" for name in backbones if len(backbones) == 1]


def _name(
    versions: Sequence[Version], column: str, note: str, facts_of: Callable[[Cell], dict[str, str]]
) -> None:
    """Give each version its name and note; one may keep the plain name, see `_keeping`."""
    marks = [version.mark for version in versions]
    digits = next(n for n in range(DIGITS, 65) if len({mark[:n] for mark in marks}) == len(marks))
    facts = [facts_of(version.newest) for version in versions]
    names = dict.fromkeys(name for each in facts for name in each)
    differing = [name for name in names if len({each.get(name) for each in facts}) > 1]
    # The code is part of the hash of the settings, so it is named where it alone differs.
    differing = [name for name in differing if name != "code" or len(differing) == 1]
    kept = _keeping(versions)
    for version, of_version in zip(versions, facts, strict=True):
        known = [name for name in differing if name in of_version]
        said = "; ".join(f"{name} {of_version[name] or 'none'}" for name in known)
        for cell in version.cells:
            cell[note] = said
            if version is not kept:
                separator = ", " if column == "variant" else " "
                mark = f"#{version.mark[:digits]}"
                cell[column] = separator.join(filter(None, (cell[column], mark)))


def _keeping(versions: Sequence[Version]) -> Version | None:
    """The version that keeps the plain name, so that its table stays whole, if one does.

    In separate mode the newest, else the one with the most categories.
    """
    if versions[0].newest["mode"] == "separate":
        return max(versions, key=lambda version: _when(version.newest))
    sizes = [len(version.newest["categories"]) for version in versions]
    return versions[sizes.index(max(sizes))] if sizes.count(max(sizes)) == 1 else None


def _images_of(cell: Cell) -> dict[str, str]:
    """The facts about a cell's images by name."""
    images = cell["images_fingerprint"] or ""
    return {
        "categories": ", ".join(cell["categories"]),
        "folder": cell["location"] or "",
        "training images": images[:HALF][:DIGITS],
        "test images": images[HALF:][:DIGITS],
    }


def _settings_of(cell: Cell) -> dict[str, str]:
    """The facts about a cell's files, settings and code by name."""
    texts = cell["config_json"], cell["knobs_json"]
    settings = {name: value for text in texts for name, value in json.loads(text or "{}").items()}
    file = "textures" if settings.pop("textures", None) else "weights"
    settings.pop("weights", None)
    facts = {file: (cell["weights_sha256"] or "")[:DIGITS]}
    facts |= {f"{name} =": json.dumps(value) for name, value in settings.items()}
    return facts | {"code": (cell["config_hash"] or "")[:DIGITS]}


def _when(cell: Cell) -> str:
    return str(cell["finished_at"] or "")
