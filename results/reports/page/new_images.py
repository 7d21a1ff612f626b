"""Images that a trained model scored, as one HTML file: pictures, maps, verdicts, highest first.

`new_images.html` is the template; it needs neither a script nor a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from results.reports.numbers import counted
from results.reports.page.template import filled


class Drawn(NamedTuple):
    """An image, and its map with opacity, both as WebP in base64."""

    image: str
    map: str


def new_images(
    model: str, rows: Sequence[Mapping[str, Any]], drawn: Mapping[str, Drawn], seen: float
) -> str:
    """The page. Rows have `image` and `score`, and may have `p_value` and `verdict`.

    `drawn` are the pictures to show, by `image`; their maps cover the middle of them, `seen` of
    each side.
    """
    rest = {"p_value": None, "verdict": None}
    images = [
        rest | {"drawn": drawn.get(row["image"]), "number": number} | dict(row)
        for number, row in enumerate(sorted(rows, key=lambda row: -row["score"]))
    ]
    heading = counted(len(images), "image")
    if judged := any(image["verdict"] for image in images):
        alarms = sum(image["verdict"] == "alarm" for image in images)
        heading += f", {counted(alarms, 'alarm')}"
    context = {
        "heading": heading,
        "model": model,
        "images": images,
        "drawn": len(drawn),
        "calibrated": any(image["p_value"] is not None for image in images),
        "judged": judged,
        "edge": 50 * (1 - seen),
        "span": 100 * seen,
    }
    return filled("new_images.html", context)
