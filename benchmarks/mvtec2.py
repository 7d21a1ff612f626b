"""MVTec AD 2: eight harder categories (Heckler-Kram et al., 2025).

What can be scored here is `test_public`. `test_private` and `test_private_mixed` have no labels, as
the publisher's server scores them; `validation/good` is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.parts.files import Published
from benchmarks.parts.listed import Listed, by_category, images_in

CATEGORIES = (
    "can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts",
)  # fmt: skip
KNOWN = Published(
    "mvtec2",
    "CC BY-NC-SA 4.0: not for commercial use",
    "mvtec.com/company/research/datasets/mvtec-ad-2 (free, after registration)",
    "<category>/train/good, test_public/<good or bad>, test_public/ground_truth/bad",
    ("mvtec2", "mvtec_ad_2", "MVTec_AD_2"),
    dict.fromkeys(CATEGORIES),
)


def _images(category: Path) -> Iterator[Listed]:
    public = category / "test_public"
    for split, folder in (("train", category / "train"), ("test", public)):
        for path in images_in(folder / "good"):
            yield Listed(split, category.name, "good", path)
    for path in images_in(public / "bad"):
        mask = public / "ground_truth/bad" / f"{path.stem}_mask.png"
        yield Listed("test", category.name, "bad", path, (mask,))


BENCHMARK = partial(by_category, KNOWN, "test_public", _images)
