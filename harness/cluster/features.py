"""Frozen features, computed once in a cluster: other nodes ask the driver's cache, and fill it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from harness.cache import ENTRY, FeatureCache
from harness.features import FeatureSet
from methods.base import OnProgress, Progress
from methods.parts.backbone import file_sha256
from results.files import record_in, whole_file, write_whole

PIECE = 64 * 2**20
RATE = 1e8
"""Bytes/s that a network is taken for, about one gigabit: what takes longer than computing it took
is computed again."""


class CacheFiles:
    """The driver's cache, for other nodes; part of its `Writer`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def entry(self, name: str) -> tuple[int, dict[str, Any]] | None:
        """Bytes and facts of an entry; None without it."""
        try:
            facts = record_in(self._entry_path(name).with_suffix(".json").read_bytes())
            return self._entry_path(name).stat().st_size, facts
        except (OSError, ValueError):
            return None

    def piece(self, name: str, start: int) -> bytes:
        """PIECE bytes of an entry, or what is left."""
        with self._entry_path(name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def take(self, name: str, mark: str, content: bytes, facts: dict[str, Any] | None) -> None:
        """One more piece of an entry; with the facts it is whole, and appears if its hash is right.

        An entry that is there stays.
        """
        path = self._entry_path(name)
        scratch = path.with_name(f".{name}.{mark}.tmp")
        with scratch.open("ab") as file:
            file.write(content)
        if facts is not None:
            if file_sha256(scratch) == facts["sha256"] and not path.exists():
                write_whole(path.with_suffix(".json"), json.dumps(facts).encode(), replace=True)
                scratch.replace(path)
            scratch.unlink(missing_ok=True)

    def _entry_path(self, name: str) -> Path:
        if not ENTRY.fullmatch(name):
            raise ValueError(f"{name}: no name of an entry")
        return self.root / name


@dataclass(frozen=True, kw_only=True)
class SharedCache(FeatureCache):
    """A node's cache, which asks the driver's for what it lacks and hands over what it makes."""

    ask: Callable[..., Any]
    """The driver's `CacheFiles`: a method's name and its arguments."""

    def _write(
        self, sets: Mapping[Path, FeatureSet], device: torch.device, tell: OnProgress
    ) -> None:
        there = {path: self.ask("entry", path.name) for path in sets}
        lacking = {
            path: f for path, f in sets.items() if not self._fetched(path, there[path], tell)
        }
        if lacking:
            super()._write(lacking, device, tell)
        for path in lacking:
            if there[path] is None:
                self._hand_over(path)

    def _fetched(
        self, path: Path, there: tuple[int, dict[str, Any]] | None, tell: OnProgress
    ) -> bool:
        """Whether an entry came from the driver: sooner than it would be made, and whole."""
        if there is None or there[0] / RATE >= there[1].get("seconds", 0):
            return False
        with suppress(OSError):  # its hash is wrong: made anew
            self._fetch(path, there[0], there[1], tell)
            return True
        return False

    def _fetch(self, path: Path, size: int, facts: dict[str, Any], tell: OnProgress) -> None:
        with whole_file(path, replace=True) as scratch:
            with scratch.open("wb") as file:
                while file.tell() < size:
                    file.write(self.ask("piece", path.name, file.tell()))
                    tell(Progress(stage="fetch features", step=file.tell(), steps=size))
            if file_sha256(scratch) != facts.get("sha256"):
                raise OSError(f"{path}: other bytes than were written")
            write_whole(path.with_suffix(".json"), json.dumps(facts).encode(), replace=True)

    def _hand_over(self, path: Path) -> None:
        facts, mark = record_in(path.with_suffix(".json").read_bytes()), uuid4().hex
        pieces = _pieces(path)
        ahead = next(pieces)
        for piece in pieces:
            self.ask("take", path.name, mark, ahead, None)
            ahead = piece
        self.ask("take", path.name, mark, ahead, facts)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            yield piece
