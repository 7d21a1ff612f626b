"""Real-IAD: thirty products from five views each (Wang et al., CVPR 2024).

The split is that of `realiad_jsons/<set>/<category>.json`; each view counts alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.base import Benchmark, DataError
from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, found_folder, listed_benchmark

SPLITS = ("realiad_jsons/realiad_jsons", "realiad_jsons")
SIZES = ("realiad_1024", "realiad_512", "realiad_256", ".")
CATEGORIES = (
    "audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts",
    "pcb", "phone_battery", "plastic_nut", "plastic_plug", "porcelain_doll", "regulator",
    "rolled_strip_base", "sim_card_set", "switch", "tape", "terminalblock", "toothbrush", "toy",
    "toy_brick", "transistor1", "u_block", "usb", "usb_adaptor", "vcpill", "wooden_beads",
    "woodstick", "zipper",
)  # fmt: skip
KNOWN = Published(
    "real_iad",
    "CC BY-NC-SA 4.0: not for commercial use",
    "realiad4ad.github.io/Real-IAD (on request)",
    "realiad_jsons/<set>/<category>.json and realiad_1024/<category>",
    ("real_iad", "Real-IAD", "realiad"),
    dict.fromkeys(CATEGORIES),
)


def open_real_iad(root: Path | None) -> Benchmark:
    """The images that the JSON files of the plain unsupervised set name."""
    folder = found_folder(KNOWN, root, lambda folder: bool(_lists(folder)))
    images = (image for file in _lists(folder) for image in _images(folder, file))
    return listed_benchmark(KNOWN, folder, images)


def _lists(folder: Path) -> list[Path]:
    return next((found for name in SPLITS if (found := sorted((folder / name).glob("*.json")))), [])


def _images(folder: Path, file: Path) -> Iterator[Listed]:
    try:
        content = json.loads(file.read_bytes())
        prefix = content.get("meta", {}).get("prefix", file.stem)
        rows = [(split, row) for split in ("train", "test") for row in content[split]]
        named = [
            (split, str(row["anomaly_class"]), str(row["image_path"]), row.get("mask_path"))
            for split, row in rows
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{file}: is no list of Real-IAD ({error}); copy it again") from None
    below = next((folder / s / prefix for s in SIZES if (folder / s / prefix).is_dir()), folder)
    for split, kind, image, mask in named:
        normal = kind == "OK"
        masks = () if normal or not mask else (below / str(mask),)
        yield Listed(split, file.stem, "good" if normal else kind, below / image, masks)


BENCHMARK = open_real_iad
