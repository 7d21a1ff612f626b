"""The options of the command line, each declared once, and the requests that are handed on whole.

Each field of `Selection`, `SearchOptions` and `Resources` is an option of every command that takes
the dataclass: a new option is a new field. Options that several commands take by themselves are
aliases; those of one command stand in its own file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_type_hints
from urllib.parse import unquote, urlsplit

import typer

from harness.plan.registry import names

MODES = ("multi-class", "separate")
"""One model a data set, or one a category."""
PRESETS = ("paper", "ader", "quick", "smoke")
DEFAULT_OUT = Path("results/runs")

Say = Callable[[str], None]
"""Told a line for the user."""


def first_few(lines: Sequence[str], most: int) -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"... and {more} more"] if more > 0 else [])]


selecting = partial(typer.Option, rich_help_panel="What is run")
searching = partial(typer.Option, rich_help_panel="How knobs are searched")
working = partial(typer.Option, rich_help_panel="With what it runs")
keeping = partial(typer.Option, rich_help_panel="Results")
SELDOM = "Seldom needed"
"""The panel that comes last."""
seldom = partial(typer.Option, rich_help_panel=SELDOM)


def completing(words: Sequence[str] | str) -> Callable[[str], list[str]]:
    """A shell's offers for a word that is being typed: of these, or plug-ins of this kind."""

    def matching(incomplete: str) -> list[str]:
        known = names(words) if isinstance(words, str) else words
        return [word for word in known if word.startswith(incomplete)]

    return matching


class Address(NamedTuple):
    """The URI of a folder in an object store, and what a command does there."""

    uri: str
    use: Literal["writes results", "reads results", "reads data"]


def address_or_path(use: Any, value: str | Path) -> Any:
    """An Address, or the path of a folder on this machine, which a file:// URI is as well."""
    text = str(value)
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    return Address(text, use) if is_address(text) else Path(text)


def is_address(text: str) -> bool:
    """Whether this is the URI of a folder, and no path."""
    return re.match(r"[A-Za-z][\w+.-]*://", text) is not None


class NamedFile(NamedTuple):
    """A file of the user's that defines a method or a data set."""

    kind: str
    path: Path


def file_or_name(kind: str, text: str) -> Any:
    """A NamedFile, or the name of what there is."""
    return NamedFile(kind, Path(text)) if text.endswith(".py") else text


