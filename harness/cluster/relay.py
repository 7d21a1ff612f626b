"""The driver's folders for nodes that do not see them: an actor on its node reads and writes there.

Whether a node sees the folder of results is found, not asked: the driver puts a file with a random
name, and each process looks for it. Where it is missing the process asks the actor.
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.plan.registry import UsageError
from harness.store.folder import Away, Folder, OnDisk, Stamp, folder_at
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.place import Place

PIECE = 64 * 2**20
"""Bytes of a file that are sent at once."""
LAST_SECONDS = 10
"""Seconds that a node has to remove its own folder at the end."""


class Desk:
    """The process on the driver's node that does with its folders what other nodes ask for."""

    def __init__(self, **folders: Folder) -> None:
        self.folders = folders

    def do(self, folder: str, verb: str, name: str, *values: Any, **named: Any) -> Any:
        """The answer of one verb of a folder."""
        self._path(folder, name)
        return getattr(self.folders[folder], verb)(name, *values, **named)

    def piece(self, folder: str, name: str, start: int) -> bytes:
        """PIECE bytes of a file, or what is left."""
        self._path(folder, name)
        with self.folders[folder].local(name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    def take(self, folder: str, scratch: str, part: str, start: int, content: bytes) -> None:
        """A piece of what is being put: of one of its files, or where `part` is empty of the file.

        Ray may ask the same twice.
        """
        path = self._path(folder, f"{scratch}/{part}".rstrip("/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.truncate(start)
            file.write(content)

    def put(self, folder: str, scratch: str, name: str, *, replace: bool) -> None:
        """All pieces came: what they make appears."""
        path = self._path(folder, scratch)
        self._path(folder, name)
        if path.exists():
            self.folders[folder].put(name, path, replace=replace)
        shutil.rmtree(path, ignore_errors=True)

    def _path(self, folder: str, name: str) -> Path:
        """UsageError for a name that leads out of the folder, be it by a link."""
        here = self.folders[folder].here
        if not (path := here / name).resolve().is_relative_to(here.resolve()):
            raise UsageError(f"{name!r} would lie outside of {here}")
        return path


@dataclass(frozen=True)
class AtDriver(Away):
    """A folder that the driver's node sees and this one does not. Locks are those of this node."""

    here: Path
    folder: str
    """Name that the desk has for it."""
    desk: Any
    """The Ray actor that is a `Desk`."""

    def list(self, below: str = "") -> dict[str, Stamp]:
        found: dict[str, Stamp] = self._ask("do", "list", below)
        return found

    def put(self, name: str, content: bytes | Path, *, replace: bool = False) -> None:
        if isinstance(content, bytes):
            self._ask("do", "put", name, content, replace=replace)
            return
        if not replace and self.exists(name):
            return
        scratch = f".{Path(name).name}.{uuid4().hex}.tmp"
        for path in [content, *content.rglob("*")]:
            if path.is_file():
                part = "" if path == content else path.relative_to(content).as_posix()
                for start, piece in _pieces(path):
                    self._ask("take", scratch, part, start, piece)
        self._ask("put", scratch, name, replace=replace)

    def append(self, name: str, line: str) -> None:
        self._ask("do", "append", name, line)

    def remove(self, name: str) -> None:
        self._ask("do", "remove", name)

    def _download(self, name: str, target: Path) -> None:
        with target.open("wb") as file:
            while piece := self._ask("piece", name, file.tell()):
                file.write(piece)

    def _ask(self, verb: str, *values: Any, **named: Any) -> Any:
        return ray.get(getattr(self.desk, verb).remote(self.folder, *values, **named))


@dataclass(frozen=True)
class Home:
    """How a process on any node finds out whether it sees the driver's folder, and reaches it."""

    results: Folder
    """The folder of results, as the driver sees it."""
    mark: str
    desk: Any
    node: str
    """Ray's id of the desk's node."""

    @property
    def seen(self) -> bool:
        """Whether this process can look into the folder of results."""
        with suppress(OSError, UsageError):
            return self.results.exists(self.mark)
        return False


@contextmanager
def home(results: Folder, cache: FeatureCache) -> Iterator[Home]:
    """The driver's folders for all nodes, as long as the block lasts."""
    mark = f"seen-{secrets.token_hex(8)}"
    results.put(mark, b"")
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    start = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)(Desk)
    desk = start.options(scheduling_strategy=here).remote(results=results, cache=OnDisk(cache.root))
    try:
        yield Home(folder_at(results.here), mark, desk, node)
        _clean_up(mark)  # not after an error: the nodes may be gone
    finally:
        with suppress(OSError):
            results.remove(mark)
    ray.kill(desk)


def at_node(place: Place) -> Place:
    """The place as this process sees it: with the driver's folders, or those of the node."""
    home: Home | None = place.home
    if home is None:
        return place
    apart = ray.get_runtime_context().get_node_id() != home.node
    shared = AtDriver(place.cache.root, "cache", home.desk) if apart else None
    own = AtDriver(own_folder(home.mark), "results", home.desk)
    return dataclasses.replace(
        place,
        cache=dataclasses.replace(place.cache, shared=shared),
        store=Store(home.results.patient() if home.seen else own),
    )


def own_folder(mark: str) -> Path:
    """A node's own folder while a command runs; removed at its end."""
    return Path(tempfile.gettempdir()) / f"lafite-bench-{mark}"


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Offsets and bytes of a file's pieces; one piece of an empty file."""
    with path.open("rb") as file:
        for start in range(0, max(1, path.stat().st_size), PIECE):
            yield start, file.read(PIECE)


def _clean_up(mark: str) -> None:
    """Remove what the nodes wrote of their own, as far as they answer."""
    remote = ray.remote(num_cpus=0, max_retries=0)(_remove)
    asked = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(mark)
        for node in ray.nodes()
        if node["Alive"]
    ]
    ray.wait(asked, num_returns=len(asked), timeout=LAST_SECONDS)


def _remove(mark: str) -> None:
    shutil.rmtree(own_folder(mark), ignore_errors=True)
