"""Pseudo-validation sets as files, to look at and for other tools.

OUT/<category>/train/good/NAME             the normal images that were kept, copied
OUT/<category>/test/good/NAME              the held-out ones, copied
OUT/<category>/test/<family>/NAME.png      the pseudo-anomalous ones
OUT/<category>/ground_truth/<family>/NAME_mask.png
OUT/contact_sheet.png                      a look at some of each category
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from results.files import whole_folder

SHEET = "contact_sheet.png"
ACROSS = 3
"""Images of a family in a category."""
PANEL, CAPTION = 1.8, 0.25  # inches
LINE = "#ff0050"


def check_new(out: Path) -> None:
    """DataError for a place that is in use."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already; choose a new folder or remove it")


def write_synthetic(
    pseudo: PseudoValidation,
    out: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the folder; returns the path of its contact sheet.

    `on_progress(done, total)` counts images in the caller's thread. The folder appears when it is
    complete. DataError, in one line, for what can't be read or written.
    """
    out = out.expanduser().resolve()
    train, validation = pseudo.train(), pseudo.validation()
    work = [(sample, "train") for sample in train] + [(sample, "test") for sample in validation]
    try:
        with whole_folder(out) as scratch:
            written = map_threads(lambda item: _write(pseudo, *item, scratch), work)
            for done, _ in enumerate(written, start=1):
                on_progress(done, len(work))
            made = [sample for sample in validation if sample.anomalous]
            contact_sheet(pseudo, made).savefig(scratch / SHEET, dpi=100)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be read or written ({error.strerror})"
        ) from error
    return out / SHEET


def _write(pseudo: PseudoValidation, sample: Sample, split: str, out: Path) -> None:
    """Writes a made anomaly and its mask; copies a file byte for byte; a rendered image is a PNG.

    NAME and NAME.png become NAME.png, but NAME.jpg becomes NAME.jpg.png: no two names become one.
    """
    name = f"{PurePath(sample.key).name.removesuffix('.png')}.png"
    path = out / sample.category / split / sample.defect / name
    if sample.path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(sample.path, path.with_name(sample.path.name))
        return
    _save(pseudo.read_image(sample), path)
    if sample.anomalous:
        marks = pseudo.read_mask(sample).astype(np.uint8) * np.uint8(255)
        masks = out / sample.category / "ground_truth" / sample.defect
        _save(marks, masks / f"{path.stem}_mask.png")


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def contact_sheet(pseudo: PseudoValidation, made: Sequence[Sample]) -> Figure:
    """A row for each family in a category, up to 3 images from weak to strong.

    Beside one another stand the normal image, the pseudo-anomalous one and its outlined mask.
    """
    rows = [
        sorted(row, key=lambda sample: _strength(pseudo, sample))
        for category in sorted({sample.category for sample in made})
        for family in pseudo.families
        if (row := [s for s in made if (s.category, s.defect) == (category, family)])
    ]
    figure = Figure((3 * ACROSS * PANEL, len(rows) * (PANEL + CAPTION)), layout="constrained")
    axes = figure.subplots(len(rows), 3 * ACROSS, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        line[0].set_title(row[0].category, fontsize=8, fontweight="bold")
        count = min(len(row), ACROSS)
        chosen = np.linspace(0, len(row) - 1, count).round().astype(int)
        for index, panels in zip(chosen, line.reshape(ACROSS, 3), strict=False):
            _panels(panels, pseudo, row[index])
    return figure


def _strength(pseudo: PseudoValidation, sample: Sample) -> tuple[int, float]:
    if pseudo.target(sample) is None:
        return 0, 0.0
    drawn = pseudo.drawn(sample)
    return drawn.level, drawn.size


def _panels(panels: Sequence[Axes], pseudo: PseudoValidation, sample: Sample) -> None:
    normal, made, outlined = panels
    image = pseudo.read_image(sample)
    made.imshow(image)
    if (target := pseudo.target(sample)) is None:
        made.set_title(f"{sample.defect}: {pseudo.plan_of(sample).image.category}", fontsize=8)
        return
    normal.imshow(pseudo.read_image(target))
    outlined.imshow(image)
    outlined.contour(pseudo.read_mask(sample), levels=[0.5], colors=LINE, linewidths=1)
    drawn = pseudo.drawn(sample)
    made.set_title(
        f"{sample.defect} {drawn.level}, {100 * drawn.size:.2g} %: {' + '.join(drawn.shapes)}, "
        f"{drawn.blending}, {drawn.position}",
        fontsize=8,
    )
