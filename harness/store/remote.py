"""Folders in object stores: a copy on this machine, brought up to date before and put back after.

Whatever reads or writes results works on the copy, as on any folder. What is new in it is put into
the store while it is made, parts last, so that a part that is there is whole. Of two commands that
make one part the first to put it wins. Stores without appending get a log of each copy.

    COPY/.copy.json    where it comes from, and what of each file is known to be the same there
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pyarrow as pa
from pyarrow.fs import FileInfo, FileSelector, FileSystem, FileType

from harness.registry import UsageError
from methods.base import quiet
from results.files import locked, write_whole

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
INDEX = ".copy.json"
THREADS = 16
PIECE = 8 * 2**20
"""Bytes in memory of a file that is put."""
PARTS = ("parts", "trials", "revealed")
"""What says that a cell is done, and so comes last."""
OWN = ("locks", "ray", "damaged", "features-")
"""Begins the names of what stays on this machine."""
CHANGING = re.compile(r"running/|models/[0-9a-f]+\.training/|report\.html")
"""Names that are put again, and removed there, as they are here."""
LOG = re.compile(r"(\w+)-([0-9a-f]{8})\.jsonl")
FAILURE = re.compile(r"(.*-)(\d+)(\.parquet|\.txt)")


def opened(address: str) -> tuple[FileSystem, str]:
    """The store of a URI and the name in it; UsageError, in one line, where there can be none."""
    parts = urlsplit(address)
    if parts.scheme.lower() not in SCHEMES:
        raise UsageError(f"{address}: unknown kind of storage; there are: {', '.join(SCHEMES)}")
    if parts.password:
        hidden = address.replace(f":{parts.password}@", ":...@")
        raise UsageError(f"{hidden}: a URI is seen by others; leave its key to the environment")
    try:
        files, name = FileSystem.from_uri(_with_endpoint(address))
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{address}: {reason(error)}") from None
    if not name.strip("/"):
        raise UsageError(f"{address}: names no folder; write {parts.scheme}://BUCKET/FOLDER")
    return files, name.rstrip("/")


def _with_endpoint(address: str) -> str:
    """An s3 URI with the endpoint that AWS's other programs take from the environment."""
    parts, endpoint = urlsplit(address), os.environ.get("AWS_ENDPOINT_URL", "")
    if parts.scheme != "s3" or not endpoint or "endpoint_override" in parts.query:
        return address
    scheme, _, host = endpoint.rpartition("://")
    query = urlencode({"endpoint_override": host.rstrip("/"), "scheme": scheme or "https"})
    return parts._replace(query="&".join(filter(None, (parts.query, query)))).geturl()


def reason(error: BaseException) -> str:
    """What a store says, without what this program asked it."""
    text = " ".join(str(error).split())
    return re.sub(r"^.*?AWS Error ", "", text).partition(" (Request ID")[0][:200]


