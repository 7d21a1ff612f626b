"""Plug-ins by file name. Listing imports nothing.

Methods and data sets may also come from elsewhere: from an installed package that declares them
(entry points), or from a file that the user names. Running either is running its author's code, so
nothing is imported that was not asked for by name.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from harness.plan.folders import spare_cache, usual_cache


class Kind(NamedTuple):
    """A folder of plug-ins, and what each of its files defines under the same name."""

    folder: str
    attribute: str
    group: str | None = None
    """The group of entry points by which installed packages add to them."""


KINDS = {
    "methods": Kind("methods", "METHOD", "lafite_bench.methods"),
    "benchmarks": Kind("benchmarks", "BENCHMARK", "lafite_bench.benchmarks"),
    "kernels": Kind("kernels", "OP"),
    "commands": Kind("harness/commands", "command"),
}
PLUGIN = "plugin_"
"""The prefix of the packages that are made of users' files."""
OF_FILE = re.compile(r"(\w+)@([0-9a-f]{8})")
"""The name of a user's file as a plug-in: the file's name and a hash of its content."""


class UsageError(ValueError):
    """A request that can't be run; one line says what, where and what to do."""


def first_line(error: BaseException, *, kind: bool = False) -> str:
    """The first line of an error's text, after its `kind` if asked; without a text the kind."""
    text = str(error).strip().splitlines()[:1]
    return ": ".join([type(error).__name__, *text] if kind or not text else text)


class Stopped(KeyboardInterrupt):
    """Ctrl-C, and what is done by then and how to go on."""


def names(kind: str) -> list[str]:
    """The plug-ins of a kind that come with us, sorted."""
    folder = Path(__file__).parents[2] / KINDS[kind].folder
    stems = (path.stem for path in folder.glob("*.py"))
    return sorted(stem for stem in stems if stem != "base" and not stem.startswith("_"))


def installed(kind: str) -> dict[str, EntryPoint]:
    """The plug-ins that installed packages add, by name; UsageError where two add the same name."""
    found: dict[str, EntryPoint] = {}
    group = KINDS[kind].group
    for entry in entry_points(group=group) if group else ():
        if entry.name in found and found[entry.name].value != entry.value:
            whose = " and ".join(sorted({package_of(entry), package_of(found[entry.name])}))
            raise UsageError(f"{kind[:-1]} '{entry.name}' is in {whose}; uninstall one of them")
        found[entry.name] = entry
    return {name: found[name] for name in sorted(found.keys() - names(kind))}


def package_of(entry: EntryPoint) -> str:
    """The package that an entry point is of, and its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def source_of(kind: str, name: str) -> str:
    """The package that a plug-in is of; empty for ours and for files, whose names identify them."""
    ours = name in names(kind) or OF_FILE.fullmatch(name)
    return "" if ours or name not in (found := installed(kind)) else package_of(found[name])


def is_known(kind: str, name: str) -> bool:
    """Whether there is a plug-in of that name."""
    return name in names(kind) or bool(OF_FILE.fullmatch(name)) or name in installed(kind)


def load(kind: str, name: str) -> Any:
    """The plug-in of that name; UsageError with the nearest name if there is none, and where one
    from elsewhere can't be imported."""
    folder, attribute, _ = KINDS[kind]
    if name in names(kind):
        return getattr(importlib.import_module(f"{folder.replace('/', '.')}.{name}"), attribute)
    if OF_FILE.fullmatch(name):
        return _attribute(name, attribute)
    if entry := installed(kind).get(name):
        try:
            return entry.load()
        except Exception as error:
            raise UsageError(f"{name} ({package_of(entry)}): {_why(error)}; mend it") from None
    raise UsageError(unknown(kind, name))


def unknown(kind: str, name: str) -> str:
    """The line on a name that no plug-in has, with the nearest; empty for one that there is."""
    known = [*names(kind), *installed(kind)]
    hint = did_you_mean(name, known)
    return "" if is_known(kind, name) else f"unknown {kind[:-1]} '{name}'; {hint}"


def from_file(kind: str, path: Path) -> str:
    """The name of a method or data set that a user's file defines, after it was imported.

    A copy is kept, so that later commands know what a row of it was, and workers elsewhere get it.
    UsageError, in one line, where the file can't be read or imported, or defines none.
    """
    try:
        content = path.read_bytes()
        stem = re.sub(r"\W", "_", path.stem)
        name = f"{stem}@{hashlib.sha256(content).hexdigest()[:8]}"
        package = copies_of_files() / _module(name)
        package.mkdir(parents=True, exist_ok=True)
        if not (package / "__init__.py").exists():
            part = package / f".{os.getpid()}"
            part.write_bytes(content)
            part.replace(package / "__init__.py")
    except OSError as error:
        raise UsageError(f"{error.filename or path}: {error.strerror or error}") from None
    try:
        load(kind, name)
    except UsageError as error:
        raise UsageError(f"{path}: {str(error).removeprefix(f'{name}: ')}") from None
    return name


def copies_of_files() -> Path:
    """The folder of copies of users' files, beside the cached features."""
    root = usual_cache()
    return (root if root.is_absolute() else spare_cache()).resolve() / "plugins"


def files_in_use() -> list[Path]:
    """The packages of the users' files that this process has imported."""
    modules = [module for name, module in sys.modules.items() if name.startswith(PLUGIN)]
    return [Path(module.__file__).parent for module in modules if module.__file__]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a name that does not exist."""
    words = list(known)
    near = difflib.get_close_matches(name, words, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"{hint}there are: {', '.join(words)}"


def _module(name: str) -> str:
    return f"{PLUGIN}{name.replace('@', '_')}"


def _attribute(name: str, attribute: str) -> Any:
    """A definition in a copy of a user's file; only the content that its name says is imported."""
    module = _module(name)
    if module not in sys.modules:
        if find_spec(module) is None:  # a worker elsewhere has it on its paths already
            sys.path.append(str(copies_of_files()))
            importlib.invalidate_caches()
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise UsageError(f"{name}: a file that is not known here; name it, -m FILE.py")
        content = Path(spec.origin).read_bytes()
        if not hashlib.sha256(content).hexdigest().startswith(name.partition("@")[2]):
            raise UsageError(f"{name}: {spec.origin} was changed; delete it, name the file again")
    try:
        imported = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{name}: {_why(error, module)}; mend it") from None
    try:
        return getattr(imported, attribute)
    except AttributeError:
        raise UsageError(
            f"{name}: defines no {attribute}; end it with {attribute} = ..., as ours do"
        ) from None


def _why(error: BaseException, module: str = "") -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if module in frame.filename]
    if isinstance(error, SyntaxError):
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if module and lines else ""
    return f"{where}{type(error).__name__}: {' '.join(str(error).split())}"
