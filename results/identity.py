"""What makes a row of the tables: cells that differ in it are never averaged as seeds of one.

Images, weights, textures, settings and the revision of the code make a row, besides the names that
were asked for. Where cells of equal names differ in one of them, their names are made to say so.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import polars as pl

POOLED = "(pooled)"
"""The category of rows that judge all test images under one threshold."""
HALF = 16
"""Hex digits of a data fingerprint that are of its training images; the rest are of test images."""
SHORT = 6
"""Hex digits of a hash that stand for it in a name."""
OWN_TEXTURES = "textures=own"
MOST_NAMED = 3
"""Categories, or settings, that a name lists one by one."""


class Version(NamedTuple):
    """What cells of equal names have in common; `mark` is what tells them from others."""

    mark: tuple[str, ...]
    cells: list[dict[str, Any]]

    @property
    def newest(self) -> dict[str, Any]:
        """Its newest cell."""
        return max(self.cells, key=_when)

    @property
    def settings(self) -> dict[str, Any]:
        """Config and knobs."""
        texts = self.newest["config_json"], self.newest["knobs_json"]
        return {name: value for text in texts for name, value in json.loads(text or "{}").items()}

    def name(self, column: str, name: str) -> None:
        """Give all its cells this name."""
        for cell in self.cells:
            cell[column] = name


def told_apart(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows, with names that differ where they are not of one kind.

    `benchmark` becomes the end of its path where data sets of one name lie in several folders.
    `data`, a new column, says which images where one data set had several, and is empty elsewhere.
    `variant` says what else differs: weights, textures, settings or code; of DRAEM always its own
    textures.
    """
    cells = _cells(frame)
    for cell in cells:
        cell["data"] = ""
    for name in (_name_places, _name_data):
        for versions in _conflicts(cells, ("benchmark", "mode", "part"), ("images",)):
            name(versions)
    group = ("benchmark", "data", "mode", "preset", "profile", "method", "variant", "part")
    for versions in _conflicts(cells, group, ("config_hash", "weights_sha256")):
        _name_settings(versions)
    names = ("cell_id", "benchmark", "data", "variant")
    schema = dict.fromkeys(names, pl.String)
    told = pl.DataFrame([{name: cell[name] for name in names} for cell in cells], schema=schema)
    rows = frame.drop("benchmark", "variant").join(
        told, on="cell_id", how="left", maintain_order="left"
    )
    return rows.select(*frame.columns, "data")


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


def _cells(frame: pl.DataFrame) -> list[dict[str, Any]]:
    """A record for each cell, with its real categories; in separate mode its category is `part`."""
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
        cell["categories"] = of_data.get(cell["data_fingerprint"], [])  # failed ones name none
        cell["part"] = cell["categories"] if cell["mode"] == "separate" else []
        cell["images"] = cell["images_fingerprint"] or _images(cell, cells)
        cell["variant"] = _with_textures(cell)
    return cells


def _with_textures(cell: Mapping[str, Any]) -> str:
    """The variant, of rows of before too: DRAEM with its own textures always says so."""
    parts = [part for part in cell["variant"].split(", ") if part]
    own = json.loads(cell["config_json"] or "{}").get("textures") == "own"
    if not own or OWN_TEXTURES in parts:
        return ", ".join(parts)
    last = [part for part in parts if part in ("tuned", "refit")]
    settings = sorted([OWN_TEXTURES, *(part for part in parts if "=" in part)])
    first = [part for part in parts if part not in last and part not in settings]
    return ", ".join([*first, *settings, *last])


