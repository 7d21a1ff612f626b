"""Folders of images that are mended as an error advises: the second try succeeds."""

from __future__ import annotations

import io
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from made_data import write_category, write_image, write_mask
from PIL import Image
from rich.console import Console

from benchmarks.base import DataError
from harness.checks.data import check_data
from harness.plan.options import Selection
from harness.plan.plan import plan
from harness.plan.registry import UsageError
from harness.work.cache import FeatureCache

BOLT = "parts/bolt"


class Case(NamedTuple):
    """How a sound folder is spoiled, what is said, and that advice followed word by word."""

    spoil: Callable[[Path], object]
    said: str
    follow: Callable[[Path], object]
    asked: dict[str, object] = {}  # noqa: RUF012
    asked_again: dict[str, object] = {}  # noqa: RUF012


def attempt(root: Path, asked: dict[str, object]) -> tuple[str, str]:
    """What a command that trains nothing would say: its error, and its notes."""
    words = {"benchmarks": [str(root / "parts")], "methods": ["draem"], "preset": "smoke"}
    selection = Selection(**(words | {"seeds": 1} | asked))  # type: ignore[arg-type]
    screen = io.StringIO()
    notes: list[str] = []
    try:
        cells = plan(selection, say=notes.append)
        check_data(
            cells,
            FeatureCache(root=root / "cache"),
            Console(file=screen),
            trust_masks=selection.trust_masks,
        )
    except (UsageError, DataError) as error:
        return str(error), ""
    return "", "\n".join([*notes, screen.getvalue()])


def moved(source: str, target: str) -> Callable[[Path], object]:
    def move(root: Path) -> None:
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        (root / source).rename(root / target)

    return move


