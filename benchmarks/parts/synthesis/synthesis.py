"""Anomalies made of normal images alone (LafitE, section 3.4, and what was found since).

A fragment is cut from a layer by masks of different shapes and sizes, rotated and combined, and
pasted on a normal image. The paper's layer is another normal image of the category; it says no
more: sizes, strength, blending and position are options here, and every draw is recorded. Other
layers are `families.py`: no one kind foretells all defects (ASBench, arXiv 2510.07927).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts.synthesis.families import FAMILIES, LEVELS, Family, any_perlin
from benchmarks.parts.synthesis.masks import LARGEST, Outline, place_outline
from benchmarks.parts.synthesis.paste import Canvas, Change, Fragment, saturation, within

VERSION = 2  # part of the fingerprint: raise it whenever a pixel changes
POSITIONS = ("anywhere", "foreground")
DESIGNS, PLACES = 16, 8  # tries: designs of an image, places of each of its fragments
SAME_STYLE = 4  # designs in a row with one style, so that styles hard to see stay as likely
LEAST_PIXELS = 4.0
LEAST_SHIFT = 0.05  # of the shorter side, from where a fragment was cut to where it is pasted
LONGEST = 0.9  # of the shorter side
JOINED = 0.5  # share of the further masks that are combined with the one before
GRID, RING = 64, 2  # cells along the shorter side, in which the object is told, and of the border
LEAST_STEP = 16.0  # grey levels; below it, light and noise are taken for an object
SHARES = (0.02, 0.75)  # of the image that an object fills; else there is none, or no background

Colours = NDArray[np.uint8]


class UnseenError(DataError):
    """No anomaly of the family could be seen on the image."""


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """Options of drawing. The entries of a tuple are equally likely; repeat one to favour it.

    The marked share of the image is log-uniform from `smallest` to `largest`; scratches end at 2 %.
    `levels` are 1 to 3, weak to strong; what that means, and how fragments are blended, is the
    family's: `hard`, `feathered` (soft edge), `matched` (soft edge, and the mean colour of what the
    fragment covers, so that only structure differs) or `poisson`. With position `foreground`
    fragments land on the object, if one stands out. A fragment that changes neither colour nor
    structure by `least_change` grey levels of 255 is drawn again, see `Canvas.change`; a grainy
    target or a tiny fragment needs more, see `Canvas.visible_from`.
    """

    masks: int = 3  # one to so many in an image
    smallest: float = 1e-4
    largest: float = 1 / 3
    levels: tuple[int, ...] = LEVELS
    positions: tuple[str, ...] = POSITIONS
    least_change: float = 5.0


@dataclass(frozen=True, kw_only=True)
class _Style:
    """Drawn once; it stays while masks and places are tried."""

    shape: str
    size: float
    level: int
    blending: str
    position: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The draws for one image that tell what kind of anomaly it has."""

    level: int
    shapes: tuple[str, ...]  # of each mask, the largest first; "perlin" for noise
    size: float  # marked share of the image
    blending: str
    position: str  # "anywhere" also where no object stands out
    change: Change  # of the fragment that changed least
    redrawn: int  # designs that could not be placed or seen, before this one


