"""Results from nodes that do not see the driver's folder: one writer, on the driver's node.

Whether a node sees the folder is found, not asked: the driver writes a file with a random name, and
each process looks for it. Where it is missing, results are written to a folder of the node first
and handed to the writer at once, and what is missing there is fetched from it.
"""

from __future__ import annotations

import dataclasses
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.cell import Cell
from harness.cluster.features import CacheFiles, SharedCache
from harness.options import Say
from harness.place import Place
from harness.store.addresses import RESULTS
from harness.store.checkpoints import KEPT
from harness.store.copies import fetch
from harness.store.journal import append
from harness.store.remote import PARTS
from harness.store.store import DIVERGED, FitFacts, Store
from methods.base import Method, quiet
from results.files import locked, whole_folder, write_whole

LAST_SECONDS = 10
"""In which a node removes its own folder at the end."""


class Writer(CacheFiles):
    """The process on the driver's node that reads and writes its folders for the others."""

    def __init__(self, out: Path, cache: Path, results: Mapping[Path, str]) -> None:
        super().__init__(cache)
        self.out = out
        RESULTS.update(results)

    def write(self, files: Mapping[str, bytes], replace: bool) -> None:
        """Files by their names below the folder; each whole, the first of a name stays."""
        for name in sorted(files, key=lambda name: name.split("/")[0] in PARTS):
            write_whole(self._path(name), files[name], replace=replace)

    def write_folder(self, name: str, files: Mapping[str, bytes]) -> None:
        """A folder that appears whole; one that is there stays."""
        fill(self._path(name), files)

    def read(self, name: str) -> dict[str, bytes]:
        """The files below a folder, or that file; none where there is neither."""
        path = self._path(name)
        if not path.exists():
            fetch(path)
        return {path.name: path.read_bytes()} if path.is_file() else read_folder(path)

    def names(self, name: str) -> set[str]:
        """The checkpoints in a folder of a training."""
        if not self._path(name).exists():
            fetch(self._path(name))
        return {path.name for path in self._path(name).glob("epoch-*")}

    def forget(self, name: str) -> None:
        """Remove a folder."""
        shutil.rmtree(self._path(name), ignore_errors=True)

    def note(self, log: str, facts: Mapping[str, Any]) -> None:
        """A line of a log."""
        append(self._path(log), **facts)

    def _path(self, name: str) -> Path:
        path = (self.out / name).resolve()
        if not path.is_relative_to(self.out):
            raise ValueError(f"{name}: lies outside {self.out}")
        return path


def read_folder(folder: Path) -> dict[str, bytes]:
    """The files below a folder by their names, but for those that are not whole."""
    if not folder.is_dir():
        return {}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def fill(folder: Path, files: Mapping[str, bytes]) -> None:
    """A folder of these files, which appears whole; one that is there stays."""
    with whole_folder(folder) as scratch:
        for name, content in files.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


@dataclass(frozen=True)
class Home:
    """How a process on any node finds out whether it sees the driver's folder, and reaches it."""

    out: Path
    mark: str
    writer: Any
    """The Ray actor that is a `Writer`."""
    node: str
    """Where it is, by Ray's id."""

    @property
    def seen(self) -> bool:
        """Whether the folder here is the driver's."""
        return (self.out / self.mark).exists()

    def ask(self, what: str, *values: Any) -> Any:
        """An answer of the writer."""
        return ray.get(getattr(self.writer, what).remote(*values))


@contextmanager
def home(out: Path, cache: Path) -> Iterator[Home]:
    """The driver's folders for all nodes, as long as the block lasts."""
    mark = f".seen-{secrets.token_hex(8)}"
    (out / mark).touch()
    node = ray.get_runtime_context().get_node_id()
    here = NodeAffinitySchedulingStrategy(node, soft=False)
    start = ray.remote(num_cpus=0, max_restarts=2, max_task_retries=2)(Writer)
    writer = start.options(scheduling_strategy=here).remote(out, cache, dict(RESULTS))
    try:
        yield Home(out, mark, writer, node)
        _clean_up(mark)  # not after an error: the nodes may be gone
    finally:
        with suppress(OSError):
            (out / mark).unlink()
    ray.kill(writer)


