"""KolektorSDD2: one surface, with defects in the training images too (Bozic et al., 2021).

Whether an image is defective is what its mask says, so one without a mask is a fault. The defective
training images are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Benchmark, Counts
from benchmarks.parts.content import map_threads
from benchmarks.parts.decode import read_marks
from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, found_folder, images_in, listed_benchmark

CATEGORY = "surface"
MASK = "_GT"
KNOWN = Published(
    "kolektorsdd2",
    "CC BY-NC-SA 4.0: not for commercial use",
    "vicos.si/resources/kolektorsdd2",
    "train/NNNNN.png with NNNNN_GT.png, test the same",
    ("kolektorsdd2", "KolektorSDD2", "KSDD2"),
    {CATEGORY: Counts(2085, 894, 110)},
)


def open_kolektorsdd2(root: Path | None) -> Benchmark:
    """The images in `root` or in a usual folder below it; masks say which of them are defective."""

    def holds(folder: Path) -> bool:
        return any((folder / "train").glob(f"*{MASK}.png")) and (folder / "test").is_dir()

    folder = found_folder(KNOWN, root, holds)
    return listed_benchmark(KNOWN, folder, _images(folder))


def _images(folder: Path) -> Iterator[Listed]:
    for split in ("train", "test"):
        paths = [p for p in images_in(folder / split) if not p.stem.endswith(MASK)]
        masks = [path.with_name(f"{path.stem}{MASK}.png") for path in paths]
        marked = map_threads(lambda mask: mask.is_file() and bool(read_marks(mask).any()), masks)
        for path, mask, defective in zip(paths, masks, marked, strict=True):
            if not defective:
                yield Listed(split, CATEGORY, "good", path, () if mask.is_file() else (mask,))
            elif split == "test":
                yield Listed(split, CATEGORY, "defect", path, (mask,))


BENCHMARK = open_kolektorsdd2
