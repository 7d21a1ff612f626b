"""A folder wherever it lies, by few verbs: on a disk, below a URI, or at the driver.

The last one is `harness.cluster.relay.AtDriver`. A name is a path below the folder, with slashes.
What is put appears whole or not at all, also where a process is killed meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from fsspec import AbstractFileSystem

from harness.plan.addresses import COPIES
from harness.plan.options import Say
from harness.plan.registry import UsageError
from harness.store.journal import add
from harness.store.uris import OBJECTS, opened, reason
from methods.parts.progress import quiet
from results.files import WRITING, locked, whole_file, whole_folder, write_whole

THREADS = 16
OUTAGE_SECONDS = 3600.0
"""Seconds that work waits for a store that does not answer."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds between two trials of such a store; they double."""
SETTLED_SECONDS = 2.0
"""Age from which a file can't be another one of the same stamp: some stores count whole seconds."""
TIMES = ("mtime", "LastModified", "last_modified", "created")
"""Names that kinds of stores have for the time when a file was written."""
HIDDEN = re.compile(r"(^|/)\.")
"""A name of what is being written, or of what is kept beside."""
T = TypeVar("T")


class Stamp(NamedTuple):
    """Size in bytes and time of change in ns: two files of one name and stamp are the same."""

    size: int
    time: int