@dataclass
class Copy:
    """A folder on this machine that stands for one in a store. Raises OSError as the store does."""

    address: str
    folder: Path
    known: dict[str, list[Any]] = field(default_factory=dict)
    """By name, size and time here and there when both were the same."""
    writer: str = ""
    """Names the logs of this copy."""
    foreign: set[str] = field(default_factory=set)
    """Lines of logs that come from elsewhere."""
    single: str = ""
    """The name of the file, if it is one, such as weights, and no folder."""

    def __post_init__(self) -> None:
        self.files, self.name = opened(self.address)

    @classmethod
    def at(cls, root: Path, address: str) -> Copy:
        """The copy of a folder in a store, below a folder of ours; it keeps the folder's name."""
        kept = sha256(address.encode()).hexdigest()[:16]
        folder = root / kept / (urlsplit(address).path.rstrip("/").rpartition("/")[2] or "bucket")
        folder.mkdir(parents=True, exist_ok=True)
        return cls(address, folder.resolve())

    def pull(self, wanted: Callable[[str], bool] = lambda name: True, below: str = "") -> None:
        """Bring the copy up to date; what was changed here since stays as it is here.

        `wanted` says which names; of a large folder only what lies `below` a name may be listed.
        """
        with self._index():
            there = self.listed(below)
            for name in filter(LOG.fullmatch, there):
                self._read_log(name)
            with ThreadPoolExecutor(THREADS) as pool:
                stale = [n for n in there if wanted(n) and self._stale(n, there[n])]
                list(pool.map(lambda name: self._get(name, there[name]), stale))
            for name in [n for n in self.known if n.startswith(below) and n not in there]:
                if not self._changed(name) and not LOG.fullmatch(name):
                    (self.folder / name).unlink(missing_ok=True)
                    del self.known[name]

    def fetch(self, folder: Path) -> None:
        """What is missing here of a folder below the copy."""
        self.pull(below=f"{folder.relative_to(self.folder)}/")

    def forget(self, folder: Path) -> None:
        """Remove a folder below the copy from the store."""
        below = f"{folder.relative_to(self.folder)}/"
        with self._index():
            for name in self.listed(below):
                self.files.delete_file(f"{self.name}/{name}")
                self.known.pop(name, None)

    def put(self) -> None:
        """Put what is new here into the store, what says that a cell is done last."""
        with self._index():
            # Parts are listed first: what belongs to one of them was written before it.
            here = [*self._here(PARTS), *self._here()]
            new = [name for name in dict.fromkeys(here) if self._changed(name)]
            with ThreadPoolExecutor(THREADS) as pool:
                # What says that a folder is whole, or a cell done, comes after what it says it of.
                for last in (False, True):
                    ripe = [name for name in new if _says_whole(name) == last]
                    list(pool.map(self._put, ripe))
                    self._put_logs()
            for name in [n for n in self.known if CHANGING.match(n)]:
                if not (self.folder / name).exists():
                    with suppress(FileNotFoundError):
                        self.files.delete_file(f"{self.name}/{name}")
                    del self.known[name]

    def check_writable(self) -> None:
        """UsageError, in one line, unless results can be put there."""
        probe = f"{self.name}/.probe-{uuid4().hex[:8]}"
        try:
            self._write(probe, io.BytesIO(b"room?"))
            self.files.delete_file(probe)
        except (OSError, pa.ArrowException) as error:
            raise UsageError(f"{self.address}: can't be written: {reason(error)}") from None

    @contextmanager
    def _index(self) -> Iterator[None]:
        """What is known, for one process at a time."""
        path = self.folder / INDEX
        with locked(self.folder / ".copy.lock", quiet):
            before = path.read_bytes() if path.exists() else b"{}"
            record = json.loads(before)
            self.known = record.get("known", {})
            self.writer = record.get("writer") or uuid4().hex[:8]
            try:
                yield
            finally:
                record = {"address": self.address, "writer": self.writer, "known": self.known}
                if (now := json.dumps(record).encode()) != before:
                    write_whole(path, now, replace=True)

    def listed(self, below: str = "") -> dict[str, list[Any]]:
        """Size and time of each file there; of a single one, such as weights, where that it is."""
        root = f"{self.name}/{below}".rstrip("/")
        info = self.files.get_file_info(root)
        if info.type == FileType.File:
            self.single, self.name = info.base_name, self.name.rpartition("/")[0]
        if self.single:
            return {self.single: _stamp(self.files.get_file_info(f"{self.name}/{self.single}"))}
        select = FileSelector(root, recursive=True, allow_not_found=True)
        found = {
            info.path.removeprefix(f"{self.name}/"): _stamp(info)
            for info in self.files.get_file_info(select)
            if info.type == FileType.File and not info.base_name.startswith(".")
        }
        for name in found:
            if not (self.folder / name).resolve().is_relative_to(self.folder):
                raise UsageError(f"{self.address}: {name!r} would lie outside of its copy")
        return found

    def _here(self, kinds: Iterable[str] = ("",)) -> Iterator[str]:
        for kind in kinds:
            for path in sorted((self.folder / kind).rglob("*")):
                name = str(path.relative_to(self.folder))
                hidden = any(part.startswith(".") for part in Path(name).parts)
                if not hidden and not name.startswith(OWN) and path.suffix != ".jsonl":
                    with suppress(FileNotFoundError):
                        if path.is_file():
                            yield name

    def _mark(self, name: str) -> list[Any]:
        status = (self.folder / name).stat()
        return [status.st_size, status.st_mtime_ns]

    def _changed(self, name: str) -> bool:
        """Whether a file here is not what it was when both were the same."""
        try:
            return bool(self.known.get(name, [None])[0] != self._mark(name))
        except FileNotFoundError:
            return False

    def _stale(self, name: str, stamp: list[Any]) -> bool:
        """Whether a file there is another than here; one that was changed here counts as newer."""
        if LOG.fullmatch(name) or name.startswith("running/"):
            return False
        if not (self.folder / name).exists():
            return True
        known = self.known.get(name)
        return known is None or (known[1] != stamp and not self._changed(name))

    def _get(self, name: str, stamp: list[Any]) -> None:
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = target.with_name(f".{target.name}.{uuid4().hex}.tmp")
        try:
            with (
                self.files.open_input_stream(f"{self.name}/{name}") as stream,
                scratch.open("wb") as file,
            ):
                shutil.copyfileobj(stream, file)
            if (size := scratch.stat().st_size) != stamp[0]:
                raise OSError(f"{name}: {size:,} of {stamp[0]:,} bytes came")
            scratch.replace(target)
        finally:
            scratch.unlink(missing_ok=True)
        self.known[name] = [self._mark(name), stamp]

    def _put(self, name: str) -> None:
        """One file; of a new one the first that is put there stays."""
        target = f"{self.name}/{name}"
        if name not in self.known and not CHANGING.match(name):
            if name.startswith("failures/"):
                target = self._free(target)
            elif (info := self.files.get_file_info(target)).type == FileType.File:
                self._get(name, _stamp(info))
                return
        try:
            mark, source = self._mark(name), (self.folder / name).open("rb")
        except FileNotFoundError:
            return  # a checkpoint that is no longer needed
        with source:
            self._write(target, source)
        self.known[name] = [mark, _stamp(self.files.get_file_info(target))]

    def _free(self, target: str) -> str:
        """A name that no other command's failure has."""
        if found := FAILURE.fullmatch(target):
            stem, count, kind = found[1], int(found[2]), found[3]
            while self.files.get_file_info(f"{stem}{count}{kind}").type == FileType.File:
                count += 1
            return f"{stem}{count}{kind}"
        return target

    def _write(self, target: str, source: BinaryIO) -> None:
        if self.files.type_name in ("local", "hdfs"):
            self.files.create_dir(target.rpartition("/")[0], recursive=True)
        with self.files.open_output_stream(target) as stream:
            shutil.copyfileobj(source, stream, PIECE)

    def _put_logs(self) -> None:
        """The lines that were written here, as a log of this copy."""
        for path in self.folder.glob("*.jsonl"):
            name = f"{path.stem}-{self.writer}.jsonl"
            mine = [line for line in path.read_text().splitlines() if line not in self.foreign]
            content = "".join(f"{line}\n" for line in mine).encode()
            if mine and self.known.get(name, [None])[0] != [len(content)]:
                self._write(f"{self.name}/{name}", io.BytesIO(content))
                self.known[name] = [[len(content)], None]

    def _read_log(self, name: str) -> None:
        """The lines of another copy's log, into ours."""
        stem, _, writer = name.removesuffix(".jsonl").rpartition("-")
        if writer == self.writer:
            return
        with self.files.open_input_stream(f"{self.name}/{name}") as stream:
            lines = stream.read().decode().splitlines()
        self.foreign.update(lines)
        path = self.folder / f"{stem}.jsonl"
        ours = path.read_text().splitlines() if path.exists() else []
        if not set(lines) <= set(ours):
            merged = sorted({*ours, *lines})  # each begins with its time
            write_whole(path, "".join(f"{line}\n" for line in merged).encode(), replace=True)


def _stamp(info: FileInfo) -> list[Any]:
    return [info.size, str(info.mtime)]


def _says_whole(name: str) -> bool:
    return name.startswith(PARTS) or name.endswith(("/fit.json", "/state.json"))
