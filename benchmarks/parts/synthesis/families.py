"""Families of anomalies: what a fragment is made of, how it is cut out, and how strong it is.

Noise is Perlin's; procedural textures are made of it and of regular patterns. Colours are those of
another normal image of the category, so what is made on grey images is grey.
"""

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

Colours = NDArray[np.uint8]
Plane = NDArray[np.floating]
Levels = tuple[float, float, float]

OPACITY: Levels = (0.25, 0.5, 1.0)
BLENDINGS = ("hard", "feathered", "matched")
LEVELS = (1, 2, 3)
"""Weak, medium and strong."""
SCALES = 6
"""Noise has 2^0 to 2^5 cells in a row, and independently in a column."""
FINE, KIND = 256, 16
"""Pixels along a side that colours are taken from, and grey levels of a channel within a kind."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One kind of anomaly: its layer, masks and blending.

    `fill(random, target, source, strength)` gives the layer, as large as the target, that fragments
    are cut from. `source` is another normal image of the same size, or the target if the family
    needs none; it gives the layer, or the colours that the category has.
    """

    what: str
    fill: Callable[[Generator, Colours, Colours, float], Colours]
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


def perlin(random: Generator, shape: tuple[int, int], cells: tuple[int, int]) -> Plane:
    """Perlin noise (H, W), about -1 to 1, of so many cells in a column and in a row."""
    angles = random.uniform(0, 2 * math.pi, (cells[0] + 1, cells[1] + 1)).astype(np.float32)
    down, right = np.cos(angles), np.sin(angles)
    y, x = (np.arange(n, dtype=np.float32) * c / n for n, c in zip(shape, cells, strict=True))
    row, column = y.astype(int)[:, None], x.astype(int)[None]
    y, x = (y % 1)[:, None], (x % 1)[None]

    def ramp(below: int, beside: int) -> Plane:
        corner = row + below, column + beside
        slope: Plane = down[corner] * (y - below) + right[corner] * (x - beside)
        return slope

    left = ramp(0, 0) + _fade(y) * (ramp(1, 0) - ramp(0, 0))
    far = ramp(0, 1) + _fade(y) * (ramp(1, 1) - ramp(0, 1))
    noise: Plane = math.sqrt(2) * (left + _fade(x) * (far - left))
    return noise


def _fade(t: Plane) -> Plane:
    weight: Plane = t**3 * (t * (6 * t - 15) + 10)
    return weight


def any_perlin(random: Generator, shape: tuple[int, int]) -> Plane:
    """Perlin noise of a drawn number of cells."""
    rows, columns = (2**exponent for exponent in random.integers(0, SCALES, 2).tolist())
    return perlin(random, shape, (rows, columns))


def cloud(random: Generator, shape: tuple[int, int]) -> Plane:
    """Noise of several scales, each half as strong as the one before."""
    noise = np.zeros(shape, dtype=np.float32)
    for octave in range(2, SCALES):
        noise += 0.5**octave * perlin(random, shape, (2**octave, 2**octave))
    return noise


def stripes(random: Generator, shape: tuple[int, int]) -> Plane:
    """Parallel waves in a drawn direction, 4 to 40 along the diagonal."""
    angle, waves = random.uniform(0, math.pi), 4 * 10 ** random.uniform()
    y, x = np.ogrid[: shape[0], : shape[1]]
    along = (y * math.sin(angle) + x * math.cos(angle)) / math.hypot(*shape)
    wave: Plane = np.sin(2 * math.pi * (waves * along + random.uniform())).astype(np.float32)
    return wave


def checks(random: Generator, shape: tuple[int, int]) -> Plane:
    """Two crossing waves."""
    return stripes(random, shape) * stripes(random, shape)


PATTERNS: tuple[Callable[[Generator, tuple[int, int]], Plane], ...] = (cloud, stripes, checks)


