"""Data sets whose files lie in a layout of their own: where they are found, and what is listed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.base import DataError
from benchmarks.parts.files import FileBenchmark, Published
from benchmarks.parts.inventory import Inventory, entries, ignored, is_image


class Listed(NamedTuple):
    """One image: of which split and category, its defect ("good" for none), file and masks."""

    split: str
    category: str
    defect: str
    path: Path
    masks: tuple[Path, ...] = ()
    name: str = ""
    """Unique name within its split, category and defect; empty: that of its file."""


def found_folder(known: Published, root: Path | None, holds: Callable[[Path], bool]) -> Path:
    """`root` itself, or the first usual folder below it that `holds` the data set.

    The environment variable LAFITE_BENCH_DATA stands in for a root. DataError where none does.
    """
    if root is None and (variable := os.environ.get("LAFITE_BENCH_DATA")):
        root = Path(variable)
    candidates = [] if root is None else [root, *(root / below for below in known.usual_folders)]
    for folder in candidates:
        if holds(folder):
            return folder
    if root is None:
        fault = "no data root was given"
    else:
        fault = f"not found in {root} nor in its {', '.join(known.usual_folders)}"
    raise DataError(
        f"{known.name}: {fault}; set --data or LAFITE_BENCH_DATA to the folder that holds it "
        f"({known.layout}); published at {known.source}"
    )


def by_category(
    known: Published, inside: str, images: Callable[[Path], Iterable[Listed]], root: Path | None
) -> FileBenchmark:
    """A data set with a folder for each of its categories, which those have that hold `inside`."""

    def there(folder: Path) -> list[Path]:
        return [folder / name for name in known.counts if (folder / name / inside).is_dir()]

    folder = found_folder(known, root, lambda folder: bool(there(folder)))
    return listed_benchmark(known, folder, (one for each in there(folder) for one in images(each)))


def listed_benchmark(known: Published, folder: Path, images: Iterable[Listed]) -> FileBenchmark:
    """A data set of these images; a file that is missing is a fault, one line each."""
    inventories: dict[str, Inventory] = {}
    for image in images:
        inventory = inventories.setdefault(image.category, Inventory(Path(image.category)))
        inventory.add(image.split, image.defect, image.path, image.masks, image.name)
        for path in (image.path, *image.masks):
            if not path.is_file():
                inventory.report(path, f"is named by {known.name} and missing; copy it again")
    return FileBenchmark(known, folder, inventories.values())


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted; none where there is no folder."""
    return [path for path in entries(folder) if is_image(path) and not ignored(path)]