def digest(*parts: object) -> bytes:
    """16 bytes that depend on the parts alone; all chance comes from them."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()


def generator(*parts: object) -> Generator:
    """A random generator of its own for each (seed, purpose, key)."""
    return np.random.default_rng(int.from_bytes(digest(*parts), "big"))


def synthesise(
    target: Colours,
    source: Colours,
    family: str,
    options: Synthesis,
    seed: int,
    key: str,
    first: int = 0,
) -> tuple[Drawn, Canvas]:
    """An anomaly of the family on the target (H, W, 3) uint8.

    `source` is another image of that size, for families that need one, else the target. Nothing is
    more saturated than the images of the category. After half of the designs the level is the
    highest. `first` is the design to begin with, where those before are known to fail. UnseenError
    where nothing can be seen in any: the images are flat, alike or grainy.
    """
    kind, objects, most = FAMILIES[family], foreground(target), saturation(target)
    if kind.needs == "same":
        most = max(most, saturation(source))
    canvas = Canvas(target, most)
    for group in range(first // SAME_STYLE, DESIGNS // SAME_STYLE):
        hard = 2 * SAME_STYLE * group >= DESIGNS
        style = _style(generator(seed, "style", group, key), kind, options, hard)
        strength = kind.levels[style.level - 1]
        layer = kind.fill(generator(seed, "layer", group, key), target, source, strength)
        if saturation(layer) > most:
            layer = within(layer, most).round().astype(np.uint8)
        goal = objects if style.position == "foreground" else None
        for redrawn in range(max(first, group * SAME_STYLE), (group + 1) * SAME_STYLE):
            canvas.clear()
            random = generator(seed, "masks", redrawn, key)
            shapes, cuts = _cuts(random, style, kind, options, target.shape)
            if changes := _paste_all(random, canvas, layer, cuts, goal, options.least_change, kind):
                return Drawn(
                    level=style.level,
                    shapes=shapes,
                    size=float(canvas.mask.mean()),
                    blending=style.blending,
                    position="anywhere" if goal is None else "foreground",
                    change=min(changes),
                    redrawn=redrawn,
                ), canvas
    raise UnseenError(
        f"{key}: no pseudo-anomaly ({family}) on it could be seen in {DESIGNS * PLACES} tries; "
        f"lower least_change ({options.least_change:g}) or leave the category out"
    )


def foreground(image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Centres of the coarse cells that show the object, (n, 2) as (y, x) in pixels of the image.

    A cell's distance is that of its mean colour from the median colour of the image's border. It
    shows the object if that is above `LEAST_STEP` and above 1.5 times the 90 % quantile of the
    border's cells. None for a texture, where no object stands out or nearly all of the image does.
    """
    height, width = image.shape[:2]
    scale = min(1.0, GRID / min(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=np.float64)
    ring = np.ones((rows, columns), dtype=bool)
    ring[RING:-RING, RING:-RING] = False
    distance = np.abs(colours - np.median(colours[ring], axis=0)).max(axis=2)
    marks = distance > max(LEAST_STEP, 1.5 * float(np.quantile(distance[ring], 0.9)))
    if not SHARES[0] <= marks.mean() <= SHARES[1]:
        return None
    y, x = np.nonzero(marks)
    return np.stack([(y + 0.5) * height / rows, (x + 0.5) * width / columns], axis=1)


def _style(random: Generator, kind: Family, options: Synthesis, hard: bool) -> _Style:
    shape = kind.shapes[random.integers(len(kind.shapes))]
    upper = min(options.largest, LARGEST.get(shape, 1.0))
    lower = min(options.smallest, upper)
    level = options.levels[random.integers(len(options.levels))]
    return _Style(
        shape=shape,
        size=lower * (upper / lower) ** random.uniform(),
        level=max(options.levels) if hard else level,
        blending=kind.blendings[random.integers(len(kind.blendings))],
        position=options.positions[random.integers(len(options.positions))],
    )


def _cuts(
    random: Generator, style: _Style, kind: Family, options: Synthesis, shape: tuple[int, ...]
) -> tuple[tuple[str, ...], list[Fragment]]:
    """The masks' shapes, and the fragments that are cut with them, not placed yet."""
    opacity = kind.levels[style.level - 1] if kind.fades else 1.0
    if kind.perlin:
        noise = any_perlin(random, (shape[0], shape[1]))
        alpha = np.where(noise >= np.quantile(noise, 1 - style.size), 255, 0).astype(np.uint8)
        return ("perlin",), [Fragment(alpha=alpha, contrast=opacity, blending=style.blending)]
    shapes, groups = _combined_masks(random, style, kind.shapes, options.masks, shape)
    side = min(shape[:2])
    return shapes, [Fragment.cut(group, opacity, style.blending, side) for group in groups]


def _combined_masks(
    random: Generator,
    style: _Style,
    more: tuple[str, ...],
    most: int,
    image_shape: tuple[int, ...],
) -> tuple[tuple[str, ...], list[list[Outline]]]:
    """The masks' shapes, and their outlines in groups: each group is one fragment."""
    height, width = image_shape[:2]
    count = int(random.integers(1, most + 1))
    others = random.integers(len(more), size=count - 1)
    shapes = (style.shape, *(more[index] for index in others))
    parts = np.array([1.0, *random.uniform(0.2, 0.7, count - 1)])
    areas = np.maximum(style.size * height * width * parts / parts.sum(), LEAST_PIXELS)
    groups: list[list[Outline]] = []
    for kind, area in zip(shapes, areas, strict=True):
        join = bool(groups) and random.random() < JOINED
        centre = random.choice(groups[-1][-1]) if join else (0.0, 0.0)
        outline = place_outline(random, kind, area, LONGEST * min(height, width), centre)
        if not join:
            groups.append([])
        groups[-1].append(outline)
    return shapes, groups


def _paste_all(
    random: Generator,
    canvas: Canvas,
    layer: Colours,
    cuts: list[Fragment],
    goal: NDArray[np.float64] | None,
    least_change: float,
    kind: Family,
) -> list[Change]:
    """The changes by the fragments; none if one of them cannot land."""
    changes = []
    for cut in cuts:
        for fragment in _places(random, cut, layer.shape, goal, kind.moves):
            patch = canvas.patch(layer, fragment)
            change = canvas.change(patch)
            if patch.marked.any() and change.visible(canvas.visible_from(patch, least_change)):
                changes.append(change)
                canvas.put(patch)
                break
        else:
            return []
    return changes


def _places(
    random: Generator,
    cut: Fragment,
    image_shape: tuple[int, ...],
    goal: NDArray[np.float64] | None,
    moves: bool,
) -> Iterator[Fragment]:
    """The fragment at random places inside the image; with a goal, one of its pixels is on it.

    It is cut where it lands, unless it `moves`.
    """
    room = np.array(image_shape[:2]) - cut.alpha.shape
    if not cut.alpha.size or (room < 0).any():
        return
    for _ in range(PLACES):
        source, target = random.integers(room + 1), random.integers(room + 1)
        if goal is not None:
            pixel = random.choice(np.argwhere(cut.alpha))
            target = (random.choice(goal).astype(int) - pixel).clip(0, room)
        if not moves:
            yield cut.at(source=target, target=target)
        elif np.abs(target - source).max() >= LEAST_SHIFT * min(image_shape[:2]):
            yield cut.at(source=source, target=target)
