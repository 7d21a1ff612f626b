"""The content of a category's folder: all is used, passed over by a named rule, or reported.

    <category>/train/good/NAME.png
    <category>/test/good/NAME.png
    <category>/test/<defect>/NAME.png
    <category>/ground_truth/<defect>/NAME_mask.png   (or several: NAME_mask_1.png, ...)

Names are compared in Unicode's form NFC: what a Mac wrote in NFD is the same name. Folders are read
to this depth and no deeper, so a loop of symbolic links ends nowhere.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.base import DataError, Sample

PARTS = ("train", "test", "ground_truth")
LAYOUT = "<category>/train/good, <category>/test/<good or defect>, <category>/ground_truth/<defect>"
ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
)
DOCUMENTS = (
    *(".txt", ".md", ".rst", ".pdf", ".html", ".csv", ".json", ".xml", ".yaml", ".yml", ".toml"),
    *(".log", ".md5", ".sha256"),
)
ANNOTATIONS = (".json", ".xml", ".txt", ".csv", ".yaml", ".yml")
"""Documents which in the place of masks are masks of another format."""
DOCUMENT_NAMES = ("license", "licence", "readme", "copying", "citation")
SYSTEM_NAMES = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"),
    *("$recycle.bin", "system volume information"),
)
MASK_NAME = re.compile(r"(?P<image>.+)_mask(_\d+)?")
_MEANT = dict.fromkeys(("groundtruth", "gt", "mask", "masks"), "ground_truth") | {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
}
GOOD_WORDS = (
    *("good", "ok", "okay", "normal", "fine", "pass", "passed", "clean"),
    *("nodefect", "nodefects", "defectfree", "nondefective"),
)
"""Usual names of the folder of normal images, without case, blanks and dashes."""


def ignored(path: Path) -> str:
    """The rule by which a file or folder is passed over; empty if it counts."""
    name = path.name.casefold()
    if name.startswith("."):
        return "hidden"
    if name in SYSTEM_NAMES:
        return "made by the system"
    if (path.suffix.casefold() in DOCUMENTS or name in DOCUMENT_NAMES) and not path.is_dir():
        return "a document"
    return ""


def is_image(path: Path) -> bool:
    """Whether a file is named like an image."""
    return path.suffix.lower() in ENDINGS


def is_category(folder: Path) -> bool:
    """Whether a folder has the parts of a category, which are not categories of these names."""

    def parts_of(inside: Path) -> list[Path]:
        return [inside / part for part in PARTS if (inside / part).is_dir()]

    return any(not parts_of(part) for part in parts_of(folder))


def is_good(name: str) -> bool:
    """Whether a folder of this name holds normal images."""
    return _bare(name) in GOOD_WORDS


def misspelt_parts(folder: Path) -> dict[Path, str]:
    """Folders in it that seem meant as parts of a category, and the names that these have."""
    below = [path for path in entries(folder) if path.is_dir() and path.name not in PARTS]
    meant = {path: _MEANT.get(_bare(path.name), "") for path in below}
    return {path: name for path, name in meant.items() if name}


def entries(folder: Path) -> list[Path]:
    """The entries of a folder, sorted; none where it is missing, DataError if it can't be read."""
    if not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir(), key=lambda path: os.fsencode(path.name))
    except OSError as error:
        raise DataError(
            f"{printable(folder)}: cannot be read ({error.strerror}); allow reading it"
        ) from error


def nfc(name: str) -> str:
    """A name in Unicode's form NFC, in which names are compared."""
    return unicodedata.normalize("NFC", name)


