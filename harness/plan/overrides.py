"""METHOD.FIELD=VALUE, typed by the field."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from harness.plan.folders import at_home
from harness.plan.registry import OF_FILE, UsageError, did_you_mean

PATHS = ("weights", "textures")
"""Fields of a Config that say where files lie; their bytes count, not the place."""


def parse_overrides(
    overrides: Sequence[str],
    methods: Sequence[str],
    *,
    option: str = "--set",
    example: str = "lafite.k=5",
) -> dict[str, dict[str, str]]:
    """`method.field=value` texts, by method; methods that do not run are refused."""
    values: dict[str, dict[str, str]] = {method: {} for method in methods}
    for text in overrides:
        target, equals, value = text.partition("=")
        method, dot, name = target.partition(".")
        if not (equals and dot and method and name):
            raise UsageError(f"{option} {text}: write METHOD.FIELD=VALUE, e.g. {example}")
        method = _in_full(method, methods)
        if method not in values:
            hint = did_you_mean(method, methods)
            raise UsageError(f"{option} {text}: {method} does not run; {hint}")
        values[method][name] = value
    return values


def _in_full(method: str, methods: Sequence[str]) -> str:
    """The name of a user's file without its content, as the one of that name that runs."""
    found = [name for name in methods if OF_FILE.fullmatch(name) and name.startswith(f"{method}@")]
    return found[0] if len(found) == 1 else method


def with_overrides(method: str, config: Any, knobs: Any, values: dict[str, str]) -> tuple[Any, Any]:
    """Config and Knobs with the user's values, typed by field."""
    kinds = field_types(type(config)) | field_types(type(knobs))
    typed_values = {}
    for name, text in values.items():
        if name not in kinds:
            raise UsageError(f"--set {method}.{name}: no such field; {did_you_mean(name, kinds)}")
        try:
            typed_values[name] = typed(_absolute(text) if name in PATHS else text, kinds[name])
        except ValueError as error:
            raise UsageError(f"--set {method}.{name}={text}: {error}") from None

    def changed(settings: Any) -> Any:
        mine = {n: v for n, v in typed_values.items() if n in field_types(type(settings))}
        return dataclasses.replace(settings, **mine)

    return changed(config), changed(knobs)


def variant_of(values: dict[str, str]) -> str:
    """A name for settings that differ from the preset's, so that no table mixes them with it."""
    return ", ".join(
        f"{name}={Path(text).name if name in PATHS else text}"
        for name, text in sorted(values.items())
        if name != "weights"
    )


def _absolute(text: str) -> str:
    """A path as workers elsewhere must know it; any other word as it is."""
    # An empty path is the current folder to Path, to a user it is none.
    path = Path(at_home(text))
    return str(path.resolve()) if text and path.exists() else text


def field_types(of: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    hints = typing.get_type_hints(of)
    return {field.name: hints[field.name] for field in dataclasses.fields(of)}


def typed(text: str, kind: Any) -> Any:
    """Text to a value of a field's type; ValueError says what the field takes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        kind = next(option for option in arguments if option is not types.NoneType)
        return None if text.lower() == "none" else typed(text, kind)
    if origin is Literal:
        if text not in arguments:
            raise ValueError(f"takes one of {', '.join(arguments)}")
        return text
    if origin is tuple:
        return tuple(typed(part, arguments[0]) for part in text.strip("()").split(",") if part)
    if kind is bool:
        if text.lower() not in {"true", "false"}:
            raise ValueError("takes true or false")
        return text.lower() == "true"
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"takes a value of type {kind.__name__}") from None
