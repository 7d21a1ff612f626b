"""MVTec LOCO AD: logical and structural anomalies (Bergmann et al., IJCV 2022).

An image has a mask for each defect; all of them together are its truth. `validation/good` is for
choosing by whoever does not hold out images; it is not read. The authors' sPRO is not measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, by_category, images_in

CATEGORIES = ("breakfast_box", "juice_bottle", "pushpins", "screw_bag", "splicing_connectors")
KNOWN = Published(
    "mvtec_loco",
    "CC BY-NC-SA 4.0: not for commercial use",
    "mvtec.com/company/research/datasets/mvtec-loco (free, after registration)",
    "<category>/train/good, test/<good or kind>, ground_truth/<kind>/<image>/000.png",
    ("mvtec_loco", "mvtec_loco_anomaly_detection", "MVTec_LOCO"),
    dict.fromkeys(CATEGORIES),
)
KINDS = ("logical_anomalies", "structural_anomalies")


def _images(category: Path) -> Iterator[Listed]:
    for split in ("train", "test"):
        for path in images_in(category / split / "good"):
            yield Listed(split, category.name, "good", path)
    for kind in KINDS:
        for path in images_in(category / "test" / kind):
            folder = category / "ground_truth" / kind / path.stem
            masks = tuple(images_in(folder)) or (folder / "000.png",)
            yield Listed("test", category.name, kind, path, masks)


BENCHMARK = partial(by_category, KNOWN, "train/good", _images)
