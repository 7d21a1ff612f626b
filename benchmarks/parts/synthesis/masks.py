"""Masks of different shapes and sizes, rotated and combined: outlines first, pixels last.

An outline is a closed polygon, (points, 2) float64 as x and y. Every shape is scaled to an exact
area, rotated and filled in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Outline = NDArray[np.float64]

ROUND = 64  # points of a curved outline
FINEST, SUBPIXELS = 1024, 4  # filled at up to 4 times the resolution, up to a side of 1024
COVERED = 0.35  # share from which a pixel is inside; below a half, so that thin strokes hold
FAINTEST = 26  # of 255, at a soft edge


def rectangle(random: Generator) -> Outline:
    """A rectangle; one side is at most four times the other."""
    aspect = 2.0 ** random.uniform(-1, 1)
    x, y = aspect, 1 / aspect
    return np.array([(-x, -y), (x, -y), (x, y), (-x, y)])


def ellipse(random: Generator) -> Outline:
    """An ellipse; one axis is at most four times the other."""
    aspect = 2.0 ** random.uniform(-1, 1)
    x, y = _round(np.ones(ROUND)).T
    return np.stack([x * aspect, y / aspect], axis=1)


def polygon(random: Generator) -> Outline:
    """A star-shaped polygon of three to eight corners."""
    corners = random.integers(3, 9)
    angles = 2 * np.pi * (np.arange(corners) + random.uniform(-0.35, 0.35, corners)) / corners
    reach = random.uniform(0.45, 1, corners)
    return np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)


def scratch(random: Generator) -> Outline:
    """A thin bent stroke with pointed ends, 15 to 50 times as long as it is wide."""
    along = np.linspace(-1, 1, ROUND // 2)
    bend, wave = random.uniform(-0.5, 0.5), random.uniform(-0.12, 0.12)
    across = bend * along**2 + wave * np.sin(random.uniform(2, 5) * along + random.uniform(0, 6))
    half = (1 - along**4 + 0.2) / random.uniform(15, 50)
    upper = np.stack([along, across + half], axis=1)
    lower = np.stack([along, across - half], axis=1)
    return np.concatenate([upper, lower[::-1]])


def blob(random: Generator) -> Outline:
    """A smooth random outline."""
    angles = np.linspace(0, 2 * np.pi, ROUND, endpoint=False)
    reach = np.ones(ROUND)
    for lobes in range(2, 7):
        swing = random.uniform(0, 0.7) / lobes
        reach += swing * np.cos(lobes * angles + random.uniform(0, 2 * np.pi))
    return _round(reach.clip(0.2))


SHAPES: dict[str, Callable[[Generator], Outline]] = {
    shape.__name__: shape for shape in (blob, ellipse, polygon, rectangle, scratch)
}
# The largest share of the image that a shape can fill: a larger scratch would not fit into it.
LARGEST = {"scratch": 0.02}


def place_outline(
    random: Generator, kind: str, area: float, extent: float, centre: Sequence[float] = (0.0, 0.0)
) -> Outline:
    """An outline of that kind and area in pixels, rotated at random around its centre.

    It is made smaller where it would be longer than `extent` pixels.
    """
    outline = SHAPES[kind](random)
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    outline = (outline - outline.mean(axis=0)) @ turn * np.sqrt(area / _area(outline))
    longest = np.ptp(outline, axis=0).max()
    scaled: Outline = outline * min(1.0, extent / longest) + np.asarray(centre)
    return scaled


def thickness(outlines: Sequence[Outline]) -> float:
    """Twice area over circumference, of the thinnest: a circle's radius, a stroke's width."""

    def width(outline: Outline) -> float:
        steps = outline - np.roll(outline, 1, axis=0)
        return float(2 * _area(outline) / np.hypot(*steps.T).sum())

    return min(width(outline) for outline in outlines)


def coverage(outlines: Sequence[Outline], feather: float = 0.0) -> NDArray[np.uint8]:
    """The union of the outlines, filled, in the smallest box that holds it: (h, w), 0 to 255.

    The edge is hard, or rises over `feather` pixels inwards, so that the area is the same. A soft
    edge starts at `FAINTEST`, so that the change of a marked pixel does not round to nothing.
    """
    margin = int(np.ceil(feather)) + 2
    points = np.concatenate(outlines)
    origin = np.floor(points.min(axis=0)) - margin
    width, height = (int(side) + margin + 1 for side in np.ceil(points.max(axis=0) - origin))
    fine = min(SUBPIXELS, max(1, FINEST // max(width, height)))
    image = Image.new("L", (width * fine, height * fine))
    draw = ImageDraw.Draw(image)
    for outline in outlines:
        draw.polygon([(x, y) for x, y in ((outline - origin) * fine).tolist()], fill=255)
    filled = np.asarray(image.reduce(fine)) >= 255 * COVERED
    alpha = filled.astype(np.uint8) * np.uint8(255)
    if feather > 0:
        soft = Image.fromarray(alpha).filter(ImageFilter.BoxBlur(feather))
        share = np.asarray(soft, dtype=np.float32)
        share = 2 * share / max(float(share.max()), 1.0) - 1  # half of the blur lies outside
        alpha = np.where(filled, (255 * share).round().clip(FAINTEST, 255), 0).astype(np.uint8)
    left, top, right, bottom = Image.fromarray(alpha).getbbox() or (0, 0, 0, 0)
    return alpha[top:bottom, left:right]


def _round(reach: NDArray[np.float64]) -> Outline:
    angles = np.linspace(0, 2 * np.pi, len(reach), endpoint=False)
    return np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)


def _area(outline: Outline) -> float:
    x, y = outline.T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