@dataclass(frozen=True)
class RelayedStore(Store):
    """A node's own folder, whose content is handed to the driver's as soon as it is whole."""

    home: Home

    def done(self, cell: Cell) -> bool:
        """Whether the cell is finished, here or at home; its part is here then."""
        if not super().done(cell):
            for content in self.home.ask("read", self._name(self.part(cell))).values():
                write_whole(self.part(cell), content)
        return super().done(cell)

    def published(self, cell: Cell, replace: bool) -> None:
        """At home too."""
        name = self.part(cell).name
        paths = [path for path in self.out.glob(f"*/{name}") if path.is_file()]
        paths += [self.use(cell)] if cell.role.shown else []
        self.home.ask("write", {self._name(path): path.read_bytes() for path in paths}, replace)

    def log(self, name: str, facts: Mapping[str, Any]) -> None:
        """At home: the test split is opened here only after that."""
        self.home.ask("note", name, facts)

    def learned(self, cell: Cell) -> None:
        """At home too, where its checkpoints are no longer needed."""
        self._hand_over(self.model(cell))
        self.home.ask("forget", self._name(super().training(cell)))

    def trained(self, cell: Cell) -> bool:
        """As any store; a model that is missing here is fetched from home."""
        self._fetch(self.model(cell))
        return super().trained(cell)

    def load_model(self, cell: Cell, method: Method, say: Say = quiet) -> FitFacts | None:
        """As any store; a model that is missing here is fetched from home."""
        self._fetch(self.model(cell))
        return super().load_model(cell, method, say)

    def keep_checkpoint(self, folder: Path) -> None:
        """At home, so that another node can go on from it; the newest of them stay, as here."""
        self._hand_over(folder)
        name = self._name(folder.parent)
        for old in sorted(self.home.ask("names", name))[:-KEPT]:
            self.home.ask("forget", f"{name}/{old}")

    def training(self, cell: Cell) -> Path:
        """As at home: checkpoints that another node left are fetched, older ones removed."""
        folder = super().training(cell)
        # Ranks on one node begin together: what one has fetched the other must not take away.
        with locked(self.lock(f"{cell.fit_id}-checkpoints"), quiet):
            here = {path.name for path in folder.glob("epoch-*")}
            if self.home.ask("names", self._name(folder)) != here:
                shutil.rmtree(folder, ignore_errors=True)
                self._fetch(folder)
        return folder

    def keep(self, path: Path) -> None:
        """At home too."""
        self.home.ask("write", {self._name(path): path.read_bytes()}, True)

    def fetch(self, path: Path) -> None:
        """From home, where it is there."""
        for content in self.home.ask("read", self._name(path)).values():
            write_whole(path, content, replace=True)

    def note_diverged(self, cell: Cell, why: str) -> None:
        """At home, where the driver looks for it."""
        name = f"{self._name(super().training(cell))}/{DIVERGED}"
        self.home.ask("write", {name: why.encode()}, True)

    def diverged(self, cell: Cell) -> str:
        """From home."""
        name = f"{self._name(super().training(cell))}/{DIVERGED}"
        why = b"".join(self.home.ask("read", name).values()).decode()
        if why:
            self.home.ask("forget", self._name(super().training(cell)))
        return why

    def _hand_over(self, folder: Path) -> None:
        self.home.ask("write_folder", self._name(folder), read_folder(folder))

    def _fetch(self, folder: Path) -> None:
        files = {} if folder.exists() else self.home.ask("read", self._name(folder))
        if files:
            fill(folder, files)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.out))


def at_node(place: Place) -> Place:
    """The place as this process sees it: with the driver's folders, or those of the node."""
    home: Home | None = place.home
    if home is None:
        return place
    if ray.get_runtime_context().get_node_id() != home.node:
        mine = place.cache
        shared = SharedCache(root=mine.root, budget_gb=mine.budget_gb, ask=home.ask)
        place = dataclasses.replace(place, cache=shared)
    if home.seen:
        return place
    store = RelayedStore(own_folder(home.mark), home)
    store.prepare()
    return dataclasses.replace(place, store=store)


def own_folder(mark: str) -> Path:
    """What a node keeps of its own while a command runs; removed at its end."""
    return Path(tempfile.gettempdir()) / f"lafite-bench-{mark.lstrip('.')}"


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
