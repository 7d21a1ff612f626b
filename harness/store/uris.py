"""The stores behind URIs: pyarrow's for those that it reaches, else what fsspec knows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
from fsspec import AbstractFileSystem, url_to_fs
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSelector, FileSystem, FileType

from harness.plan.registry import UsageError

BY_ARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
"""Kinds of stores that pyarrow reaches without another package."""
OBJECTS = ("s3", "gcs", "abfs")
"""Names that pyarrow has for those where an object can be seen only once it is whole."""


def reason(error: BaseException) -> str:
    """Why a store refuses, without what this program asked it."""
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"^.*?AWS Error ", "", text).partition(" (Request ID")[0][:200]


@cache
def opened(address: str) -> tuple[AbstractFileSystem, str]:
    """The store of a URI and the path in it; UsageError, in one line, where there can be none."""
    parts = urlsplit(address)
    if parts.password:
        hidden = address.replace(f":{parts.password}@", ":...@")
        raise UsageError(f"{hidden}: a URI is seen by others; leave its key to the environment")
    try:
        if parts.scheme in BY_ARROW:
            arrow, root = FileSystem.from_uri(address)
            files: AbstractFileSystem = _Arrow(arrow)
        else:
            files, root = url_to_fs(address, use_listings_cache=False)
    except (ImportError, OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{address}: {reason(error)}") from None
    if not root.strip("/"):
        raise UsageError(f"{address}: names no folder; write {parts.scheme}://BUCKET/FOLDER")
    return files, root.rstrip("/")


class _Arrow(ArrowFSWrapper):  # type: ignore[misc]
    """A store of pyarrow: listed with one question, and files put by one call.

    A stream that is closed after an error makes an object of what it got.
    """

    def find(self, path: str, **asked: Any) -> dict[str, dict[str, Any]]:
        info = self.fs.get_file_info(path)
        if info.type == FileType.Directory:
            select = FileSelector(path, recursive=True, allow_not_found=True)
            infos = self.fs.get_file_info(select)
        else:
            infos = [info]
        return {i.path: self._make_entry(i) for i in infos if i.type == FileType.File}

    def put_file(self, lpath: str, rpath: str, **asked: Any) -> None:
        self.pipe_file(rpath, Path(lpath).read_bytes())
