"""Folders of good and bad images, as people sort them: <category>/good and <category>/<defect>.

They name no training images, so the normal ones are split 80 to 20 by a hash of their name: the
same ones each time, and adding an image moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from benchmarks.parts.files import FileBenchmark
from benchmarks.parts.inventory import entries, ignored, is_good, nfc
from benchmarks.parts.listed import Listed, Published, images_in, listed_benchmark

TRAIN_SHARE = 0.8
REMARK = (
    "folders of good and bad images: 80 % of the normal ones are learned from, the rest is tested "
    "on; there are no masks, so no pixel metrics"
)


def graded(folder: Path) -> list[Path]:
    """The folder itself if it has good and bad images, else those in it that have."""
    inside = [path for path in entries(folder) if path.is_dir() and not ignored(path)]
    if any(is_good(path.name) and images_in(path) for path in inside):
        return [folder]
    return [
        path
        for path in inside
        if any(is_good(part.name) and images_in(part) for part in entries(path))
    ]


def graded_benchmark(name: str, folder: Path, categories: list[Path]) -> FileBenchmark:
    """A data set of these folders."""
    images = (image for path in categories for image in _all(path))
    benchmark = listed_benchmark(Published(name), folder, images)
    benchmark.no_pixel_reason = "folders of good and bad images have no masks"
    benchmark.remark = REMARK
    return benchmark


def _all(category: Path) -> Iterator[Listed]:
    name = nfc(category.resolve().name)
    for part in entries(category):
        for path in images_in(part) if not ignored(part) else ():
            if not is_good(part.name):
                yield Listed("test", name, nfc(part.name), path)
            else:
                yield Listed("train" if _is_learned(path) else "test", name, "good", path)


def _is_learned(path: Path) -> bool:
    digest = hashlib.sha256(nfc(path.name).encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:4], "big") < TRAIN_SHARE * 2**32
