"""The URIs of the folders that this process works with copies of: results, data and weights."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

COPIES: dict[Path, str] = {}
"""URI of the folder or file that each path of this machine is a copy of."""


def address_of(path: Path) -> str:
    """A path as the user named it: below the URI of a copy, the URI."""
    for folder, address in COPIES.items():
        if path == folder or folder in path.parents:
            plain = urlsplit(address)._replace(query="").geturl()
            return "/".join([plain.rstrip("/"), *path.relative_to(folder).parts])
    return str(path)


def named(text: str) -> str:
    """A text with URIs for the paths of copies."""
    for folder in COPIES:
        text = text.replace(str(folder), address_of(folder))
    return text
