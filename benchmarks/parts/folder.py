"""The MVTec folder layout.

    <category>/train/good/NAME.png
    <category>/test/good/NAME.png
    <category>/test/<defect>/NAME.png
    <category>/ground_truth/<defect>/NAME_mask.png   (or several: NAME_mask_1.png, ...)

Folders are read to this depth and no deeper, so a loop of symbolic links ends nowhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.base import Counts, DataError, Sample
from benchmarks.parts.files import FileBenchmark

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
LAYOUT = "<category>/train/good, <category>/test/<good or defect>, <category>/ground_truth/<defect>"
MASK_NAME = re.compile(r"(?P<image>.+)_mask(_\d+)?")


def folder_benchmark(
    name: str,
    folder: Path,
    *,
    licence: str = "not stated: see the data set",
    source: str = "a folder of the user's",
    published: Mapping[str, Counts] | None = None,
) -> FileBenchmark:
    """A data set from a folder in the MVTec layout; if given, only its `published` categories.

    DataError where the folder is missing, is a category itself or has none.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; expected one with {LAYOUT}")
    if _is_category(folder):
        raise DataError(
            f"{folder}: is a single category; give {folder.parent} and choose {folder.name!r}"
        )
    categories = [path for path in _folders(folder) if _is_category(path) or not _entries(path)]
    categories = [path for path in categories if not published or path.name in published]
    if not categories:
        raise DataError(f"{folder}: has no category; expected {LAYOUT}")
    masked = any(_masks(path) for path in categories)
    return FileBenchmark(
        name=name,
        licence=licence,
        source=source,
        location=str(folder),
        no_pixel_reason="" if masked else "no category has masks in ground_truth",
        train_samples={path.name: _samples(path, "train", ["good"]) for path in categories},
        test_samples={path.name: _samples(path, "test", _defects(path)) for path in categories},
        published=published or {},
        strays={path.name: _strays(path) for path in categories},
    )


def published_benchmark(
    name: str,
    root: Path | None,
    usual_folders: Sequence[str],
    *,
    licence: str,
    source: str,
    published: Mapping[str, Counts],
) -> FileBenchmark:
    """The published categories in `root`, or in the first usual folder below it that has any.

    The environment variable LAFITE_BENCH_DATA stands in for a root. DataError where none is found.
    """
    if root is None and (variable := os.environ.get("LAFITE_BENCH_DATA")):
        root = Path(variable)
    candidates = [] if root is None else [root, *(root / below for below in usual_folders)]
    for folder in candidates:
        if any((folder / category / "train").is_dir() for category in published):
            return folder_benchmark(
                name, folder, licence=licence, source=source, published=published
            )
    if root is None:
        fault = "no data root was given"
    else:
        fault = f"not found in {root} nor in its {', '.join(usual_folders)}"
    raise DataError(
        f"{name}: {fault}; set --data or LAFITE_BENCH_DATA to the folder that holds it "
        f"({LAYOUT}); published at {source}"
    )


def _is_category(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in ("train", "test", "ground_truth"))


def _entries(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted, without hidden ones; none where it does not exist."""
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror}); allow reading it") from error


def _folders(folder: Path) -> list[Path]:
    return [path for path in _entries(folder) if path.is_dir()]


def _image_files(folder: Path) -> list[Path]:
    """Files named like an image, broken links too: those are reported, not passed over."""
    return [
        path for path in _entries(folder) if path.suffix.lower() in ENDINGS and not path.is_dir()
    ]


def _defects(category: Path) -> list[str]:
    return [path.name for path in _folders(category / "test")]


def _samples(category: Path, split: str, defects: Sequence[str]) -> list[Sample]:
    masks = _masks(category) if split == "test" else {}
    return [
        Sample(
            key=f"{category.name}/{split}/{defect}/{path.name}",
            category=category.name,
            defect=defect,
            path=path,
            masks=() if defect == "good" else masks.get((defect, path.stem), ()),
        )
        for defect in defects
        for path in _image_files(category / split / defect)
    ]


def _masks(category: Path) -> dict[tuple[str, str], tuple[Path, ...]]:
    """(defect, image name) -> mask files; matched by name, never by position."""
    masks: dict[tuple[str, str], tuple[Path, ...]] = {}
    for folder in _folders(category / "ground_truth"):
        for path in _image_files(folder):
            match = MASK_NAME.fullmatch(path.stem)
            key = (folder.name, match["image"] if match else "")
            masks[key] = (*masks.get(key, ()), path)
    return masks


def _strays(category: Path) -> list[str]:
    """Masks without an image, and folders that the layout does not know."""
    images = {
        (defect, path.stem)
        for defect in _defects(category)
        if defect != "good"
        for path in _image_files(category / "test" / defect)
    }
    lines = [
        f"{path}: is a mask without a defective image; name it NAME_mask.png after its image "
        f"in test/{defect}, or remove it"
        for (defect, name), paths in _masks(category).items()
        if (defect, name) not in images
        for path in paths
    ]
    unknown = [path for path in _folders(category / "train") if path.name != "good"]
    unknown += _folders(category / "train" / "good")
    for defect in _defects(category):
        unknown += _folders(category / "test" / defect)
    lines += [f"{path}: is not read: the layout has no such folder; move it" for path in unknown]
    return lines
