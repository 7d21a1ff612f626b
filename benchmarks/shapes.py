"""Made on the fly: four clearly different products, four kinds of defect, exact masks.

For tests, CI and a first try without any download. The key of an image determines all of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.base import Benchmark, Counts, Sample

SIZE = 128
RENDER_VERSION = 1  # raise it whenever a pixel changes: it is what the fingerprint sees
TRAIN, GOOD, PER_FLAW = 24, 8, 3

Plane = NDArray[np.float64]
Mask = NDArray[np.bool_]
Painted = tuple[Plane, Plane]


class Scene(NamedTuple):
    """A product without light and noise: colours (H, W, 3) in [0, 1] and where it is."""

    colours: Plane
    background: Plane  # (3,)
    body: Mask


class Shapes(Benchmark):
    """The rendered data set; images are 128 x 128, masks hold every pixel the flaw changed."""

    name = "shapes"
    licence = "Apache-2.0, as this code"
    source = "rendered by benchmarks/shapes.py"

    def __init__(self) -> None:
        self.published = {name: Counts(TRAIN, GOOD, PER_FLAW * len(FLAWS)) for name in PRODUCTS}

    def categories(self) -> tuple[str, ...]:
        return tuple(sorted(PRODUCTS))

    def read_image(self, sample: Sample) -> NDArray[np.uint8]:
        return render(sample)[0]

    def read_mask(self, sample: Sample) -> Mask:
        return render(sample)[1]

    def content(self, sample: Sample) -> Iterator[bytes]:
        yield f"{RENDER_VERSION}/{sample.key}".encode()

    def _list(self, split: str, category: str) -> list[Sample]:
        counts = {"good": TRAIN} if split == "train" else {"good": GOOD}
        if split == "test":
            counts |= dict.fromkeys(FLAWS, PER_FLAW)
        return [
            Sample(f"{category}/{split}/{defect}/{number:03d}", category, defect, None)
            for defect, count in counts.items()
            for number in range(count)
        ]


def render(sample: Sample) -> tuple[NDArray[np.uint8], Mask]:
    """The image (H, W, 3) uint8 and its mask (H, W) bool, from the sample's key alone.

    Product, flaw and noise draw from generators of their own: the same key without its flaw gives
    the same image outside the mask.
    """
    scene = PRODUCTS[sample.category](_generator(sample, "product"))
    colours, mask = scene.colours, np.zeros((SIZE, SIZE), dtype=bool)
    if sample.anomalous:
        random = _generator(sample, "flaw")
        alpha, paint = FLAWS[sample.defect](random, colours, scene.body, scene.background)
        mask = alpha > 0
        colours = colours + alpha[:, :, None] * (paint - colours)
    random = _generator(sample, "noise")
    y, x = _grid()
    slope = random.normal(0, 0.06, 2)
    light = random.uniform(0.94, 1.06) * (1 + slope[0] * y + slope[1] * x)
    noisy = colours * light[:, :, None] + random.normal(0, 0.015, (SIZE, SIZE, 3))
    return (noisy * 255).round().clip(0, 255).astype(np.uint8), mask


def _generator(sample: Sample, purpose: str) -> Generator:
    digest = hashlib.sha256(f"{purpose}/{sample.key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _grid() -> tuple[Plane, Plane]:
    """Coordinates y and x of the pixel centres, from -1 to 1."""
    axis = (np.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


def _placed(random: Generator, turn: float, shift: float = 0.06) -> tuple[Plane, Plane]:
    """Coordinates y and x of a product that is turned by up to `turn` radians and shifted."""
    y, x = _grid()
    y, x = y - random.uniform(-shift, shift), x - random.uniform(-shift, shift)
    angle = random.uniform(-turn, turn)
    return np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x


def _tinted(random: Generator, red: float, green: float, blue: float) -> Plane:
    return np.array([red, green, blue]) * random.uniform(0.93, 1.07) + random.normal(0, 0.012, 3)


def _scene(cover: Plane, shade: Plane, colour: Plane, background: Plane) -> Scene:
    """Lays a shaded product over a background; `cover` is the depth within its edge, in pixels."""
    share = cover.clip(0, 1)[:, :, None]
    colours = share * (shade[:, :, None] * colour) + (1 - share) * background
    return Scene(colours, background, cover >= 1)


def _disc(random: Generator) -> Scene:
    """A disc of brushed metal with a bore, on dark cloth."""
    y, x = _placed(random, turn=0.15)
    radius, bore = np.hypot(y, x), random.uniform(0.14, 0.17)
    edge = np.minimum(random.uniform(0.74, 0.8) - radius, radius - bore)
    strokes = random.normal(0, 0.05, 2 * SIZE)
    row = ((y + 1.6) / 3.2 * 2 * SIZE).astype(int).clip(0, 2 * SIZE - 1)
    shade = 1 + strokes[row] + 0.08 * np.cos(2 * np.arctan2(y, x))
    colour, cloth = _tinted(random, 0.62, 0.65, 0.70), _tinted(random, 0.12, 0.12, 0.15)
    return _scene(edge * SIZE / 2, shade, colour, cloth)


def _weave(random: Generator) -> Scene:
    """Tan cloth in plain weave that fills the image."""
    y, x = _placed(random, turn=0.12)
    period = random.uniform(0.17, 0.19)
    warp, weft = np.sin(2 * np.pi * x / period), np.sin(2 * np.pi * y / period)
    shade = 0.82 + 0.16 * np.maximum(warp * np.sign(weft), weft * np.sign(-warp))
    shade += random.normal(0, 0.02, (SIZE, SIZE))
    colour, ground = _tinted(random, 0.80, 0.66, 0.46), _tinted(random, 0.16, 0.12, 0.09)
    return _scene(np.ones((SIZE, SIZE)), shade, colour, ground)


def _screw(random: Generator) -> Scene:
    """A dark screw with thread and head on a light table."""
    y, x = _placed(random, turn=0.3)
    half, thread = random.uniform(0.17, 0.19), random.uniform(0.085, 0.095)
    saw = np.abs((x / thread + 0.4 * y / half) % 1 - 0.5) * 2
    shank = np.minimum(half + 0.03 * saw - np.abs(y), np.minimum(x + 0.62, 0.72 - x))
    head = np.minimum(0.34 - np.abs(y), np.minimum(x + 0.76, -0.5 - x))
    shade = 1 - 1.0 * (y / 0.34) ** 2 + np.where(x > -0.5, 0.5 * saw - 0.2, 0.2)
    colour, table = _tinted(random, 0.36, 0.35, 0.36), _tinted(random, 0.84, 0.84, 0.80)
    return _scene(np.maximum(shank, head) * SIZE / 2, shade, colour, table)


def _gear(random: Generator) -> Scene:
    """An orange plastic gear with a wide opening on green felt."""
    y, x = _placed(random, turn=np.pi)
    radius, angle = np.hypot(y, x), np.arctan2(y, x)
    outer = 0.68 + 0.07 * np.tanh(4 * np.cos(14 * angle))
    edge = np.minimum(outer - radius, radius - random.uniform(0.28, 0.31))
    shade = 1 - 0.25 * np.exp(-(((radius - 0.5) / 0.05) ** 2))
    colour, felt = _tinted(random, 0.88, 0.50, 0.16), _tinted(random, 0.18, 0.36, 0.26)
    return _scene(edge * SIZE / 2, shade, colour, felt)


PRODUCTS: dict[str, Callable[[Generator], Scene]] = {
    "disc": _disc,
    "gear": _gear,
    "screw": _screw,
    "weave": _weave,
}

# A flaw takes a generator, the colours (H, W, 3), the body (H, W) and the background's colour (3,).
# It gives alpha (H, W), the share of a pixel that it covers, 0 off the body; and its paint, which
# broadcasts against the colours.


def _scratch(random: Generator, colours: Plane, body: Mask, background: Plane) -> Painted:
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


def _blot(random: Generator, colours: Plane, body: Mask, background: Plane) -> Painted:
    """A small dark spot of irregular outline."""
    alpha = _cover(_lobed(random, body, random.uniform(3, 6)), body)
    return alpha, colours * random.uniform(0.5, 0.7)


def _stain(random: Generator, colours: Plane, body: Mask, background: Plane) -> Painted:
    """A wide soft shift of colour."""
    radius = random.uniform(9, 14)
    alpha = _cover(_lobed(random, body, radius) / (0.5 * radius), body)
    shift = random.permutation([random.uniform(0.09, 0.16), 0.0, -random.uniform(0.09, 0.16)])
    return alpha, np.clip(colours + shift, 0, 1)


def _missing(random: Generator, colours: Plane, body: Mask, background: Plane) -> Painted:
    """A piece broken out, so that the background shows."""
    alpha = _cover(_lobed(random, body, random.uniform(5, 8)), body)
    return alpha, background


def _from_a_body_pixel(random: Generator, body: Mask) -> tuple[Plane, Plane]:
    """Pixel coordinates y and x around one pixel of the body."""
    row, column = np.argwhere(body)[random.integers(body.sum())]
    y, x = np.indices(body.shape, dtype=np.float64)
    return y - row, x - column


def _lobed(random: Generator, body: Mask, radius: float) -> Plane:
    """Signed distance in pixels, positive inside, of an irregular round outline."""
    y, x = _from_a_body_pixel(random, body)
    angle = np.arctan2(y, x)
    outline = np.full(body.shape, radius)
    for lobes in (2, 3, 5):
        outline += radius * random.uniform(0, 0.15) * np.cos(lobes * angle + random.uniform(0, 6.3))
    return outline - np.hypot(y, x)


def _cover(inside: Plane, body: Mask) -> Plane:
    """Alpha that starts at 0.4 on the edge, so that every pixel of the mask is visibly changed."""
    return np.where(body & (inside > 0), (0.4 + inside).clip(0, 1), 0.0)


FLAWS: dict[str, Callable[[Generator, Plane, Mask, Plane], Painted]] = {
    "blot": _blot,
    "missing": _missing,
    "scratch": _scratch,
    "stain": _stain,
}


def open_shapes(root: Path | None) -> Benchmark:
    """The rendered data set; it needs no `root`."""
    return Shapes()


BENCHMARK = open_shapes
