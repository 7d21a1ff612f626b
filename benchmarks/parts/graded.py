"""Folders of good and bad images, as people sort them: <category>/good and <category>/<defect>.

They name no training images, so the normal ones are split 80 to 20 by a hash of their name: the
same ones each time, and adding an image moves no other. A folder of masks may lie beside them, with
masks named after their images: <category>/masks/NAME.png or <category>/masks/<defect>/NAME.png.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from benchmarks.parts.inventory import (
    MEANT,
    Inventory,
    bare,
    entries,
    ignored,
    is_good,
    nfc,
    printable,
)

TRAIN_SHARE = 0.8
REMARK = (
    "folders of good and bad images: 80 % of the normal ones are learned from, the rest is tested "
    "on"
)
MASK_NAME = re.compile(r"(?P<image>.+?)(_mask|_gt)?(_\d+)?", re.IGNORECASE)


def is_graded(folder: Path) -> bool:
    """Whether a folder has a folder of good images."""
    return any(
        is_good(part.name) and any(not ignored(path) for path in entries(part))
        for part in entries(folder)
    )


def graded(folder: Path) -> list[Path]:
    """The folder itself if it has a folder of good images, else those in it that have."""
    if is_graded(folder):
        return [folder.resolve()]
    return [path for path in entries(folder) if not ignored(path) and is_graded(path)]


def take_graded(folder: Path) -> Inventory:
    """The inventory of a category's folder; DataError where a folder in it can't be read."""
    inventory = Inventory(folder)
    images, masks = list[Path](), list[Path]()
    for part in inventory.counting(folder):
        if not part.is_dir():
            inventory.loose(part, "is not read: move it into good or the folder of its defect")
        elif MEANT.get(bare(part.name)) == "ground_truth":
            inside = list(inventory.counting(part))
            masks += inventory.images(path for path in inside if not path.is_dir())
            for of_defect in (path for path in inside if path.is_dir()):
                masks += inventory.images(inventory.counting(of_defect))
        else:
            images += inventory.images(inventory.counting(part))
    of_images = _matched(inventory, masks, images)
    for path in images:
        defect = "good" if is_good(path.parent.name) else path.parent.name
        split = "train" if defect == "good" and _is_learned(path) else "test"
        inventory.add(split, defect, path, tuple(of_images.get(path, ())))
    return inventory


def _matched(inventory: Inventory, masks: list[Path], images: list[Path]) -> dict[Path, list[Path]]:
    """Image -> its masks, by their names; of images of one name the defective ones are meant."""
    by_name: dict[tuple[str, str], list[Path]] = {}
    for image in sorted(images, key=lambda image: is_good(image.parent.name)):
        by_name.setdefault((nfc(image.parent.name), nfc(image.stem)), []).append(image)
        same = by_name.setdefault(("", nfc(image.stem)), [])
        if not same or not is_good(image.parent.name):
            same.append(image)
    found: dict[Path, list[Path]] = {}
    for path in masks:
        defect = "" if path.parent.parent == inventory.folder else nfc(path.parent.name)
        match = MASK_NAME.fullmatch(nfc(path.stem))
        names = (nfc(path.stem), match["image"] if match else "")
        owners = next((by_name[defect, name] for name in names if (defect, name) in by_name), [])
        if len(owners) == 1:
            found.setdefault(owners[0], []).append(path)
        elif owners:
            several = " and ".join(printable(f"{o.parent.name}/{o.name}") for o in owners)
            advice = f"put it into {printable(path.parent.name)}/DEFECT, and name images apart"
            inventory.report(path, f"is the mask of {several}; {advice}")
        else:
            advice = "name it after its image, or remove it"
            inventory.report(path, f"is a mask without an image; {advice}")
    return found


def _is_learned(path: Path) -> bool:
    digest = hashlib.sha256(nfc(path.name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") < TRAIN_SHARE * 2**32
