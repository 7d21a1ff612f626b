"""Anomalies made of normal images alone (LafitE, section 3.4).

Fragments are cut from one normal image by masks of different shapes and sizes, rotated and
combined, and pasted on another normal image of the same category, at another place. The paper says
no more: sizes, contrast, blending and position are options here, and every draw is recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.base import DataError
from benchmarks.parts.synthesis.foreground import foreground
from benchmarks.parts.synthesis.masks import LARGEST, SHAPES, Outline, place_outline
from benchmarks.parts.synthesis.paste import Canvas, Fragment

VERSION = 1  # part of the fingerprint: raise it whenever a pixel changes
BLENDINGS = ("hard", "feathered", "matched")
POSITIONS = ("anywhere", "foreground")
DESIGNS, PLACES = 16, 8  # tries: designs of an image, places of each of its fragments
SAME_STYLE = 4  # designs in a row with one style, so that styles hard to see stay as likely
LEAST_PIXELS = 4.0
LEAST_SHIFT = 0.05  # of the shorter side, from where a fragment was cut to where it is pasted
LONGEST = 0.9  # of the shorter side
JOINED = 0.5  # share of the further masks that are combined with the one before

Colours = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """How anomalies are drawn. The entries of a tuple are equally likely; repeat one to favour it.

    The marked share of the image is log-uniform from `smallest` to `largest`; scratches end at 2 %.
    `contrasts` scale the fragment's difference to what it covers. Blending is `hard`, `feathered`
    (soft edge) or `matched` (soft edge, and the mean colour of what the fragment covers, so that
    only structure differs). With position `foreground` fragments land on the object, if one stands
    out. A fragment that changes less than `least_change` grey levels of 255 is drawn again, see
    `Canvas.change`; a grainy target or a tiny fragment needs more, see `Canvas.visible_from`.
    DataError for an option out of range.
    """

    shapes: tuple[str, ...] = tuple(SHAPES)
    masks: int = 3  # one to so many in an image
    smallest: float = 1e-4
    largest: float = 1 / 3
    contrasts: tuple[float, ...] = (0.25, 0.5, 1.0)
    blendings: tuple[str, ...] = BLENDINGS
    positions: tuple[str, ...] = POSITIONS
    least_change: float = 5.0

    def __post_init__(self) -> None:
        known = {"shapes": tuple(SHAPES), "blendings": BLENDINGS, "positions": POSITIONS}
        for name, words in known.items():
            if not (given := getattr(self, name)) or set(given) - set(words):
                raise DataError(f"synthesis: {name} {given}; choose some of {', '.join(words)}")
        valid = {
            f"masks {self.masks}; at least 1": self.masks >= 1,
            f"sizes {self.smallest} to {self.largest}; 0 < smallest <= largest <= 0.5": (
                0 < self.smallest <= self.largest <= 0.5
            ),
            f"contrasts {self.contrasts}; some above 0, at most 1": (
                bool(self.contrasts) and all(0 < contrast <= 1 for contrast in self.contrasts)
            ),
            f"least_change {self.least_change}; from 0 to 255": 0 <= self.least_change <= 255,
        }
        for complaint, holds in valid.items():
            if not holds:
                raise DataError(f"synthesis: {complaint}")


@dataclass(frozen=True, kw_only=True)
class _Style:
    """Drawn once; it stays while masks and places are tried."""

    size: float
    contrast: float
    blending: str
    position: str


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The draws for one image: enough to render it and its mask again."""

    shapes: tuple[str, ...]  # of each mask, the largest first
    size: float  # marked share of the image
    contrast: float
    blending: str
    position: str  # "anywhere" also where no object stands out
    change: float  # in grey levels, of the fragment that changed least
    redrawn: int  # designs that could not be placed or seen, before this one
    fragments: tuple[Fragment, ...]
    image_shape: tuple[int, int]


