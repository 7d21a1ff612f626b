"""Pseudo-validation sets as files, to look at and for other tools.

OUT/<category>/train/good/NAME             the normal images that were kept, copied
OUT/<category>/test/good/NAME              the held-out ones, copied
OUT/<category>/test/<family>/NAME.png      the pseudo-anomalous ones
OUT/<category>/ground_truth/<family>/NAME_mask.png
OUT/drawn.csv                              what was drawn for each of them
OUT/contact_sheet.png                      a look at some of each category
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from harness.checks.contact_sheet import contact_sheet
from results.files import whole_folder

SHEET, TABLE = "contact_sheet.png", "drawn.csv"
COLUMNS = (
    *("image", "family", "level", "target", "source", "shapes", "size", "blending", "position"),
    *("colour_change", "structure_change", "redrawn"),
)


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
    try:
        with whole_folder(out) as scratch:
            _write(pseudo, scratch, on_progress)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be read or written ({error.strerror})"
        ) from error
    return out / SHEET


def _write(pseudo: PseudoValidation, out: Path, on_progress: Callable[[int, int], None]) -> None:
    train, validation = pseudo.train(), pseudo.validation()
    work = [(sample, "train") for sample in train] + [(sample, "test") for sample in validation]

    def write(sample_and_split: tuple[Sample, str]) -> None:
        sample, split = sample_and_split
        folder = out / sample.category
        if sample.anomalous:
            _write_anomaly(pseudo, sample, folder)
        else:
            _copy(pseudo, sample, folder / split / "good")

    for done, _ in enumerate(map_threads(write, work), start=1):
        on_progress(done, len(work))
    anomalous = [sample for sample in validation if sample.anomalous]
    _write_table(pseudo, anomalous, out / TABLE)
    contact_sheet(pseudo, anomalous).savefig(out / SHEET, dpi=100)


def _write_anomaly(pseudo: PseudoValidation, sample: Sample, folder: Path) -> None:
    name = _png_name(sample)
    marks: NDArray[np.uint8] = pseudo.read_mask(sample).astype(np.uint8) * np.uint8(255)
    masks = folder / "ground_truth" / sample.defect
    _save(pseudo.read_image(sample), folder / "test" / sample.defect / name)
    _save(marks, masks / f"{PurePath(name).stem}_mask.png")


def _copy(benchmark: Benchmark, sample: Sample, folder: Path) -> None:
    """The file itself, byte for byte; a PNG where the image is rendered."""
    if sample.path is None:
        _save(benchmark.read_image(sample), folder / _png_name(sample))
        return
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(sample.path, folder / sample.path.name)


def _save(pixels: NDArray[np.uint8], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _png_name(sample: Sample) -> str:
    """NAME.png for NAME and NAME.png, but NAME.jpg.png for NAME.jpg: no two names become one."""
    name = PurePath(sample.key).name
    return name if name.endswith(".png") else f"{name}.png"


def _write_table(pseudo: PseudoValidation, samples: Sequence[Sample], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        for sample in samples:
            image = f"{sample.category}/test/{sample.defect}/{_png_name(sample)}"
            table.writerow({"image": image, **_drawn(pseudo, sample)})


def _drawn(pseudo: PseudoValidation, sample: Sample) -> dict[str, object]:
    """The drawn anomaly; of a whole image of another category there is nothing but its name."""
    if pseudo.target(sample) is None:
        return {"family": sample.defect, "source": pseudo.plan_of(sample).image.key}
    drawn, source = pseudo.drawn(sample), pseudo.fragments_of(sample)
    return {
        "family": drawn.family,
        "level": drawn.level,
        "target": pseudo.plan_of(sample).image.key,
        "source": source.key if source else "",
        "shapes": " ".join(drawn.shapes),
        "size": f"{drawn.size:.6f}",
        "blending": drawn.blending,
        "position": drawn.position,
        "colour_change": f"{drawn.change.colour:.2f}",
        "structure_change": f"{drawn.change.structure:.2f}",
        "redrawn": drawn.redrawn,
    }
