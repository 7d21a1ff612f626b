"""ELPV: electroluminescence images of solar cells, mono- and polycrystalline, without masks.

Deitsch et al., Solar Energy 2019; from the PyPI package elpv-dataset. Every image carries a defect
probability: 0 is normal and 1 defective. The two grades between, where the annotators were unsure,
are left out.
"""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Benchmark, Counts, DataError
from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, listed_benchmark

# Part of the data set, not of a run: all seeds share one split, hence one set of features.
SPLIT_SEED = 0
TRAIN_SHARE = 0.8
KNOWN = Published(
    "elpv",
    licence="CC BY-NC-SA 4.0: not for commercial use",
    source="PyPI package elpv-dataset (github.com/zae-bayern/elpv-dataset)",
    counts={"mono": Counts(470, 118, 313), "poly": Counts(736, 184, 402)},
)


def open_elpv(root: Path | None) -> Benchmark:
    """The solar cells of the installed package, which holds the images; `root` is not looked at.

    The normal images of each category are split 80 to 20 by `SPLIT_SEED`. Keys name the split, so
    a fingerprint changes with it. DataError where the package is missing or its list is broken.
    """
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "elpv: the package elpv-dataset is not installed; pip install 'lafite-bench[demo]'"
        )
    folder = Path(spec.origin).parent / "data"
    benchmark = listed_benchmark(KNOWN, folder, _images(folder))
    benchmark.no_pixel_reason = "elpv has image labels only"
    return benchmark


def _images(folder: Path) -> Iterator[Listed]:
    labels = folder / "labels.csv"
    try:
        rows = [line.split() for line in labels.read_text(encoding="utf-8").splitlines()]
        graded = [(folder / name, float(probability), kind) for name, probability, kind in rows]
    except (OSError, ValueError) as error:
        raise DataError(f"{labels}: cannot be read ({error}); reinstall elpv-dataset") from error
    for category in KNOWN.counts:
        normal, defective = (
            [path for path, probability, kind in graded if (probability, kind) == (p, category)]
            for p in (0.0, 1.0)
        )
        random.Random(f"elpv/{category}/{SPLIT_SEED}").shuffle(normal)
        cut = int(len(normal) * TRAIN_SHARE)
        for number, path in enumerate(normal):
            yield Listed("train" if number < cut else "test", category, "good", path)
        for path in defective:
            yield Listed("test", category, "defective", path)


BENCHMARK = open_elpv
