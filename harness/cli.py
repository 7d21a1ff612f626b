"""The command line, built from `harness/commands`: a file there is a command.

Command files import what is heavy inside their function: `--help` loads no torch.
"""

from __future__ import annotations

import errno
import inspect
import io
import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo

from harness.plan.addresses import named
from harness.plan.folders import at_home
from harness.plan.options import SELDOM, Address, NamedFile, address_or_path, is_address
from harness.plan.registry import (
    Stopped,
    UsageError,
    did_you_mean,
    first_line,
    from_file,
    load,
    names,
)
from harness.work.ending import exit_code, heeded
from kernels._formats import VARIABLES as OF_TORCH

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
EXIT_BUG, EXIT_USAGE, EXIT_PARTIAL = 1, 2, 3
AGAIN = "stopped; what was finished is kept: run the same command again to go on"
WAS_ADDRESS = re.compile(r"(s3|gs|gcs|abfss?|hdfs|viewfs|https?):/[^/]")
"""A URI that went through a path, which takes a slash from it."""
VARIABLES = {"LAFITE_KERNELS": ("reference",), "LAFITE_ACCELERATE": ("0", "1"), **OF_TORCH}
"""Variables, with the values that they take; empty is as if they were not set."""
REMEDIES = {
    errno.ENOSPC: "make room, then ",
    errno.EDQUOT: "make room, then ",
    errno.EACCES: "allow it, or name another folder, then ",
    errno.EPERM: "allow it, or name another folder, then ",
    errno.EROFS: "name a folder that can be written, then ",
}
"""The first advice for each way in which the system refuses a file."""


def build() -> typer.Typer:
    """The command line; the exit code is EXIT_PARTIAL where a command returns False."""
    app = typer.Typer(
        no_args_is_help=True,
        invoke_without_command=True,
        pretty_exceptions_enable=False,
        help="Multi-class visual anomaly detection, compared fairly.",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_front)
    for name in names("commands"):
        app.command(name=name.replace("_", "-"))(flat(load("commands", name)))
    return app


def _front(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Multi-class visual anomaly detection, compared fairly.

    Begin with: lafite-bench run shapes --preset smoke --seeds 1, then: lafite-bench report
    """
    if version:
        typer.echo(f"lafite-bench {metadata.version('lafite-bench')}")
        raise typer.Exit


def flat(command: Callable[..., Any]) -> Callable[..., None]:
    """The command with an option for each field of the dataclasses that it takes."""
    hints = get_type_hints(command, include_extras=True)
    requests: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}

    def called(**given: Any) -> None:
        try:
            given = {name: here(value) for name, value in given.items()}
            for name, kind in requests.items():
                of_kind = {option.name: given.pop(option.name) for option in fields(kind)}
                given[name] = kind(**of_kind)
            complete = command(**given)
        except KeyboardInterrupt as stop:  # which typer would call an abortion
            _leave(stop)
        if complete is False:
            raise typer.Exit(EXIT_PARTIAL)

    options: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if kind := requests.get(parameter.name):
            hints_of_kind = get_type_hints(kind, include_extras=True)
            options += [_option(f.name, hints_of_kind[f.name], _default(f)) for f in fields(kind)]
        else:
            options.append(_option(parameter.name, hints[parameter.name], parameter.default))
    options.sort(key=lambda option: _panel(option) == SELDOM)
    called.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    called.__doc__ = command.__doc__
    return called


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """An option, for which help has a word for what it takes, not the type in Python."""
    if get_origin(annotation) is Annotated:
        kind, declared = get_args(annotation)[:2]
        known = [METAVARS[each] for each in get_args(kind) or (kind,) if each in METAVARS]
        if known and declared.metavar is None and not isinstance(declared, ArgumentInfo):
            declared.metavar = known[0]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=default, annotation=annotation)


def _default(option: Field[Any]) -> Any:
    if option.default_factory is not MISSING:
        return option.default_factory()
    return inspect.Parameter.empty if option.default is MISSING else option.default


def _panel(option: inspect.Parameter) -> str | None:
    [declared] = getattr(option.annotation, "__metadata__", (None,))
    return getattr(declared, "rich_help_panel", None)


def _leave(stop: KeyboardInterrupt) -> NoReturn:
    """Say what is kept and how to go on, and end: all that was begun is ended by now, and the
    interpreter's own end takes seconds, in which another signal would make a stack."""
    print(f"lafite-bench: {stop if isinstance(stop, Stopped) else AGAIN}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code())


def here(value: Any, *, listed: bool = False) -> Any:
    """A word of the command line as this machine has it.

    A path that begins with ~ as a shell gives it, which leaves it in --out=~/runs and quotes; of a
    URI, be it that of a list's METHOD.weights=URI, the copy on this machine; of a file of the
    user's the name of what it defines. UsageError where there is no such thing.
    """
    if isinstance(value, list):
        return [here(part, listed=True) for part in value]
    if isinstance(value, NamedFile):
        return from_file(value.kind, Path(at_home(value.path)))
    if isinstance(value, Path) and WAS_ADDRESS.match(str(value)):
        uri = str(value).replace(":/", "://", 1)
        raise UsageError(f"{uri}: is not on this machine; copy it here and name the copy")
    if isinstance(value, Address):
        from harness.work.copies import copy_of

        return copy_of(value)
    before, equals, after = str(value).rpartition("=")
    if listed and is_address(after):
        return f"{before}{equals}{here(address_or_path('reads data', after))}"
    return type(value)(at_home(value)) if isinstance(value, (str, Path)) else value


def main() -> None:
    """The console script: bad input ends in one line a problem and exit code 2."""
    with heeded():
        try:
            _main()
        except KeyboardInterrupt as stop:
            _leave(stop)


def _main() -> None:
    from benchmarks.base import DataError
    from results.files import ResultsError

    if sys.getfilesystemencoding() != "utf-8":
        # Begin again, and Ray's workers with us, so that names of files are what they are
        # elsewhere. Streams keep the encoding of the terminal.
        os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names may be in no encoding at all
    try:
        _check_environment()
        build()()
        return
    except (UsageError, DataError, ResultsError) as error:
        code, said = EXIT_USAGE, str(error)
    except OSError as error:
        # A full, closed or vanished disk is no bug; what was finished before is whole.
        first = REMEDIES.get(error.errno or 0, "")
        code, said = EXIT_USAGE, f"{error}; {first}run the same command again to go on"
    except Exception as error:
        code, said = EXIT_BUG, f"a bug: {_in_file(error)}"
    print(f"lafite-bench: {named(said)}", file=sys.stderr)
    sys.exit(code)


def _check_environment() -> None:
    """UsageError for a folder that is gone, and for odd values of our variables."""
    try:
        Path.cwd()
    except OSError:
        raise UsageError("the current folder is gone; cd to another one") from None
    for name, values in VARIABLES.items():
        value = os.environ.get(name) or values[0]
        if value.lower() not in map(str.lower, values):
            raise UsageError(f"{name}={value}: {did_you_mean(value, values)}")


def _in_file(error: Exception) -> str:
    """The error in one line, and where its traceback is kept."""
    text = f"{shlex.join(sys.argv)}\n{''.join(traceback.format_exception(error))}"
    with tempfile.NamedTemporaryFile("w", prefix="lafite-bench-", suffix=".txt", delete=False) as f:
        f.write(text)
    return f"{first_line(error, kind=True)}; please report it with {f.name}"
