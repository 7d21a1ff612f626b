"""Families of anomalies: what a fragment is made of, how it is cut out, and how strong it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.parts.synthesis.masks import SHAPES
from benchmarks.parts.synthesis.noise import texture

Colours = NDArray[np.uint8]
Levels = tuple[float, float, float]

OPACITY: Levels = (0.25, 0.5, 1.0)
BLENDINGS = ("hard", "feathered", "matched")
LEVELS = (1, 2, 3)
"""Weak, medium and strong."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of anomaly: its layer, masks and blending.

    `fill(random, target, source, strength)` gives the layer, as large as the target, that fragments
    are cut from. `source` is another normal image of the same size, if the family needs one.
    """

    what: str
    fill: Callable[[Generator, Colours, Colours | None, float], Colours]
    levels: Levels = OPACITY
    """The strength of each level: the opacity, unless the layer itself is weak or strong."""
    fades: bool = True
    """Whether the strength is the opacity."""
    needs: Literal["", "same", "other"] = ""
    """The category of the source: that of the target, or another."""
    moves: bool = False
    """Whether a fragment is pasted elsewhere than it was cut."""
    perlin: bool = False
    """Whether masks are Perlin noise above a threshold, not outlines."""
    shapes: tuple[str, ...] = tuple(SHAPES)
    blendings: tuple[str, ...] = BLENDINGS


def _source(random: Generator, target: Colours, source: Colours | None, strength: float) -> Colours:
    assert source is not None, "the family was given no source"
    return source


def _turned(random: Generator, target: Colours, source: Colours | None, strength: float) -> Colours:
    """The source rotated, flipped and rescaled, by half to double; mirrored beyond its edges."""
    content = _source(random, target, source, strength)
    height, width = target.shape[:2]
    zoom, angle = 2.0 ** random.uniform(-1, 1), random.uniform(0, 360)
    if random.random() < 0.5:
        content = content[:, ::-1]
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    scaled = np.asarray(Image.fromarray(content).resize(size, Image.Resampling.BILINEAR))
    reach = math.ceil(math.hypot(height, width))
    margins = [max(0, -(-(reach - side) // 2)) for side in scaled.shape[:2]]
    wide = np.pad(scaled, [(margins[0],) * 2, (margins[1],) * 2, (0, 0)], mode="symmetric")
    turned = Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return np.asarray(turned.crop((left, top, left + width, top + height)))


def _texture(
    random: Generator, target: Colours, source: Colours | None, strength: float
) -> Colours:
    return texture(random, (target.shape[0], target.shape[1]))


def _shifted(
    random: Generator, target: Colours, source: Colours | None, strength: float
) -> Colours:
    """The target in another colour; the channel that moves most moves by `strength` grey levels."""
    direction = random.uniform(-1, 1, 3)
    shift = strength * direction / np.abs(direction).max()
    shifted: Colours = (target + shift.round()).clip(0, 255).astype(np.uint8)
    return shifted


def _flat(random: Generator, target: Colours, source: Colours | None, strength: float) -> Colours:
    """One colour."""
    return np.broadcast_to(random.integers(0, 256, 3, dtype=np.uint8), target.shape).copy()


def _blurred(
    random: Generator, target: Colours, source: Colours | None, strength: float
) -> Colours:
    """The target, its Gaussian `strength` of the shorter side."""
    radius = max(1.0, strength * min(target.shape[:2]))
    return np.asarray(Image.fromarray(target).filter(ImageFilter.GaussianBlur(radius)))


PAPER = "paper"
FAMILIES: MappingProxyType[str, Family] = MappingProxyType(
    {
        "same": Family(
            what="fragments of another image of the category, rotated, flipped and rescaled",
            fill=_turned,
            needs="same",
            moves=True,
        ),
        "other": Family(
            what="fragments of another category", fill=_turned, needs="other", moves=True
        ),
        "texture": Family(what="fragments of procedural textures", fill=_texture),
        "poisson": Family(
            what="fragments of another image, blended by Poisson's equation (NSA)",
            fill=_turned,
            needs="same",
            moves=True,
            blendings=("poisson",),
        ),
        "perlin": Family(
            what="procedural textures under Perlin noise (DRAEM)", fill=_texture, perlin=True
        ),
        "colour": Family(
            what="another colour",
            fill=_shifted,
            levels=(12.0, 30.0, 75.0),
            fades=False,
            blendings=("hard", "feathered"),  # matched, there is nothing left of it
        ),
        "scar": Family(what="thin strokes of one colour", fill=_flat, shapes=("scratch",)),
        "blur": Family(what="blur", fill=_blurred, levels=(0.01, 0.02, 0.04), fades=False),
        "erase": Family(
            what="what is there, smoothed away from its border", fill=_flat, blendings=("poisson",)
        ),
        PAPER: Family(
            what="fragments of another image of the category, as they are (LafitE)",
            fill=_source,
            needs="same",
            moves=True,
        ),
    }
)
MADE = tuple(name for name in FAMILIES if name != PAPER)
"""Families that a search uses, unless it is told to do as the paper does."""
LEFT_OUT = "left-out"
"""The family that is not made: normal images of categories that the model does not learn."""
