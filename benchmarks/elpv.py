"""ELPV: electroluminescence images of solar cells, mono- and polycrystalline, without masks.

Deitsch et al., Solar Energy 2019; from the PyPI package elpv-dataset. Every image carries a defect
probability: 0 is normal and 1 defective. The two grades between, where the annotators were unsure,
are left out.
"""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

from benchmarks.base import Benchmark, Counts, DataError, Sample
from benchmarks.parts.files import FileBenchmark

# Part of the data set, not of a run: all seeds share one split, hence one set of features.
SPLIT_SEED = 0
TRAIN_SHARE = 0.8
PUBLISHED = {"mono": Counts(470, 118, 313), "poly": Counts(736, 184, 402)}


def open_elpv(root: Path | None) -> Benchmark:
    """The solar cells of the installed package, which holds the images; `root` is not looked at.

    The normal images of each category are split 80 to 20 by `SPLIT_SEED`. Keys name the split, so
    a fingerprint changes with it. DataError where the package is missing or its list is broken.
    """
    folder = _package_data()
    train: dict[str, list[Sample]] = {name: [] for name in PUBLISHED}
    test: dict[str, list[Sample]] = {name: [] for name in PUBLISHED}
    for category in PUBLISHED:
        normal, defective = _labelled(folder, category)
        random.Random(f"elpv/{category}/{SPLIT_SEED}").shuffle(normal)
        cut = int(len(normal) * TRAIN_SHARE)
        train[category] = [_sample(path, category, "train", "good") for path in normal[:cut]]
        test[category] = [_sample(path, category, "test", "good") for path in normal[cut:]]
        test[category] += [_sample(path, category, "test", "defective") for path in defective]
    return FileBenchmark(
        name="elpv",
        licence="CC BY-NC-SA 4.0: not for commercial use",
        source="PyPI package elpv-dataset (github.com/zae-bayern/elpv-dataset)",
        location=str(folder),
        no_pixel_reason="elpv has image labels only",
        train_samples=train,
        test_samples=test,
        published=PUBLISHED,
    )


def _package_data() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError(
            "elpv: the package elpv-dataset is not installed; pip install 'lafite-bench[demo]'"
        )
    return Path(spec.origin).parent / "data"


def _labelled(folder: Path, category: str) -> tuple[list[Path], list[Path]]:
    """The normal and the defective images of one category, in the order of the package's list."""
    labels = folder / "labels.csv"
    by_probability: dict[float, list[Path]] = {}
    try:
        for line in labels.read_text(encoding="utf-8").splitlines():
            name, probability, kind = line.split()
            if kind == category:
                by_probability.setdefault(float(probability), []).append(folder / name)
    except (OSError, ValueError) as error:
        raise DataError(f"{labels}: cannot be read ({error}); reinstall elpv-dataset") from error
    return by_probability.get(0.0, []), by_probability.get(1.0, [])


def _sample(path: Path, category: str, split: str, defect: str) -> Sample:
    return Sample(f"{category}/{split}/{defect}/{path.name}", category, defect, path)


BENCHMARK = open_elpv
