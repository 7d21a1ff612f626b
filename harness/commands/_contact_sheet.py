"""One picture of pseudo-anomalies: the normal image, what became of it, and its outlined mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from benchmarks.base import Sample
from benchmarks.parts.synthesis.pseudo import PseudoValidation

PANEL, GAP, CAPTION, TITLE = 176, 6, 16, 26  # pixels
ACROSS, DOWN = 3, 4  # images of a category
INK, PAPER, LINE = (30, 30, 30), (255, 255, 255), (255, 0, 80)


def contact_sheet(pseudo: PseudoValidation, anomalous: Sequence[Sample]) -> Image.Image:
    """A block for each category: up to 12 images, evenly over their sizes, the smallest first."""
    categories = sorted({sample.category for sample in anomalous})
    blocks = [
        _block(pseudo, name, [sample for sample in anomalous if sample.category == name])
        for name in categories
    ]
    sheet = Image.new("RGB", (blocks[0].width, sum(block.height for block in blocks)), PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    return sheet


def _block(pseudo: PseudoValidation, category: str, samples: list[Sample]) -> Image.Image:
    samples.sort(key=lambda sample: pseudo.drawn(sample).size)
    count = min(len(samples), ACROSS * DOWN)
    shown = [
        samples[index] for index in np.linspace(0, len(samples) - 1, count).round().astype(int)
    ]
    cell = 3 * PANEL + 4 * GAP, PANEL + CAPTION + GAP
    down = -(-count // ACROSS)
    block = Image.new("RGB", (ACROSS * cell[0], TITLE + down * cell[1]), PAPER)
    draw = ImageDraw.Draw(block)
    title = f"{category}: {count} of {len(samples)}; normal, pseudo-anomalous, its mask outlined"
    draw.text((GAP, GAP), title, INK, ImageFont.load_default(15))
    for number, sample in enumerate(shown):
        left = number % ACROSS * cell[0] + GAP
        top = TITLE + number // ACROSS * cell[1]
        for column, panel in enumerate(_panels(pseudo, sample)):
            block.paste(panel, (left + column * (PANEL + GAP), top))
        draw.text(
            (left, top + PANEL + 1), _caption(pseudo, sample), INK, ImageFont.load_default(12)
        )
    return block


def _panels(pseudo: PseudoValidation, sample: Sample) -> tuple[Image.Image, ...]:
    made = _fitted(pseudo.read_image(sample), Image.Resampling.BILINEAR)
    marks: NDArray[np.uint8] = pseudo.read_mask(sample).astype(np.uint8) * np.uint8(255)
    # Any marked pixel counts, so that the smallest mask has an outline too.
    mask = _fitted(marks, Image.Resampling.BILINEAR).point(lambda value: 255 * (value > 0))
    edge = ImageChops.subtract(mask.filter(ImageFilter.MaxFilter(3)), mask)
    outlined = made.copy()
    outlined.paste(LINE, mask=edge)
    normal = pseudo.read_image(pseudo.target(sample))
    return _fitted(normal, Image.Resampling.BILINEAR), made, outlined


def _fitted(pixels: NDArray[np.uint8], resampling: Image.Resampling) -> Image.Image:
    """The picture as large as fits into a panel."""
    image = Image.fromarray(pixels)
    scale = PANEL / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, resampling)


def _caption(pseudo: PseudoValidation, sample: Sample) -> str:
    drawn = pseudo.drawn(sample)
    return (
        f"{' + '.join(drawn.shapes)}, {100 * drawn.size:.3g} %, contrast {drawn.contrast:g}, "
        f"{drawn.blending}, {drawn.position}"
    )
