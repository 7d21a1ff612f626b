"""What there is: the file name is the name. Listing imports nothing."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any

KINDS = {"methods": "METHOD", "benchmarks": "BENCHMARK", "kernels": "OP"}
"""Plug-in folder to the name that each of its files defines."""


class UsageError(ValueError):
    """What the user typed can't be run; one line says what, where and what to do."""


def names(kind: str) -> list[str]:
    """The plug-ins of a folder, sorted."""
    folder = Path(__file__).parents[1] / kind
    stems = (path.stem for path in folder.glob("*.py"))
    return sorted(stem for stem in stems if stem != "base" and not stem.startswith("_"))


def load(kind: str, name: str) -> Any:
    """The plug-in of that name; UsageError with the nearest name if there is none."""
    known = names(kind)
    if name not in known:
        raise UsageError(f"unknown {kind[:-1]} '{name}'; {did_you_mean(name, known)}")
    return getattr(importlib.import_module(f"{kind}.{name}"), KINDS[kind])


def did_you_mean(name: str, known: list[str]) -> str:
    """A hint for a name that does not exist."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}there are: {', '.join(known)}"