def digest(*parts: object) -> bytes:
    """16 bytes that depend on the parts alone; all chance comes from them."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).digest()


def generator(*parts: object) -> Generator:
    """A random generator of its own for each (seed, purpose, key)."""
    return np.random.default_rng(int.from_bytes(digest(*parts), "big"))


def synthesise(
    target: Colours, source: Colours, shape: str, options: Synthesis, seed: int, key: str
) -> tuple[Drawn, Canvas]:
    """Pastes fragments of one image on another of equal size, both (H, W, 3) uint8.

    `shape` is that of the largest mask. DataError where no try can be seen: both images are flat
    and alike, or the options ask for too much.
    """
    objects = foreground(target)
    side = min(target.shape[:2])
    for redrawn in range(DESIGNS):
        style = _style(generator(seed, "style", redrawn // SAME_STYLE, key), shape, options)
        canvas = Canvas(target)
        if redrawn >= DESIGNS // 2:  # a hard case: highest contrast, and grain no longer counts
            style = replace(style, contrast=max(options.contrasts))
            canvas.grain = 0.0
        goal = objects if style.position == "foreground" else None
        random = generator(seed, "masks", redrawn, key)
        shapes, groups = _combined_masks(random, shape, style.size, options, target.shape)
        cuts = [Fragment.cut(group, style.contrast, style.blending, side) for group in groups]
        if placed := _paste_all(random, canvas, source, cuts, goal, options.least_change):
            fragments, changes = zip(*placed, strict=True)
            return Drawn(
                shapes=shapes,
                size=float(canvas.mask.mean()),
                contrast=style.contrast,
                blending=style.blending,
                position="anywhere" if goal is None else "foreground",
                change=min(changes),
                redrawn=redrawn,
                fragments=fragments,
                image_shape=(target.shape[0], target.shape[1]),
            ), canvas
    raise DataError(
        f"{key}: no pseudo-anomaly on it could be seen in {DESIGNS * PLACES} tries; lower "
        f"least_change ({options.least_change:g}) or leave the category out"
    )


def _style(random: Generator, shape: str, options: Synthesis) -> _Style:
    upper = min(options.largest, LARGEST.get(shape, 1.0))
    lower = min(options.smallest, upper)
    return _Style(
        size=lower * (upper / lower) ** random.uniform(),
        contrast=options.contrasts[random.integers(len(options.contrasts))],
        blending=options.blendings[random.integers(len(options.blendings))],
        position=options.positions[random.integers(len(options.positions))],
    )


def _combined_masks(
    random: Generator, shape: str, size: float, options: Synthesis, image_shape: tuple[int, ...]
) -> tuple[tuple[str, ...], list[list[Outline]]]:
    """The masks' shapes, and their outlines in groups: each group is one fragment."""
    height, width = image_shape[:2]
    count = int(random.integers(1, options.masks + 1))
    more = random.integers(len(options.shapes), size=count - 1)
    shapes = (shape, *(options.shapes[index] for index in more))
    parts = np.array([1.0, *random.uniform(0.2, 0.7, count - 1)])
    areas = np.maximum(size * height * width * parts / parts.sum(), LEAST_PIXELS)
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
    source: Colours,
    cuts: list[Fragment],
    goal: NDArray[np.float64] | None,
    least_change: float,
) -> list[tuple[Fragment, float]]:
    """The fragments where they landed, with their changes; none if one of them cannot land."""
    placed = []
    for cut in cuts:
        for fragment in _places(random, cut, source.shape, goal):
            patch = canvas.patch(source, fragment)
            change = canvas.change(patch)
            if patch.marked.any() and change >= canvas.visible_from(patch, least_change):
                placed.append((fragment, change))
                canvas.put(patch)
                break
        else:
            return []
    return placed


def _places(
    random: Generator, cut: Fragment, image_shape: tuple[int, ...], goal: NDArray[np.float64] | None
) -> Iterator[Fragment]:
    """The fragment at random places inside the image; with a goal, one of its pixels is on it."""
    room = np.array(image_shape[:2]) - cut.alpha.shape
    if not cut.alpha.size or (room < 0).any():
        return
    for _ in range(PLACES):
        source, target = random.integers(room + 1), random.integers(room + 1)
        if goal is not None:
            pixel = random.choice(np.argwhere(cut.alpha))
            target = (random.choice(goal).astype(int) - pixel).clip(0, room)
        if np.abs(target - source).max() >= LEAST_SHIFT * min(image_shape[:2]):
            yield cut.at(source=source, target=target)
