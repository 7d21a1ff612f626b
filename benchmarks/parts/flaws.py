"""Defects painted on a rendered product.

A flaw takes a generator, the colours (H, W, 3), the body (H, W) bool and the background's colour
(3,). It returns alpha (H, W), the share of a pixel that it covers, 0 off the body; and its paint,
which broadcasts against the colours.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.float64]
Body = NDArray[np.bool_]
Painted = tuple[Plane, Plane]  # alpha and paint
Flaw = Callable[[Generator, Plane, Body, Plane], Painted]


def scratch(random: Generator, colours: Plane, body: Body, background: Plane) -> Painted:
    """A thin bent line; on a dark product it is lighter, else lighter or darker."""
    y, x = _from_a_body_pixel(random, body)
    angle, bend = random.uniform(0, np.pi), random.uniform(-0.02, 0.02)
    along, across = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    length, width = random.uniform(12, 22), random.uniform(0.7, 1.2)
    distance = np.maximum(np.abs(across - bend * along**2) - width, np.abs(along) - length)
    step = random.uniform(0.2, 0.3)
    lighter = colours[body].mean() < 0.45 or random.random() < 0.5
    paint = np.clip(colours + (step if lighter else -step), 0, 1)
    return _cover(-distance, body), paint


def blot(random: Generator, colours: Plane, body: Body, background: Plane) -> Painted:
    """A small dark spot of irregular outline."""
    alpha = _cover(_lobed(random, body, random.uniform(3, 6)), body)
    return alpha, colours * random.uniform(0.5, 0.7)


def stain(random: Generator, colours: Plane, body: Body, background: Plane) -> Painted:
    """A wide soft shift of colour."""
    radius = random.uniform(9, 14)
    alpha = _cover(_lobed(random, body, radius) / (0.5 * radius), body)
    shift = random.permutation([random.uniform(0.09, 0.16), 0.0, -random.uniform(0.09, 0.16)])
    return alpha, np.clip(colours + shift, 0, 1)


def missing(random: Generator, colours: Plane, body: Body, background: Plane) -> Painted:
    """A piece broken out, so that the background shows."""
    alpha = _cover(_lobed(random, body, random.uniform(5, 8)), body)
    return alpha, background


def _from_a_body_pixel(random: Generator, body: Body) -> tuple[Plane, Plane]:
    """Pixel coordinates y and x around one pixel of the body."""
    row, column = np.argwhere(body)[random.integers(body.sum())]
    y, x = np.indices(body.shape, dtype=np.float64)
    return y - row, x - column


def _lobed(random: Generator, body: Body, radius: float) -> Plane:
    """Signed distance in pixels, positive inside, of an irregular round outline."""
    y, x = _from_a_body_pixel(random, body)
    angle = np.arctan2(y, x)
    outline = np.full(body.shape, radius)
    for lobes in (2, 3, 5):
        outline += radius * random.uniform(0, 0.15) * np.cos(lobes * angle + random.uniform(0, 6.3))
    return outline - np.hypot(y, x)


def _cover(inside: Plane, body: Body) -> Plane:
    """Alpha that starts at 0.4 on the edge, so that every pixel of the mask is visibly changed."""
    return np.where(body & (inside > 0), (0.4 + inside).clip(0, 1), 0.0)


FLAWS: dict[str, Flaw] = {"blot": blot, "missing": missing, "scratch": scratch, "stain": stain}
