"""What `lafite-bench synth` does: pseudo-validation sets as files, to look at and for other tools.

OUT/<category>/train/good/NAME             the normal images that were kept, copied
OUT/<category>/test/good/NAME              the held-out ones, copied
OUT/<category>/test/<shape>/NAME.png       the pseudo-anomalous ones; the shape of the largest mask
OUT/<category>/ground_truth/<shape>/NAME_mask.png
OUT/drawn.csv                              what was drawn for each of them
OUT/contact_sheet.png                      a look at some of each category
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.base import Benchmark, DataError, Sample
from benchmarks.parts.content import map_threads
from benchmarks.parts.synthesis.pseudo import PseudoValidation, pseudo_validation
from benchmarks.parts.synthesis.synthesis import Synthesis
from harness.cell import open_benchmark
from harness.commands._contact_sheet import contact_sheet

SHEET, TABLE = "contact_sheet.png", "drawn.csv"
COLUMNS = (
    *("image", "target", "source", "shapes", "size", "contrast", "blending", "position"),
    *("change", "redrawn"),
)


@dataclass(frozen=True, kw_only=True)
class SynthRequest:
    """The options of `lafite-bench synth`."""

    benchmark: str
    out: Path
    root: Path | None = None
    categories: list[str] = field(default_factory=list)
    seed: int = 0
    share: float = 0.1
    anomalies: int = 1
    synthesis: Synthesis = field(default_factory=Synthesis)


def synth(
    request: SynthRequest, on_progress: Callable[[int, int], None] = lambda done, all_: None
) -> Path:
    """Writes the folder and returns the path of its contact sheet.

    `on_progress(done, all)` counts images in the caller's thread. The folder appears when it is
    complete. DataError or UsageError, in one line, for what cannot be read, used or written.
    """
    out = request.out.expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: exists already; choose a new folder or remove it")
    benchmark = open_benchmark(request.benchmark, request.root)
    pseudo = pseudo_validation(
        benchmark,
        request.categories or None,
        share=request.share,
        seed=request.seed,
        anomalies=request.anomalies,
        synthesis=request.synthesis,
    )
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as part:
            _write(pseudo, Path(part) / out.name, on_progress)
            (Path(part) / out.name).replace(out)
    except OSError as error:
        raise DataError(
            f"{error.filename or out}: cannot be read or written ({error.strerror})"
        ) from error
    return out / SHEET


def _write(pseudo: PseudoValidation, out: Path, on_progress: Callable[[int, int], None]) -> None:
    train, validation = pseudo.train(), pseudo.validation()
    work = [(sample, "train") for sample in train] + [(sample, "test") for sample in validation]

    def one(item: tuple[Sample, str]) -> None:
        sample, split = item
        folder = out / sample.category
        if sample.anomalous:
            _write_anomaly(pseudo, sample, folder)
        else:
            _copy(pseudo, sample, folder / split / "good")

    for done, _ in enumerate(map_threads(one, work), start=1):
        on_progress(done, len(work))
    anomalous = [sample for sample in validation if sample.anomalous]
    _write_table(pseudo, anomalous, out / TABLE)
    contact_sheet(pseudo, anomalous).save(out / SHEET)


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
            drawn = pseudo.drawn(sample)
            table.writerow(
                {
                    "image": f"{sample.category}/test/{sample.defect}/{_png_name(sample)}",
                    "target": pseudo.target(sample).key,
                    "source": pseudo.fragments_of(sample).key,
                    "shapes": " ".join(drawn.shapes),
                    "size": f"{drawn.size:.6f}",
                    "contrast": drawn.contrast,
                    "blending": drawn.blending,
                    "position": drawn.position,
                    "change": f"{drawn.change:.2f}",
                    "redrawn": drawn.redrawn,
                }
            )
