"""What there is: the file name is the name. Listing imports nothing."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple


class Kind(NamedTuple):
    """A folder of plug-ins, and what each of its files defines under the same name."""

    folder: str
    attribute: str


KINDS = {
    "methods": Kind("methods", "METHOD"),
    "benchmarks": Kind("benchmarks", "BENCHMARK"),
    "kernels": Kind("kernels", "OP"),
    "commands": Kind("harness/commands", "command"),
    "races": Kind("harness/speed", "race"),
}


class UsageError(ValueError):
    """What the user typed can't be run; one line says what, where and what to do."""


class Stopped(KeyboardInterrupt):
    """Ctrl-C, and what is done by then and how to go on."""


def names(kind: str) -> list[str]:
    """The plug-ins of a kind, sorted."""
    folder = Path(__file__).parents[1] / KINDS[kind].folder
    stems = (path.stem for path in folder.glob("*.py"))
    return sorted(stem for stem in stems if stem != "base" and not stem.startswith("_"))


def load(kind: str, name: str) -> Any:
    """The plug-in of that name; UsageError with the nearest name if there is none."""
    if name not in names(kind):
        raise UsageError(f"unknown {kind[:-1]} '{name}'; {did_you_mean(name, names(kind))}")
    folder, attribute = KINDS[kind]
    return getattr(importlib.import_module(f"{folder.replace('/', '.')}.{name}"), attribute)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that does not exist."""
    words = list(known)
    near = difflib.get_close_matches(name, words, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}there are: {', '.join(words)}"
