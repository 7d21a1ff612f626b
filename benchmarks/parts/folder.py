"""Data sets that are folders: in the MVTec layout, or of good and bad images.

    <category>/train/good/NAME.png
    <category>/test/good/NAME.png
    <category>/test/<defect>/NAME.png
    <category>/ground_truth/<defect>/NAME_mask.png   (or several: NAME_mask_1.png, ...)

Folders are read to this depth and no deeper, so a loop of symbolic links ends nowhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.base import DataError
from benchmarks.parts.decode import unread_image
from benchmarks.parts.files import FileBenchmark, Published
from benchmarks.parts.graded import REMARK, graded, is_graded, take_graded
from benchmarks.parts.inventory import (
    LAYOUT,
    MEANT,
    Inventory,
    bare,
    entries,
    ignored,
    is_good,
    is_image,
    nfc,
    printable,
)
from benchmarks.parts.listed import found_folder

PARTS = ("train", "test", "ground_truth")
ANNOTATIONS = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
"""Documents which in the place of masks are masks of another format."""
NO_MASKS = "; there are no masks, so no pixel metrics"
MASK_NAME = re.compile(r"(?P<image>.+)_mask(_\d+)?")


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
    if not folder.is_dir():
        raise DataError(f"{printable(folder)}: is not a folder; expected one with {LAYOUT}")
    known = known or Published(name)
    categories, faults, unread = _taken(folder, known)
    no_masks, remark = "no category has masks in ground_truth", ""
    mask_advice = "add ground_truth/DEFECT/NAME_mask.png"
    if not categories and not faults and (several := graded(folder)):
        categories = [take_graded(path) for path in several]
        unread = [] if folder.resolve() in several else [p for p in unread if p not in several]
        no_masks, remark = "folders of good and bad images have no masks", REMARK
        mask_advice = "add masks/DEFECT/NAME.png beside good"
    if not categories:
        raise DataError("\n".join(faults) or f"{printable(folder)}: {_no_category(folder)}")
    faults += _bad_names(categories)
    benchmark = FileBenchmark(known, folder, categories, faults, unread)
    masked = any(category.masked for category in categories)
    benchmark.no_pixel_reason = "" if masked else no_masks
    benchmark.remark = remark and f"{remark}{'' if masked else NO_MASKS}"
    benchmark.mask_advice = mask_advice
    return benchmark


def _taken(folder: Path, known: Published) -> tuple[list[Inventory], list[str], list[Path]]:
    """The categories in a folder, a line for each misspelt name, and what is passed over."""
    categories, faults, unread = list[Inventory](), list[str](), list[Path]()
    for path in [folder.resolve()] if is_category(folder) else entries(folder):
        if ignored(path):
            continue
        if known.counts and nfc(path.name) not in known.counts:
            if path.is_dir() and path.name.lower() in known.counts:
                faults.append(f"{printable(path)}: is not read; name it {path.name.lower()}")
        elif path.is_dir() and (is_category(path) or not entries(path)):
            categories.append(take(path))
        elif path.is_dir() and not is_graded(path) and (parts := misspelt_parts(path)):
            faults += [
                f"{printable(part)}: is not read; name it {meant}" for part, meant in parts.items()
            ]
        else:
            unread.append(path)
    return categories, faults, unread


def _bad_names(categories: Sequence[Inventory]) -> list[str]:
    faults = {}
    for category in categories:
        if printable(category.folder.name) != category.folder.name:
            faults[category.folder] = "is not named in UTF-8; rename it"
        elif any(other.name == category.name and other is not category for other in categories):
            advice = "has the name of another category, in another Unicode form; rename one"
            faults[category.folder] = advice
    return [f"{printable(folder)}: {fault}" for folder, fault in faults.items()]


def _no_category(folder: Path) -> str:
    """Why a folder is no data set, and what is nearest to one."""
    inside = [path for path in entries(folder) if not ignored(path)]
    for path in (path for path in inside if path.is_dir()):
        if bare(path.name).startswith(("good", "normal")):
            return f"has no category; if the images in {printable(path)} are normal, name it good"
        if any(is_category(below) or is_graded(below) for below in entries(path)):
            return f"has no category, but {printable(path)} has some: give that folder"
    if any(is_image(path) or unread_image(path) for path in inside):
        return "has images and no category; put normal ones into good, others into a folder each"
    return f"has no category; expected {LAYOUT}, or <category>/good and <category>/<defect>"


def is_category(folder: Path) -> bool:
    """Whether a folder has the parts of a category, which are not categories of these names."""

    def parts_of(inside: Path) -> list[Path]:
        return [inside / part for part in PARTS if (inside / part).is_dir()]

    return any(not parts_of(part) for part in parts_of(folder))


def misspelt_parts(folder: Path) -> dict[Path, str]:
    """Folders in it that seem meant as parts of a category, and the names that these have."""
    below = [path for path in entries(folder) if path.is_dir() and path.name not in PARTS]
    return {path: MEANT[bare(path.name)] for path in below if bare(path.name) in MEANT}


def take(folder: Path) -> Inventory:
    """The inventory of a category's folder; DataError where a folder in it can't be read."""
    inventory = Inventory(folder)
    for path in inventory.counting(folder):
        if path.name in PARTS and path.is_dir():
            continue
        beside = "is not read beside train, test and ground_truth"
        if path.is_dir():
            meant = MEANT.get(bare(path.name))
            advice = f"name it {meant}" if meant else "move what counts into them"
            inventory.report(path, f"{beside}; {advice}")
        else:
            inventory.loose(path, f"{beside}; move it into train/good or a folder of test")
    for path in _train_images(inventory):
        inventory.add("train", "good", path)
    images = _test_images(inventory)
    masks = _masks(inventory, images)
    for path in images:
        key = (nfc(path.parent.name), nfc(path.stem))
        inventory.add("test", path.parent.name, path, masks.get(key, ()))
    inventory.masked = any(defect != "good" for defect, _ in masks)  # black ones may lie alone
    return inventory


def _train_images(inventory: Inventory) -> list[Path]:
    images: list[Path] = []
    for path in inventory.counting(inventory.folder / "train"):
        if path.name == "good" and path.is_dir():
            images += inventory.images(inventory.counting(path))
            continue
        advice = "move it there"
        if path.is_dir():
            named = "name it train/good", "move its normal images there"
            advice = named[0] if is_good(path.name) else named[1]
        inventory.report(path, f"is not read: training images lie in train/good; {advice}")
    return images


def _test_images(inventory: Inventory) -> list[Path]:
    images: list[Path] = []
    for path in inventory.counting(inventory.folder / "test"):
        if not path.is_dir():
            advice = "move it into test/good or the folder of its defect"
            inventory.report(path, f"is not read: test images lie one folder deeper; {advice}")
        elif path.name != "good" and is_good(path.name):
            advice = "name it test/good if its images are normal, else after their defect"
            inventory.report(path, f"are these normal images? {advice}")
        else:
            images += inventory.images(inventory.counting(path))
    return images


def _masks(inventory: Inventory, images: list[Path]) -> dict[tuple[str, str], tuple[Path, ...]]:
    """(defect, image name) -> mask files; matched by name, never by position."""
    by_name: dict[tuple[str, str], list[Path]] = {}
    for image in images:
        by_name.setdefault((nfc(image.parent.name), nfc(image.stem)), []).append(image)
    masks: dict[tuple[str, str], dict[str, Path]] = {}
    for path in _mask_files(inventory):
        defect = nfc(path.parent.name)
        match = MASK_NAME.fullmatch(nfc(path.stem))
        key = (defect, match["image"] if match else "")
        if len(owners := by_name.get(key, ())) == 1:
            other = masks.setdefault(key, {}).setdefault(nfc(path.stem), path)
            if other is not path:
                fault = f"is a second {printable(other.name)}; remove one of the two"
                inventory.report(path, fault)
        elif owners:
            names = " and ".join(printable(owner.name) for owner in owners)
            inventory.report(path, f"is the mask of {names}; give the images different names")
        else:
            inventory.report(path, _ownerless(path, defect, by_name))
    return {key: tuple(of_image.values()) for key, of_image in masks.items()}


def _mask_files(inventory: Inventory) -> list[Path]:
    files: list[Path] = []
    for path in inventory.folder.glob("ground_truth/*/*"):
        if path.suffix.lower() in ANNOTATIONS:  # elsewhere a document
            inventory.report(path, "is no image by its ending; draw its outlines as a PNG")

    def nested(path: Path) -> str:
        image, defect = printable(path.name), printable(path.parent.name)
        return (
            f"is not read: masks lie beside one another; name those of one image {image}_mask.png, "
            f"{image}_mask_1.png and put them into ground_truth/{defect}"
        )

    for path in inventory.counting(inventory.folder / "ground_truth"):
        if path.is_dir():
            files += inventory.images(inventory.counting(path), nested)
        else:
            advice = "move it into the folder of its defect"
            inventory.report(path, f"is not read: masks lie one folder deeper; {advice}")
    return files


def _ownerless(path: Path, defect: str, by_name: Mapping[tuple[str, str], list[Path]]) -> str:
    """Why a mask has no image, as far as names tell."""
    name = nfc(path.stem)
    if (defect, name) in by_name:
        return f"is no mask by its name; name it {printable(path.stem)}_mask{path.suffix}"
    folders = {of for of, _ in by_name}
    if defect not in folders:
        near = [of for of in folders if of.casefold() == defect.casefold()]
        advice = f"name its folder {near[0]}, as in test" if near else "add it, or remove the mask"
        return f"is a mask without an image: test/{printable(defect)} has none; {advice}"
    return (
        f"is a mask without an image; name it NAME_mask.png after its image in "
        f"test/{printable(defect)}, or remove it"
    )
