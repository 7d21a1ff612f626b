"""BTAD (beanTech): three products, body and surface defects (Mishra et al., ISIE 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.base import Counts
from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, by_category, images_in

KNOWN = Published(
    "btad",
    "CC BY-NC-SA 4.0: not for commercial use",
    "github.com/pankajmishra000/VT-ADL (its README links the archive)",
    "<01, 02 or 03>/train/ok, test/ok, test/ko, ground_truth/ko",
    ("btad", "BTAD", "BTech_Dataset_transformed"),
    {"01": Counts(400, 21, 49), "02": Counts(399, 30, 200), "03": Counts(1000, 400, 41)},
)


def _images(product: Path) -> Iterator[Listed]:
    """Images are bmp or png, masks either: they belong together by their stems."""
    for split in ("train", "test"):
        for path in images_in(product / split / "ok"):
            yield Listed(split, product.name, "good", path)
    masks = {path.stem: path for path in images_in(product / "ground_truth/ko")}
    for path in images_in(product / "test/ko"):
        mask = masks.get(path.stem, product / "ground_truth/ko" / f"{path.stem}.png")
        yield Listed("test", product.name, "ko", path, (mask,))


BENCHMARK = partial(by_category, KNOWN, "train/ok", _images)
