"""The content of a category's folder: all is used, passed over by a named rule, or reported.

Names are compared in Unicode's form NFC: what a Mac wrote in NFD is the same name.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.base import DataError, Sample
from benchmarks.parts.decode import ENDINGS, unread_image

LAYOUT = "<category>/train/good, <category>/test/<good or defect>, <category>/ground_truth/<defect>"
DOCUMENTS = (
    *(".txt", ".md", ".rst", ".pdf", ".html", ".csv", ".json", ".xml", ".yaml", ".yml", ".toml"),
    *(".log", ".md5", ".sha256", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ods", ".pptx"),
)
SIDECARS = (".xmp", ".aae", ".thm", ".tfw", ".jgw", ".pgw", ".wld")
"""Files that cameras, photo programs and maps keep beside an image."""
DOCUMENT_NAMES = ("license", "licence", "readme", "copying", "citation")
SYSTEM_NAMES = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "lost+found"),
    *("$recycle.bin", "system volume information"),
)
MEANT = dict.fromkeys(("groundtruth", "gt", "mask", "masks"), "ground_truth") | {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
}
"""Usual names of the parts of a category, without case, blanks and dashes."""
GOOD_WORDS = (
    *("good", "ok", "okay", "normal", "fine", "pass", "passed", "clean"),
    *("nodefect", "nodefects", "defectfree", "nondefective"),
)
"""Usual names of the folder of normal images, so too."""


def ignored(path: Path) -> str:
    """The rule by which a file or folder is passed over; empty if it counts."""
    name, ending = path.name.casefold(), path.suffix.casefold()
    if name.startswith("."):
        return "hidden"
    if name in SYSTEM_NAMES:
        return "made by the system"
    if (ending in DOCUMENTS or name in DOCUMENT_NAMES) and not path.is_dir():
        return "a document"
    if ending in SIDECARS:
        return "a sidecar of an image"
    if ending == ".dvc" and path.with_suffix("").exists():
        return "a pointer of DVC to what lies beside it"
    return ""


def is_image(path: Path) -> bool:
    """Whether a file is named like an image that is read."""
    return path.suffix.casefold() in ENDINGS


def images_below(folder: Path) -> list[Path]:
    """The images in a folder and those below it, sorted; also those that can't be read."""
    found: list[Path] = []
    for path in entries(folder):
        if ignored(path):
            continue
        if path.is_dir():
            found += [] if path.is_symlink() else images_below(path)
        elif is_image(path) or unread_image(path):
            found.append(path)
    return found


def is_good(name: str) -> bool:
    """Whether a folder of this name holds normal images."""
    return bare(name) in GOOD_WORDS


def bare(name: str) -> str:
    """A name without case, blanks and dashes."""
    return re.sub(r"[\s_-]", "", unicodedata.normalize("NFKC", name)).casefold()


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
    """Whether there are masks, which then all defective images need."""
    _keys: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The category."""
        return nfc(self.folder.name)

    def add(
        self, split: str, defect: str, path: Path, masks: tuple[Path, ...] = (), name: str = ""
    ) -> None:
        """An image that is used; its `name` is unique in its split and defect, else its file's."""
        key = f"{self.name}/{split}/{nfc(defect)}/{nfc(name or path.name)}"
        if key in self._keys:
            self.report(path, f"is a second {printable(key)}; rename it, or move it elsewhere")
            return
        self._keys.add(key)
        samples = self.train_samples if split == "train" else self.test_samples
        samples.append(Sample(key, self.name, nfc(defect), path, masks))
        self.masked |= bool(masks)

    def report(self, path: Path, fault: str) -> None:
        """A fault of a file, or of a folder with something in it: an empty one misleads nobody."""
        if not path.is_dir() or entries(path):
            self.problems.setdefault(path, f"{printable(path)}: {fault}")

    def counting(self, folder: Path) -> Iterator[Path]:
        """The entries of a folder that no rule passes over, and whose names are text."""
        for path in entries(folder):
            if path in self.problems:
                continue
            if rule := ignored(path):
                self.ignored[path] = rule
            elif printable(path.name) != path.name:
                self.report(path, "is not named in UTF-8; rename it (convmv does many at once)")
            elif path.suffix == ".dvc":
                self.report(path, "points to what is not here; fetch it with dvc pull")
            else:
                yield path

    def images(
        self, paths: Iterable[Path], nested: Callable[[Path], str] = lambda path: HIGHER
    ) -> list[Path]:
        """The images among entries that should be nothing else; `nested` is a folder's fault."""
        images: list[Path] = []
        for path in paths:
            if path.is_dir():
                self.report(path, nested(path))
            elif not is_image(path):
                self.report(path, unread_image(path) or NO_IMAGE)
            elif path.exists() and not path.is_file():
                self.report(path, "is no file but a device or pipe; remove it")
            else:
                images.append(path)
        return images

    def loose(self, path: Path, fault: str) -> None:
        """A file where no images lie: a `fault` if it is an image, else it is not read."""
        if is_image(path):
            self.report(path, fault)
        elif unread := unread_image(path):
            self.report(path, unread)
        else:
            self.unread.append(path)


HIGHER = "is not read: images lie one folder higher; move them"
NO_IMAGE = "is no image by its ending; convert it to PNG, or remove it"