def removed(name: str) -> Callable[[Path], object]:
    def remove(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def image(name: str, **options: int) -> Callable[[Path], object]:
    return lambda root: write_image(root / name, **{"seed": 70} | options)


def mask(name: str, **options: int) -> Callable[[Path], object]:
    return lambda root: write_mask(root / name, **options)


def nothing(root: Path) -> None:
    """The advice is about the command."""


def inverted(root: Path) -> None:
    for path in (root / BOLT / "ground_truth/crack").iterdir():
        Image.fromarray(255 - np.array(Image.open(path))).save(path)


def unnamed(root: Path) -> None:
    folder = os.fsencode(root / BOLT / "train/good")
    os.rename(folder + b"/000.png", folder + b"/\xdf.png")  # noqa: PTH104


def renamed(root: Path) -> None:
    folder = os.fsencode(root / BOLT / "train/good")
    os.rename(folder + b"/\xdf.png", folder + "/ß.png".encode())  # noqa: PTH104


def soft(root: Path) -> None:
    path = root / BOLT / "ground_truth/crack/000_mask.png"
    values = np.array(Image.open(path)).astype(float)
    values[1:6, 2:7] += np.arange(25).reshape(5, 5)
    Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


def hardened(root: Path) -> None:
    path = root / BOLT / "ground_truth/crack/000_mask.png"
    Image.fromarray(np.uint8(255) * (np.array(Image.open(path)) > 127)).save(path)


def negative(root: Path) -> None:
    values = np.full((10, 12), -1, np.float32)
    Image.fromarray(values).save(root / BOLT / "train/good/x.tif")


def positive(root: Path) -> None:
    Image.fromarray(np.full((10, 12), 1, np.float32)).save(root / BOLT / "train/good/x.tif")


TRAIN, TEST, TRUTH = f"{BOLT}/train", f"{BOLT}/test", f"{BOLT}/ground_truth"
CASES = {
    "good with a capital": Case(
        moved(f"{TEST}/good", f"{TEST}/Good"), "name it test/good if its images are normal",
        moved(f"{TEST}/Good", f"{TEST}/good"),
    ),
    "normal images under a word for good": Case(
        moved(f"{TRAIN}/good", f"{TRAIN}/ok"), "name it train/good",
        moved(f"{TRAIN}/ok", f"{TRAIN}/good"),
    ),
    "a loose test image": Case(
        image(f"{TEST}/x.png"), "move it into test/good or the folder of its defect",
        moved(f"{TEST}/x.png", f"{TEST}/good/x.png"),
    ),
    "a folder too deep": Case(
        image(f"{TEST}/good/deep/x.png"), "images lie one folder higher; move them",
        moved(f"{TEST}/good/deep/x.png", f"{TEST}/good/x.png"),
    ),
    "no image by its ending": Case(
        lambda root: (root / TRAIN / "good/x.heic").write_bytes(b"?"),
        "convert it to PNG, or remove it", removed(f"{TRAIN}/good/x.heic"),
    ),
    "masks called masks": Case(
        moved(TRUTH, f"{BOLT}/masks"), "name it ground_truth", moved(f"{BOLT}/masks", TRUTH)
    ),
    "parts misspelt": Case(
        lambda root: [moved(f"{BOLT}/{p}", f"{BOLT}/{p.upper()}")(root) for p in ("train", "test")]
        + [removed(TRUTH)(root)],
        "TEST: is not read; name it test",
        lambda root: [moved(f"{BOLT}/{p.upper()}", f"{BOLT}/{p}")(root) for p in ("train", "test")],
    ),
    "a nested mask": Case(
        moved(f"{TRUTH}/crack/000_mask.png", f"{TRUTH}/crack/000/x.png"),
        "name those of one image 000_mask.png",
        lambda root: [moved(f"{TRUTH}/crack/000/x.png", f"{TRUTH}/crack/000_mask.png")(root),
                      removed(f"{TRUTH}/crack/000")(root)],
    ),
    "a mask named as its image": Case(
        moved(f"{TRUTH}/crack/000_mask.png", f"{TRUTH}/crack/000.png"), "name it 000_mask.png",
        moved(f"{TRUTH}/crack/000.png", f"{TRUTH}/crack/000_mask.png"),
    ),
    "a mask of two images": Case(
        image(f"{TEST}/crack/000.bmp"), "give the images different names",
        lambda root: [moved(f"{TEST}/crack/000.bmp", f"{TEST}/crack/900.bmp")(root),
                      mask(f"{TRUTH}/crack/900_mask.png")(root)],
    ),
    "a mask missing": Case(
        removed(f"{TRUTH}/crack/000_mask.png"), "add ground_truth/crack/000_mask.png",
        mask(f"{TRUTH}/crack/000_mask.png"),
    ),
    "a mask of another size": Case(
        mask(f"{TRUTH}/crack/000_mask.png", size=(9, 9)), "make the mask as large as the image",
        mask(f"{TRUTH}/crack/000_mask.png"),
    ),
    "an empty mask": Case(
        mask(f"{TRUTH}/crack/000_mask.png", value=0), "redraw it",
        mask(f"{TRUTH}/crack/000_mask.png"),
    ),
    "a marked normal image": Case(
        mask(f"{TRUTH}/good/000_mask.png"), "is it defective\\? move both to its defect",
        lambda root: [moved(f"{TEST}/good/000.png", f"{TEST}/crack/800.png")(root),
                      moved(f"{TRUTH}/good/000_mask.png", f"{TRUTH}/crack/800_mask.png")(root)],
    ),
    "inverted masks": Case(inverted, "inverted\\? mark the defect", inverted),
    "inverted masks that are right": Case(
        inverted, "take it as it is with --trust-masks", nothing, {}, {"trust_masks": True}
    ),
    "soft masks": Case(soft, "save it as PNG with 0 and 255", hardened),
    "soft masks that are right": Case(
        soft, "all above 0 with --trust-masks", nothing, {}, {"trust_masks": True}
    ),
    "a name in no encoding": Case(unnamed, "is not named in UTF-8; rename it", renamed),
    "an empty file": Case(
        lambda root: (root / TRAIN / "good/000.png").write_bytes(b""), "copy it again or remove it",
        image(f"{TRAIN}/good/000.png"),
    ),
    "a file cut off": Case(
        lambda root: (root / TRAIN / "good/000.png").write_bytes(b"\\x89PNG\\r\\n\\x1a\\n?"),
        "replace it or remove it", removed(f"{TRAIN}/good/000.png"),
    ),
    "a link to nowhere": Case(
        lambda root: (root / TRAIN / "good/x.png").symlink_to(root / "gone"),
        "cannot be read .No such file or directory.; replace it",
        lambda root: [removed(f"{TRAIN}/good/x.png")(root), image(f"{TRAIN}/good/x.png")(root)],
    ),
    "pixels below zero": Case(negative, "save it with values from 0 on", positive),
    "no test images": Case(
        lambda root: [removed(TEST)(root), removed(TRUTH)(root)],
        "put normal ones into bolt/test/good, others into bolt/test/DEFECT",
        lambda root: [image(f"{TEST}/good/0.png")(root), image(f"{TEST}/dent/0.png", seed=3)(root)],
    ),
    "no training images": Case(
        removed(TRAIN), "put normal ones into bolt/train/good", image(f"{TRAIN}/good/0.png")
    ),
    "hidden files among textures": Case(
        lambda root: [image("textures/a.png")(root),
                      (root / "textures/b.png").write_bytes(b"?")],
        "replace or remove it", removed("textures/b.png"),
        {"overrides": ["draem.textures=textures"]}, {"overrides": ["draem.textures=textures"]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_advice_that_is_followed_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_category(tmp_path / BOLT)
    case = CASES[name]
    case.spoil(tmp_path)
    error, _ = attempt(tmp_path, case.asked)
    assert re.search(case.said, error), error
    assert all(line.startswith(("/", "draem", "...")) for line in error.split("\n"))
    case.follow(tmp_path)
    assert attempt(tmp_path, case.asked_again)[0] == ""


def test_what_was_checked_once_is_checked_again_when_anything_changed(tmp_path: Path) -> None:
    write_category(tmp_path / BOLT)
    assert attempt(tmp_path, {})[0] == ""
    image(f"{TEST}/x.png")(tmp_path)
    assert "x.png: is not read" in attempt(tmp_path, {})[0]
    removed(f"{TEST}/x.png")(tmp_path)
    mask(f"{TRUTH}/dent/000_mask.png")(tmp_path)
    assert "is a mask without an image" in attempt(tmp_path, {})[0]
    removed(f"{TRUTH}/dent")(tmp_path)
    inverted(tmp_path)
    assert "inverted?" in attempt(tmp_path, {})[0]
    assert attempt(tmp_path, {"trust_masks": True})[0] == ""
    assert "inverted?" in attempt(tmp_path, {})[0], "trust holds for the command that has it"


def test_where_images_are_held_out_to_calibrate_test_images_are_checked_too(tmp_path: Path) -> None:
    write_category(tmp_path / BOLT)
    next((tmp_path / TEST).glob("*/*.png")).write_bytes(b"no image")
    assert "is not an image" in attempt(tmp_path, {"calibrate": 0.3})[0]


def test_what_is_worth_knowing_is_said_each_time(tmp_path: Path) -> None:
    write_category(tmp_path / BOLT)
    shutil.copy(tmp_path / TRAIN / "good/000.png", tmp_path / TEST / "good/leak.png")
    (tmp_path / "parts/old.zip").write_bytes(b"?")
    for _ in range(2):
        said = attempt(tmp_path, {})[1]
        assert (
            "a leak from training" in said and "not read, as it is in no category: old.zip" in said
        )


def test_a_category_that_lacks_images_costs_its_own_rows(tmp_path: Path) -> None:
    write_category(tmp_path / BOLT)
    write_category(tmp_path / "parts/nut", seed=500)
    removed("parts/nut/test/good")(tmp_path)
    removed("parts/nut/train")(tmp_path)
    write_category(tmp_path / "parts/pin", seed=700)
    removed("parts/pin/test")(tmp_path)
    removed("parts/pin/ground_truth")(tmp_path)
    (tmp_path / "parts/empty").mkdir()
    for mode in ("multi-class", "separate"):
        error, said = attempt(tmp_path, {"mode": mode})
        assert error == ""
        left_out = re.findall(r"category '(.+?)' has no (.+?) images; .+; it is left out", said)
        assert left_out == [("empty", "training"), ("nut", "training"), ("pin", "test")]
