"""Templates of this folder, filled: what a name holds is text, and the style is written in."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def written(name: str) -> str:
    """The content of a file of this folder."""
    return files("results.reports.page").joinpath(name).read_text("utf-8")


def filled(name: str, context: dict[str, Any]) -> str:
    """A template with its context and the style of reports."""
    environment = Environment(
        loader=PackageLoader("results.reports.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(**context, style=Markup(written("report.css")))
