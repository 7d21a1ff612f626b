"""The one manner in which a Config reaches what it decides: views, networks, recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from typing import Any, TypeVar

Built = TypeVar("Built")


def of_config(kind: Callable[..., Built], config: Any, **others: Any) -> Built:
    """`kind` of those fields of a Config that it has parameters for, and of `others`."""
    names = signature(kind).parameters.keys() & {field.name for field in fields(config)}
    return kind(**{name: getattr(config, name) for name in names} | others)
