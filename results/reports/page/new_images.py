"""Images that a trained model scored, as one HTML file: pictures, maps, verdicts, highest first.

`new_images.html` is the template; it needs neither a script nor a network.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from results.reports.numbers import counted


class Drawn(NamedTuple):
    """An image, and its map with opacity, both as WebP; in the page in base64."""

    image: Any
    map: Any


def new_images(
    model: str, rows: Sequence[Mapping[str, Any]], drawn: Mapping[str, Drawn], seen: float
) -> str:
    """The page. Rows have `image` and `score`, and may have `p_value` and `verdict`.

    `drawn` are the pictures to show, by `image`; their maps cover the middle of them, `seen` of
    each side.
    """
    images = [
        {"p_value": None, "verdict": None, **row, "number": number, "drawn": None}
        for number, row in enumerate(sorted(rows, key=lambda row: -row["score"]))
    ]
    for image in images:
        if files_of := drawn.get(image["image"]):
            image["drawn"] = Drawn(*(b64encode(file).decode() for file in files_of))
    alarms = sum(image["verdict"] == "alarm" for image in images)
    judged = any(image["verdict"] for image in images)
    environment = Environment(
        loader=PackageLoader("results.reports.page", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("new_images.html").render(
        heading=counted(len(images), "image") + (f", {counted(alarms, 'alarm')}" if judged else ""),
        model=model,
        images=images,
        drawn=len(drawn),
        calibrated=any(image["p_value"] is not None for image in images),
        judged=judged,
        edge=50 * (1 - seen),
        span=100 * seen,
        style=Markup(files("results.reports.page").joinpath("report.css").read_text("utf-8")),
    )
