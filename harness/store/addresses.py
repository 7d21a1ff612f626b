"""Which folders are copies of folders in object stores; see `copies.py`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

RESULTS: dict[Path, str] = {}
INPUTS: dict[Path, str] = {}
"""Where the copies come from that this process works with: of results, and of data or weights."""


def address_of(path: Path) -> str:
    """A path as the user named it: below the URI of a copy, the URI."""
    for folder, address in (RESULTS | INPUTS).items():
        if path == folder or folder in path.parents:
            plain = urlsplit(address)._replace(query="").geturl()
            return "/".join([plain.rstrip("/"), *path.relative_to(folder).parts])
    return str(path)


def named(text: str) -> str:
    """A text with URIs for the paths of copies."""
    for folder in (*RESULTS, *INPUTS):
        text = text.replace(str(folder), address_of(folder))
    return text
