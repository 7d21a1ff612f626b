"""`lafite-bench list`: what there is, and what is known of one of it."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from harness.plan.options import METHOD
from harness.plan.registry import (
    KINDS,
    UsageError,
    did_you_mean,
    installed,
    is_known,
    names,
    package_of,
)

IMAGES = 1000
KNOWN = ("methods", "benchmarks", "kernels")


def command(
    name: Annotated[
        str | None, typer.Argument(help="A method or data set, to see what it has.", **METHOD)
    ] = None,
) -> None:
    """Print what there is; of a method its settings and presets, of a data set its categories.

    Example: lafite-bench list lafite
    """
    if name is None:
        _everything()
    elif is_known("methods", name):
        _method(name)
    elif is_known("benchmarks", name):
        _benchmark(name)
    else:
        known = [*names("methods"), *names("benchmarks")]
        raise UsageError(f"list {name}: {did_you_mean(name, known)}")


def _everything() -> None:
    from results.metrics import METRICS

    known = {kind: names(kind) for kind in KNOWN}
    for kind, words in (known | {"metrics": list(METRICS)}).items():
        typer.echo(f"{kind}: {', '.join(words)}")
        for name, entry in installed(kind).items() if kind in KINDS else ():
            typer.echo(f"  {name} ({package_of(entry)})")


def _method(name: str) -> None:
    """Its fields by preset, those of the Config first, what is searched, and what it costs."""
    import inspect

    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    from harness.plan.overrides import field_types
    from harness.plan.plan import declared

    said = declared(name)
    about = inspect.getdoc(inspect.getmodule(said.method)) or name
    typer.echo(f"{about.splitlines()[0]}\n")
    for kind, what in (("config", "learned"), ("knobs", "changed afterwards")):
        presets = {preset: getattr(settings, kind) for preset, settings in said.presets.items()}
        table = Table(box=SIMPLE, title=f"{what}: --set {name}.FIELD=VALUE", title_justify="left")
        for column in ("field", "takes", *presets):
            table.add_column(column, overflow="fold", no_wrap=column == "field")
        for field, takes in field_types(type(next(iter(presets.values())))).items():
            first, *others = (_text(getattr(settings, field)) for settings in presets.values())
            changed = ("" if value == first else value for value in others)
            table.add_row(field, _words(takes), first, *changed)
        Console().print(table)
    for preset, (config, knobs) in said.presets.items():
        cost = said.cost(config, IMAGES)
        typer.echo(
            f"{preset}: {IMAGES:,} images take {cost.train_flops / 1e15:,.3g} PFLOP to learn and "
            f"a bank of {cost.bank_bytes / 1e9:.2f} GB"
        )
        for stage in said.stages(config, knobs):
            for knob, values in stage.grid.items():
                typer.echo(f"  tune tries {knob} = {', '.join(map(str, values))}")


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _words(takes: Any) -> str:
    """A field's type as a user writes its values."""
    if get_origin(takes) is Literal:
        return "|".join(get_args(takes))
    if isinstance(takes, UnionType):
        return "|".join(map(_words, get_args(takes)))
    if get_origin(takes) is tuple:
        return f"{_words(get_args(takes)[0])},..."
    words = {NoneType: "none", str: "text", bool: "true|false"}
    return words.get(takes) or str(takes.__name__)


def _benchmark(name: str) -> None:
    """Its source, licence and published categories, and whether it is here."""
    from benchmarks.base import DataError
    from harness.plan.cell import open_benchmark

    try:
        opened = open_benchmark(name, None)
    except DataError as error:
        typer.echo(str(error))
        return
    typer.echo(f"{name}: {opened.source}\nlicence: {opened.licence}")
    typer.echo(f"here: {opened.location or 'rendered'}")
    for category in opened.categories():
        train, good, defective = opened._counts(category)
        typer.echo(
            f"  {category}: {train} to train, {good} normal and {defective} defective to test"
        )
    for category in opened.absent:
        typer.echo(f"  {category}: not here")