DATA_SET = {
    "metavar": "DATA",
    "parser": partial(file_or_name, "benchmarks"),
    "autocompletion": completing("benchmarks"),
}
METHOD = {
    "metavar": "NAME|FILE.py",
    "parser": partial(file_or_name, "methods"),
    "autocompletion": completing("methods"),
}
Benchmark = Annotated[
    str, typer.Argument(help="A data set, a folder, a table or a FILE.py.", **DATA_SET)
]
Method = Annotated[str, selecting("--method", "-m", help="One method.", **METHOD)]
DataRoot = Annotated[
    Path | None,
    selecting(
        "--data",
        envvar="LAFITE_BENCH_DATA",
        metavar="DIR|URI",
        parser=partial(address_or_path, "reads data"),
        help="Where data sets lie.",
    ),
]
SELECTORS = ("anchored", "paper")
CHEAP = "cheap"
PREFERENCES = ("near", CHEAP)
ANOMALIES = 3
"""Made anomalies of each held-out image; of nine families each is then on a third of the images."""
CATEGORIES = selecting("--category", help="Default: all present.")
Seeds = Annotated[int, selecting(help="How many seeds; they are counted from 0.")]
Preset = Annotated[
    str,
    selecting(
        metavar="|".join(PRESETS),
        help="As published; as ADer runs it; minutes on a CPU; seconds, for tests.",
        autocompletion=completing(PRESETS),
    ),
]
Share = Annotated[float, searching(help="Share of the training images held out.")]
Anomalies = Annotated[int, searching(min=1, help="Pseudo-anomalous images of each held-out one.")]
Results = Annotated[
    Path,
    typer.Argument(
        metavar="DIR|URI",
        parser=partial(address_or_path, "reads results"),
        help="Folder of results.",
    ),
]
Metrics = Annotated[
    list[str] | None,
    keeping(
        "--metric",
        help="The metric that is tested, image_auroc by default; repeat it for more.",
    ),
]
Out = Annotated[
    Path,
    keeping(
        metavar="DIR|URI",
        parser=partial(address_or_path, "writes results"),
        help="Folder of results, or s3://BUCKET/FOLDER and the like.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The cells that are asked for: data sets, methods, seeds and settings."""

    benchmarks: Annotated[
        list[str],
        typer.Argument(
            help="Data sets by name, folders in the MVTec layout, tables of images, FILE.py.",
            **DATA_SET,
        ),
    ]
    methods: Annotated[
        list[str],
        selecting("--method", "-m", help="Default: all of ours.", **METHOD),
    ] = field(default_factory=list)
    seeds: Seeds = 5
    preset: Preset = "paper"
    mode: Annotated[
        str,
        selecting(
            metavar="|".join(MODES),
            help="One model a data set, or one a category.",
            autocompletion=completing(MODES),
        ),
    ] = "multi-class"
    categories: Annotated[list[str], CATEGORIES] = field(default_factory=list)
    limit: Annotated[
        int | None,
        selecting(min=2, help="At most so many images of each category and kind: a first look."),
    ] = None
    calibrate: Annotated[
        float | None,
        selecting(min=0, max=0.9, help="Reserve this share of normal images to set thresholds."),
    ] = None
    overrides: Annotated[
        list[str], selecting("--set", help="METHOD.FIELD=VALUE, e.g. lafite.k=5.")
    ] = field(default_factory=list)
    profile: Annotated[
        str,
        seldom(
            "--metric-profile",
            help="default, or metrics as uniad, patchcore, ader or dinomaly take them.",
        ),
    ] = "default"
    root: DataRoot = None
    trust_masks: Annotated[
        bool, seldom("--trust-masks", help="Take masks that seem inverted or soft as they are.")
    ] = False


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How knobs are searched, and on what."""

    space: Annotated[
        list[str], searching(help="METHOD.KNOB=1,3,5 or start:stop:step, not its own grid.")
    ] = field(default_factory=list)
    selector: Annotated[
        str,
        searching(
            metavar="|".join(SELECTORS),
            help="What families of anomalies agree is better, or the highest mean, as published.",
        ),
    ] = "anchored"
    prefer: Annotated[
        str,
        searching(
            metavar="|".join(PREFERENCES),
            help="Of settings that can't be told apart: near to the preset's, or the cheapest.",
        ),
    ] = "near"
    share: Share = 0.1
    anomalies: Anomalies = ANOMALIES
    folds: Annotated[
        int | None,
        seldom(min=1, help="Shares held out in turn; default: all if learning is cheap, or 1."),
    ] = None
    leave_out: Annotated[
        bool,
        seldom("--leave-out", help="Two more trainings, each without half of the categories."),
    ] = False
    joint: Annotated[bool, searching("--joint", help="All combinations, not stage by stage.")] = (
        False
    )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """With what it runs; nothing in it changes a result."""

    address: Annotated[
        str | None, working(help="A Ray cluster; default RAY_ADDRESS, else this machine.")
    ] = None
    workers: Annotated[int, working(min=1, help="Workers that fit one model.")] = 1
    cpus: Annotated[int, working("--cpus-per-worker", min=1, help="CPU cores of each.")] = 1
    gpus: Annotated[
        float | None,
        working("--gpus-per-worker", min=0, help="Default: 1 where the cluster has GPUs."),
    ] = None
    checkpoint_every: Annotated[int, seldom(min=1, help="Epochs between checkpoints.")] = 10
    patience: Annotated[
        int, seldom(min=1, help="Seconds that workers wait for one that is silent.")
    ] = 600
    cache: Annotated[
        bool, seldom("--cache/--no-cache", help="Keep frozen features for later runs.")
    ] = True


OF_ITS_OWN = ("benchmarks", "methods", "seeds")
"""Fields of a selection that differ between `tune` and `run`, or are given for each row."""


def typed_again(request: Selection) -> list[str]:
    """The words of a command line that ask for the same, where it is not the default.

    For `run` of `tune` and the other way round: all options count but those OF_ITS_OWN.
    """
    hints = get_type_hints(type(request), include_extras=True)
    defaults = type(request)(benchmarks=request.benchmarks)
    words = []
    for name in (name for name in hints if name not in OF_ITS_OWN):
        value, [option] = getattr(request, name), hints[name].__metadata__
        flag = f"--{name}" if option.default is ... else option.default
        if value is True:
            words.append(flag)
        elif value != getattr(defaults, name):
            for part in value if isinstance(value, list) else [value]:
                words += [flag, str(part)]
    return words