class Folder(ABC):
    """Files by name. Raises OSError where the disk, the store or the driver can't be reached."""

    here: Path
    """The folder itself on this machine's disk, else where what is fetched of it is kept."""

    @abstractmethod
    def list(self, below: str = "") -> dict[str, Stamp]:
        """Names and stamps of all whole files below a name, or of that file."""

    @abstractmethod
    def put(self, name: str, content: bytes | Path, *, replace: bool = False) -> None:
        """Make a file of bytes, or put a file or folder of this machine, which may be moved there.

        It appears whole. Of several that put one name the first stays, unless `replace` is true.
        """

    @abstractmethod
    def append(self, name: str, line: str) -> None:
        """Add a line to a log; lines of several processes do not mix."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or folder, if it is there."""

    @abstractmethod
    def local(self, name: str) -> Path:
        """The path of a file or folder on this machine's disk, brought up to date, if it exists.

        It is to be read only. A log may be a folder of lines; `journal.entries` reads both.
        """

    def get(self, name: str) -> bytes:
        """Content of a file; FileNotFoundError without it."""
        return self.local(name).read_bytes()

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return name in self.list(name)

    def lock(self, name: str, waiting: Callable[[], None]) -> AbstractContextManager[None]:
        """Lets one process of this machine at a time into the block of this name, see `locked`.

        On a disk that machines share they wait for one another as well, where its locks do so;
        below a URI and at the driver they do not: the first to put a file wins there.
        """
        return locked(self.here / "locks" / name, waiting)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for what is to be put, on the disk of `here`; gone at the end."""
        folder = self.here / f"{WRITING}{uuid4().hex}"
        folder.mkdir(parents=True)  # not `mkdtemp`: as open as the umask says
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def move(self, name: str, to: str) -> None:
        """Give a file or folder another name; FileNotFoundError where somebody did before."""
        path = self.local(name)
        if not path.exists():
            raise FileNotFoundError(name)
        self.put(to, path)
        self.remove(name)

    def patient(self, say: Say = quiet) -> Folder:
        """The same folder, where an outage of up to OUTAGE_SECONDS is waited for, and said."""
        return self


@dataclass(frozen=True)
class OnDisk(Folder):
    """A folder of a disk that this machine sees."""

    here: Path

    def list(self, below: str = "") -> dict[str, Stamp]:
        root = self.local(below)
        walk = os.walk(root, followlinks=True)  # which goes on where a folder vanishes
        paths = [Path(folder, file) for folder, _, files in walk for file in files]
        found = {}
        for path in [root] if root.is_file() else sorted(paths):
            name = path.relative_to(self.here).as_posix()
            with suppress(FileNotFoundError):
                if not HIDDEN.search(name):
                    status = path.stat()
                    found[name] = Stamp(status.st_size, status.st_mtime_ns)
        return found

    def put(self, name: str, content: bytes | Path, *, replace: bool = False) -> None:
        path = self.local(name)
        if isinstance(content, bytes):
            write_whole(path, content, replace=replace)
        elif content == path:
            return
        elif content.is_file():
            with whole_file(path, replace=replace) as scratch:
                shutil.move(content, scratch)
        else:
            with whole_folder(path) as folder:
                for part in content.iterdir():
                    shutil.move(part, folder / part.name)

    def append(self, name: str, line: str) -> None:
        add(self.local(name), line)

    def move(self, name: str, to: str) -> None:
        target = self.local(to)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.local(name).replace(target)

    def remove(self, name: str) -> None:
        path = self.local(name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def local(self, name: str) -> Path:
        return inside(self.here, name)


class Away(Folder):
    """A folder that is not on this machine's disk: what is read is fetched once."""

    @abstractmethod
    def _download(self, name: str, target: Path) -> None:
        """Write the content of a file to a path."""

    def local(self, name: str) -> Path:
        target = inside(self.here, name)
        with locked(self.here.with_name(f".{self.here.name}.lock"), quiet):
            there = self.list(name)
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(self._fetch, there, there.values()))
            known = {self.here / name for name in there}
            for path in {target, *target.rglob("*")} - known:
                if path.is_file():
                    path.unlink()
            if not there:
                shutil.rmtree(target, ignore_errors=True)
        return target

    def _fetch(self, name: str, stamp: Stamp) -> None:
        target = inside(self.here, name)
        with suppress(OSError):
            status = target.stat()
            if stamp == Stamp(status.st_size, status.st_mtime_ns):
                return
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name[:100]}.{uuid4().hex}.tmp")
        try:
            with suppress(FileNotFoundError):  # removed since it was listed
                self._download(name, scratch)
            if not scratch.exists():
                return
            if (size := scratch.stat().st_size) != stamp.size:
                raise OSError(f"{name}: {size:,} of {stamp.size:,} bytes came")
            if time.time_ns() - stamp.time > SETTLED_SECONDS * 1e9:
                os.utime(scratch, ns=(stamp.time, stamp.time))
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class Uri(Away):
    """A folder, or one file, of an object store or whatever else fsspec reaches.

    Appending is not known there: a log is a folder with an object a line, in the order of their
    times. There is no lock between machines.
    """

    address: str
    here: Path
    patience: float = 0.0
    """Seconds that an outage is waited for."""
    say: Say = quiet

    @classmethod
    def below(cls, root: Path, address: str) -> Uri:
        """The folder of a URI, with its copies below a folder of ours; it keeps its name there."""
        kept = sha256(address.encode()).hexdigest()[:16]
        folder = root / kept / (urlsplit(address).path.rstrip("/").rpartition("/")[2] or "bucket")
        return cls(address, folder.resolve())

    def patient(self, say: Say = quiet) -> Folder:
        return replace(self, patience=OUTAGE_SECONDS, say=say)

    def list(self, below: str = "") -> dict[str, Stamp]:
        files, root = opened(self.address)
        # By itself the search of fsspec finds nothing where a store does not answer.
        by_itself = type(files).find is AbstractFileSystem.find
        named = {"on_error": "raise"} if by_itself else {}
        try:
            found = self._trying(partial(files.find, self._at(below), detail=True, **named))
        except FileNotFoundError:
            return {}
        names = {path.removeprefix(root).lstrip("/"): info for path, info in found.items()}
        return {n: _stamp(info) for n, info in names.items() if not HIDDEN.search(n)}

    def put(self, name: str, content: bytes | Path, *, replace: bool = False) -> None:
        parts: dict[str, bytes | Path] = {name: content}
        if isinstance(content, Path) and content.is_dir():
            paths = [path for path in content.rglob("*") if path.is_file()]
            # A record, such as fit.json, says that the rest is there.
            paths.sort(key=lambda path: (path.suffix == ".json", path))
            parts = {f"{name}/{path.relative_to(content).as_posix()}": path for path in paths}
        if not parts or (not replace and self.exists([*parts][-1])):
            return
        try:
            for part, source in parts.items():
                self._trying(partial(self._write, self._at(part), source))
        except FileNotFoundError as error:  # there is no such bucket
            raise OSError(f"{self.address}: {reason(error)}") from None

    def append(self, name: str, line: str) -> None:
        self.put(f"{name}/{time.time_ns()}-{uuid4().hex[:8]}", line.encode())

    def remove(self, name: str) -> None:
        files, _ = opened(self.address)
        with suppress(FileNotFoundError):
            self._trying(partial(files.rm, self._at(name), recursive=True))

    def _download(self, name: str, target: Path) -> None:
        files, _ = opened(self.address)
        self._trying(partial(files.get_file, self._at(name), str(target)))

    def _at(self, name: str) -> str:
        return f"{opened(self.address)[1]}/{name}".rstrip("/")

    def _write(self, target: str, source: bytes | Path) -> None:
        files, _ = opened(self.address)
        first = target
        renames = type(files).mv is not AbstractFileSystem.mv
        if renames and files.protocol not in OBJECTS:  # else there are no halves of files
            folder, _, name = target.rpartition("/")
            files.makedirs(folder, exist_ok=True)
            first = f"{folder}/.{name}.{uuid4().hex}.tmp"
        if isinstance(source, Path):
            files.put_file(str(source), first)
        else:
            files.pipe_file(first, source)
        if first != target:
            files.mv(first, target)

    def _trying(self, ask: Callable[[], T]) -> T:
        wait, last = FIRST_WAIT, time.monotonic() + self.patience
        while True:
            try:
                answer = ask()
            except FileNotFoundError:
                raise
            except Exception as error:  # each kind of store has errors of its own
                why = f"{self.address}: {reason(error)}"
                if time.monotonic() + wait > last:
                    raise OSError(why) from error
                if wait == FIRST_WAIT:
                    self.say(f"{why}; it is waited for")
            else:
                if wait > FIRST_WAIT:
                    self.say(f"{self.address}: answers again")
                return answer
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)


def folder_at(path: Path) -> Folder:
    """The folder that a path names, be it by the copy of a URI."""
    return Uri(COPIES[path], path) if path in COPIES else OnDisk(path)


def inside(root: Path, name: str) -> Path:
    """The path of a name below a folder; UsageError for one that leads out of it."""
    # By its letters: a user may link a part of the folder to another disk.
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"{name!r} would lie outside of {root}")
    return root / name


def _stamp(info: dict[str, Any]) -> Stamp:
    when = next((info[name] for name in TIMES if info.get(name)), 0.0)
    seconds = when.timestamp() if hasattr(when, "timestamp") else when
    known = isinstance(seconds, (int, float))
    return Stamp(int(info["size"]), int(1e6 * seconds) * 1000 if known else 0)