def _images(cell: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str | None:
    """Which images a cell of before schema 3 is of. Where some were held out, it does not know all:
    it is of those of another cell with its test images."""
    mine: str | None = cell["data_fingerprint"]
    if mine is None or cell["variant"].split(", ")[-1] != "tuned":
        return mine
    same = [
        other["data_fingerprint"]
        for other in cells
        if other["data_fingerprint"] and other["data_fingerprint"][HALF:] == mine[HALF:]
        and other["variant"].split(", ")[-1] != "tuned"
    ]  # fmt: skip
    return max(same, default=mine)


def _conflicts(
    cells: Sequence[dict[str, Any]], group: Sequence[str], mark: Sequence[str]
) -> Iterator[list[Version]]:
    """The versions of each group that has several."""
    groups: dict[tuple[str, ...], dict[tuple[str, ...], list[dict[str, Any]]]] = {}
    for cell in cells:
        key = tuple(str(cell[name]) for name in group)
        marked = tuple(cell[name] or "" for name in mark)
        groups.setdefault(key, {}).setdefault(marked, []).append(cell)
    for versions in groups.values():
        if len(versions) > 1:
            yield [Version(mark, of_mark) for mark, of_mark in versions.items()]


def _name_places(versions: list[Version]) -> None:
    """Name the data set by its folder, if that differs."""
    places = [version.newest["location"] for version in versions]
    if None not in places and len(set(places)) == len(places):
        for version, end in zip(versions, distinct_ends(places), strict=True):
            version.name("benchmark", end)


def _name_data(versions: list[Version]) -> None:
    """Name the data by categories, if they differ; else by what they hold."""
    categories = [version.newest["categories"] for version in versions]
    if all(categories) and len(set(map(str, categories))) == len(categories):
        broadest = max(versions, key=lambda version: len(version.newest["categories"]))
        others = [version for version in versions if version is not broadest]
        named = [f"only {_listed(version.newest['categories'])}" for version in others]
    else:
        others = _to_name(versions)
        if len({version.mark[0][:HALF] for version in versions}) == 1:
            named = [f"test images {version.mark[0][HALF:][:SHORT]}" for version in others]
        else:
            named = [f"images {_short(version.mark)}" for version in others]
    for version, name in zip(others, _distinct(named, others, "images"), strict=True):
        version.name("data", name)


def _name_settings(versions: list[Version]) -> None:
    """Name the method by the settings, and the files, that it was trained with."""
    settings = [version.settings for version in versions]
    fields = [
        name
        for name in settings[0]
        if name not in ("weights", "textures")
        and all(name in one for one in settings)
        and len({json.dumps(one[name]) for one in settings}) > 1
    ]
    several_files = len({version.mark[1] for version in versions}) > 1
    others, named = _to_name(versions), []
    for version in others:
        mine = version.settings
        parts = [f"{name}={_value(mine[name])}" for name in fields]
        if len(parts) > MOST_NAMED:
            parts = [f"settings {_short(version.mark[:1])}"]
        if several_files:
            kind = "textures" if mine.get("textures") else "weights"
            parts.append(f"{kind} {version.mark[1][:SHORT] or 'none'}")
        named.append(", ".join(parts))
    for version, name in zip(others, _distinct(named, others, "code"), strict=True):
        plain = version.newest["variant"]
        version.name("variant", ", ".join(filter(None, [plain, name])))


def _distinct(names: Sequence[str], versions: Sequence[Version], what: str) -> list[str]:
    """The names, with a hash of `what` differs where they say too little: of none, or of several
    versions. Equal settings that the code of another revision read have no other name."""
    return [
        name
        if name and names.count(name) == 1
        else ", ".join(filter(None, [name, f"{what} {_short(version.mark)}"]))
        for name, version in zip(names, versions, strict=True)
    ]


def _to_name(versions: list[Version]) -> list[Version]:
    """All of them; in separate mode not the newest, so that its categories stay one table."""
    if versions[0].newest["mode"] != "separate":
        return versions
    newest = max(versions, key=lambda version: _when(version.newest))
    return [version for version in versions if version is not newest]


def _when(cell: Mapping[str, Any]) -> str:
    return str(cell["finished_at"] or "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} categories"


def _value(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _short(mark: Sequence[str]) -> str:
    return hashlib.sha256("".join(mark).encode()).hexdigest()[:SHORT]