def printable(path: Path | str) -> str:
    """A path as text for a terminal: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


@dataclass
class Inventory:
    """One category: its samples, and every other path with the reason why it is none.

    `problems` are faults, one line each; `unread` what is not read and harms nobody there.
    """

    folder: Path
    train_samples: list[Sample] = field(default_factory=list)
    test_samples: list[Sample] = field(default_factory=list)
    ignored: dict[Path, str] = field(default_factory=dict)
    problems: dict[Path, str] = field(default_factory=dict)
    unread: list[Path] = field(default_factory=list)
    masked: bool = False

    @property
    def name(self) -> str:
        """The category."""
        return nfc(self.folder.name)


def take(folder: Path) -> Inventory:
    """The inventory of a category's folder; DataError where a folder in it can't be read."""
    inventory = Inventory(folder)
    for path in _counting(inventory, folder):
        if path.name not in PARTS or not path.is_dir():
            _beside_the_parts(inventory, path)
    inventory.train_samples = [_sample(inventory, path) for path in _train_images(inventory)]
    test_images = _test_images(inventory)
    masks = _masks(inventory, test_images)
    inventory.masked = any(defect != "good" for defect, _ in masks)
    inventory.test_samples = [_sample(inventory, path, masks) for path in test_images]
    return inventory


def _train_images(inventory: Inventory) -> list[Path]:
    images: list[Path] = []
    for path in _counting(inventory, inventory.folder / "train"):
        if path.name == "good" and path.is_dir():
            images += _images(inventory, path)
        elif path.is_dir():
            hint = "name it train/good" if is_good(path.name) else "move its normal images there"
            _report_folder(
                inventory, path, f"is not read: training images lie in train/good; {hint}"
            )
        else:
            _report(
                inventory, path, "is not read: training images lie in train/good; move it there"
            )
    return images


def _test_images(inventory: Inventory) -> list[Path]:
    images: list[Path] = []
    for path in _counting(inventory, inventory.folder / "test"):
        if not path.is_dir():
            advice = "move it into test/good or the folder of its defect"
            _report(inventory, path, f"is not read: test images lie one folder deeper; {advice}")
        elif path.name != "good" and is_good(path.name):
            advice = "name it test/good if its images are normal, else after their defect"
            _report_folder(inventory, path, f"are these normal images? {advice}")
        else:
            images += _images(inventory, path)
    return images


def _masks(inventory: Inventory, images: list[Path]) -> dict[tuple[str, str], tuple[Path, ...]]:
    """(defect, image name) -> mask files; matched by name, never by position."""
    by_name: dict[tuple[str, str], list[Path]] = {}
    for image in images:
        by_name.setdefault((nfc(image.parent.name), nfc(image.stem)), []).append(image)
    masks: dict[tuple[str, str], tuple[Path, ...]] = {}
    for path in _mask_files(inventory):
        defect = nfc(path.parent.name)
        match = MASK_NAME.fullmatch(nfc(path.stem))
        key = (defect, match["image"] if match else "")
        if len(owners := by_name.get(key, ())) == 1:
            masks[key] = (*masks.get(key, ()), path)
        elif owners:
            names = " and ".join(printable(owner.name) for owner in owners)
            _report(inventory, path, f"is the mask of {names}; give the images different names")
        else:
            _report(inventory, path, _ownerless(path, defect, by_name))
    for of_image in masks.values():
        first: dict[str, Path] = {}
        for path in of_image:
            if (other := first.setdefault(nfc(path.stem), path)) is not path:
                _report(
                    inventory, path, f"is a second {printable(other.name)}; remove one of the two"
                )
    return masks


def _mask_files(inventory: Inventory) -> list[Path]:
    files: list[Path] = []
    for path in inventory.folder.glob("ground_truth/*/*"):
        if path.suffix.lower() in ANNOTATIONS:  # elsewhere a document
            _report(inventory, path, "is no image by its ending; draw its outlines as a PNG")
    for path in _counting(inventory, inventory.folder / "ground_truth"):
        if not path.is_dir():
            advice = "move it into the folder of its defect"
            _report(inventory, path, f"is not read: masks lie one folder deeper; {advice}")
            continue
        files += _images(
            inventory,
            path,
            lambda nested: (
                f"is not read: masks lie beside one another; name those of one image "
                f"{printable(nested.name)}_mask.png, {printable(nested.name)}_mask_1.png and put "
                f"them into ground_truth/{printable(nested.parent.name)}"
            ),
        )
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


def _beside_the_parts(inventory: Inventory, path: Path) -> None:
    if path.is_dir():
        meant = _MEANT.get(_bare(path.name))
        advice = f"name it {meant}" if meant else "move what counts into them"
        _report_folder(
            inventory, path, f"is not read beside train, test and ground_truth; {advice}"
        )
    elif is_image(path):
        advice = "move it into train/good or a folder of test"
        _report(inventory, path, f"is not read beside train, test and ground_truth; {advice}")
    else:
        inventory.unread.append(path)


def _images(
    inventory: Inventory, folder: Path, of_nested: Callable[[Path], str] | None = None
) -> list[Path]:
    """The images of a folder that holds nothing else."""
    images: dict[str, Path] = {}
    for path in _counting(inventory, folder):
        name = nfc(path.name)
        if path.is_dir():
            depth = "is not read: images lie one folder higher; move them"
            _report_folder(inventory, path, of_nested(path) if of_nested else depth)
        elif not is_image(path):
            _report(inventory, path, "is no image by its ending; convert it to PNG, or remove it")
        elif path.exists() and not path.is_file():
            _report(inventory, path, "is no file but a device or pipe; remove it")
        elif name in images:
            _report(
                inventory, path, "has the name of another image, in another Unicode form; rename it"
            )
        else:
            images[name] = path
    return list(images.values())


def _counting(inventory: Inventory, folder: Path) -> Iterator[Path]:
    """The entries of a folder that no rule passes over, and whose names are text."""
    for path in entries(folder):
        if path in inventory.problems:
            continue
        if rule := ignored(path):
            inventory.ignored[path] = rule
        elif printable(path.name) != path.name:
            _report(inventory, path, "is not named in UTF-8; rename it (convmv does many at once)")
        else:
            yield path


def _sample(
    inventory: Inventory,
    path: Path,
    masks: Mapping[tuple[str, str], tuple[Path, ...]] | None = None,
) -> Sample:
    split, defect = path.parent.parent.name, nfc(path.parent.name)
    return Sample(
        key=f"{inventory.name}/{split}/{defect}/{nfc(path.name)}",
        category=inventory.name,
        defect=defect,
        path=path,
        masks=(masks or {}).get((defect, nfc(path.stem)), ()),
    )


def _report(inventory: Inventory, path: Path, fault: str) -> None:
    inventory.problems.setdefault(path, f"{printable(path)}: {fault}")


def _report_folder(inventory: Inventory, path: Path, fault: str) -> None:
    """A folder with something in it; an empty one misleads nobody."""
    if entries(path):
        _report(inventory, path, fault)


def _bare(name: str) -> str:
    return re.sub(r"[\s_-]", "", unicodedata.normalize("NFKC", name)).casefold()
