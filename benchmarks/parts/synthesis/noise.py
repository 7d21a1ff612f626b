"""Perlin noise, and procedural textures made of it and of regular patterns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

SCALES = 6
"""Noise has 2^0 to 2^5 cells in a row, and independently in a column."""

Plane = NDArray[np.floating]


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
    """Perlin's weight 6 t^5 - 15 t^4 + 10 t^3."""
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


def texture(random: Generator, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """A procedural texture (H, W, 3): two colours parted by a pattern, hard or softly, grained."""
    pattern = PATTERNS[random.integers(len(PATTERNS))](random, shape)
    hardness, grain = random.uniform(2, 20), 25 * random.uniform()
    share = (1 / (1 + np.exp(-hardness * pattern)))[:, :, None]
    first, second = random.uniform(0, 255, (2, 3)).astype(np.float32)
    noise = random.standard_normal((*shape, 3), dtype=np.float32)
    mixed: Plane = share * first + (1 - share) * second + grain * noise
    return mixed.round().clip(0, 255).astype(np.uint8)