def _texture(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    """A procedural texture: two colours parted by a pattern, hard or softly, grained."""
    shape = target.shape[0], target.shape[1]
    pattern = PATTERNS[random.integers(len(PATTERNS))](random, shape)
    hardness, grain = random.uniform(2, 20), 25 * random.uniform()
    share = (1 / (1 + np.exp(-hardness * pattern)))[:, :, None]
    first, second = _colours(random, source)
    noise = random.standard_normal((*shape, 1), dtype=np.float32)
    mixed: Plane = share * first + (1 - share) * second + grain * noise
    return mixed.round().clip(0, 255).astype(np.uint8)


def _colours(random: Generator, image: Colours) -> NDArray[np.float32]:
    """Two colours of an image, (2, 3): those that cover little are as likely as those of much."""
    rows, columns = (max(1, side // FINE) for side in image.shape[:2])
    pixels = image[::rows, ::columns].reshape(-1, 3)
    kinds = np.unique(pixels // KIND @ (1, 256, 65536), return_index=True)[1]
    two = random.choice(kinds, 2, replace=len(kinds) < 2)
    return pixels[two].astype(np.float32)


def _source(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    return source


def _turned(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    """The source rotated, flipped and rescaled, by half to double; mirrored beyond its edges."""
    height, width = target.shape[:2]
    zoom, angle = 2.0 ** random.uniform(-1, 1), random.uniform(0, 360)
    if random.random() < 0.5:
        source = source[:, ::-1]
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    scaled = np.asarray(Image.fromarray(source).resize(size, Image.Resampling.BILINEAR))
    reach = math.ceil(math.hypot(height, width))
    margins = [max(0, -(-(reach - side) // 2)) for side in scaled.shape[:2]]
    wide = np.pad(scaled, [(margins[0],) * 2, (margins[1],) * 2, (0, 0)], mode="symmetric")
    turned = Image.fromarray(wide).rotate(angle, Image.Resampling.BILINEAR)
    left, top = (turned.width - width) // 2, (turned.height - height) // 2
    return np.asarray(turned.crop((left, top, left + width, top + height)))


def _shifted(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    """The target, moved in the direction of two colours of the source, on grey in brightness.

    The channel that moves most moves by `strength` grey levels.
    """
    first, second = _colours(random, source)
    direction = second - first
    if not direction.any():
        direction = np.full(3, random.choice((-1.0, 1.0)), np.float32)
    shift = strength * direction / np.abs(direction).max()
    shifted: Colours = (target + shift.round()).clip(0, 255).astype(np.uint8)
    return shifted


def _flat(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    """One colour of the source."""
    colour = _colours(random, source)[0]
    return np.broadcast_to(colour.astype(np.uint8), target.shape).copy()


def _empty(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
    return np.zeros_like(target)


def _blurred(random: Generator, target: Colours, source: Colours, strength: float) -> Colours:
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
        "texture": Family(what="fragments of procedural textures", fill=_texture, needs="same"),
        "poisson": Family(
            what="fragments of another image, blended by Poisson's equation (NSA)",
            fill=_turned,
            needs="same",
            moves=True,
            blendings=("poisson",),
        ),
        "perlin": Family(
            what="procedural textures under Perlin noise (DRAEM)",
            fill=_texture,
            needs="same",
            perlin=True,
        ),
        "colour": Family(
            what="another colour, on grey images another brightness",
            fill=_shifted,
            needs="same",
            levels=(12.0, 30.0, 75.0),
            fades=False,
            blendings=("hard", "feathered"),  # matched, there is nothing left of it
        ),
        "scar": Family(
            what="thin strokes of one colour", fill=_flat, needs="same", shapes=("scratch",)
        ),
        "blur": Family(what="blur", fill=_blurred, levels=(0.01, 0.02, 0.04), fades=False),
        "erase": Family(
            what="what is there, smoothed away from its border", fill=_empty, blendings=("poisson",)
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
