"""Data sets that are folders in the MVTec layout, see `benchmarks.parts.inventory`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.base import Counts, DataError
from benchmarks.parts.files import FileBenchmark
from benchmarks.parts.graded import graded, graded_benchmark
from benchmarks.parts.inventory import (
    LAYOUT,
    Inventory,
    entries,
    ignored,
    is_category,
    misspelt_parts,
    nfc,
    printable,
    take,
)
from benchmarks.parts.listed import Published, found_folder


def published_benchmark(known: Published, root: Path | None) -> FileBenchmark:
    """The published categories in `root`, or in the first usual folder below it that has any.

    The environment variable LAFITE_BENCH_DATA stands in for a root. DataError where none is found.
    """

    def holds(folder: Path) -> bool:
        return any((folder / category / "train").is_dir() for category in known.counts)

    return folder_benchmark(known.name, found_folder(known, root, holds), known)


def folder_benchmark(name: str, folder: Path, known: Published | None = None) -> FileBenchmark:
    """A data set from a folder in the MVTec layout; of a `known` one the published categories.

    A folder that is a category itself is a data set; so are folders of good and bad images.
    DataError where the folder is missing or has no category.
    """
    known = known or Published(name)
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: is not a folder; expected one with {LAYOUT}")
    categories, faults, unread = _taken(folder, known.counts)
    faults += [
        f"{printable(category.folder)}: {fault}"
        for category in categories
        if (fault := _bad_name(category, categories))
    ]
    if not categories and faults:
        raise DataError("\n".join(faults))
    if not categories and (flat := graded(folder)):
        return graded_benchmark(name, folder, flat)
    if not categories:
        raise DataError(
            f"{printable(folder)}: has no category; expected {LAYOUT}, or <category>/good and "
            "<category>/<defect>"
        )
    return FileBenchmark(
        name=name,
        licence=known.licence,
        source=known.source,
        location=str(folder),
        no_pixel_reason=(
            ""
            if any(category.masked for category in categories)
            else "no category has masks in ground_truth"
        ),
        train_samples={category.name: category.train_samples for category in categories},
        test_samples={category.name: category.test_samples for category in categories},
        published=known.counts,
        faults=faults,
        strays={category.name: [*category.problems.values()] for category in categories},
        beside=[*unread, *(path for category in categories for path in category.unread)],
    )


def _taken(
    folder: Path, published: Mapping[str, Counts | None]
) -> tuple[list[Inventory], list[str], list[Path]]:
    """The categories in a folder, a line for each misspelt name, and what is passed over."""
    categories, faults, unread = list[Inventory](), list[str](), list[Path]()
    for path in [folder.resolve()] if is_category(folder) else entries(folder):
        if ignored(path):
            continue
        if published and nfc(path.name) not in published:
            if path.is_dir() and path.name.lower() in published:
                faults.append(f"{printable(path)}: is not read; name it {path.name.lower()}")
            continue
        if path.is_dir() and (is_category(path) or not entries(path)):
            categories.append(take(path))
        elif path.is_dir() and (parts := misspelt_parts(path)):
            faults += [
                f"{printable(part)}: is not read; name it {meant}" for part, meant in parts.items()
            ]
        else:
            unread.append(path)
    return categories, faults, unread


def _bad_name(category: Inventory, among: Sequence[Inventory]) -> str:
    """The fault of a category's name; empty if there is none."""
    if printable(category.folder.name) != category.folder.name:
        return "is not named in UTF-8; rename it"
    if any(other.name == category.name and other is not category for other in among):
        return "has the name of another category, in another Unicode form; rename one"
    return ""
