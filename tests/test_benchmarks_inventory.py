"""Everything in a category's folder is used, passed over by a named rule, or reported."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import write_category, write_image, write_mask
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts.content import check, losses
from benchmarks.parts.folder import folder_benchmark, take
from benchmarks.parts.graded import take_graded
from benchmarks.parts.inventory import Inventory

NFC, NFD = "grün", unicodedata.normalize("NFD", "grün")


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    write_category(tmp_path / "widget")
    return tmp_path / "widget"


def lines(folder: Path) -> list[str]:
    data = folder_benchmark("mine", folder.parent)
    return check(data, data.train() + data.test())


@pytest.mark.parametrize(
    "added, said",
    [
        ("train/loose.png", "train/loose.png: is not read: training images lie in train/good"),
        ("train/Good/0.png", "train/Good: is not read: .* name it train/good"),
        ("train/ok/0.png", "train/ok: is not read: .* name it train/good"),
        ("train/crack/0.png", "train/crack: is not read: .* move its normal images there"),
        ("train/good/deep/0.png", "train/good/deep: is not read: images lie one folder higher"),
        ("train/good/0.heic", "0.heic: is a HEIC photograph, which is not read; convert it to PNG"),
        ("train/good/0.CR2", "0.CR2: is the raw file of a camera, which is not read; convert it"),
        ("overview.psd", "overview.psd: is a file of an image editor, which is not read"),
        ("test/dent.dvc", "test/dent.dvc: points to what is not here; fetch it with dvc pull"),
        ("train/good/noending", "train/good/noending: is no image by its ending"),
        ("test/loose.png", "test/loose.png: is not read: test images lie one folder deeper"),
        ("test/GOOD/0.png", "test/GOOD: are these normal images"),
        ("test/good /0.png", "test/good : are these normal images"),
        ("test/Normal/0.png", "test/Normal: are these normal images"),
        ("test/defect-free/0.png", "test/defect-free: are these normal images"),
        ("test/crack/a/0.png", "test/crack/a: is not read: images lie one folder higher"),
        ("test/crack/0.npy", "test/crack/0.npy: is no image by its ending"),
        ("validation/good/0.png", "validation: is not read beside train, test"),
        ("Test/good/0.png", "Test: is not read .* name it test"),
        ("masks/crack/0.png", "masks: is not read .* name it ground_truth"),
        ("overview.png", "overview.png: is not read beside train"),
        ("ground_truth/000_mask.png", "000_mask.png: is not read: masks lie one folder deeper"),
        ("ground_truth/crack/000/0.png", "crack/000: is not read: .* name those of one image 000_"),
        ("ground_truth/crack/000.png", "crack/000.png: is no mask by its name; name it 000_mask"),
        ("ground_truth/Crack/000_mask.png", "test/Crack has none; name its folder crack"),
        ("ground_truth/dent/000_mask.png", "test/dent has none; add it, or remove the mask"),
        ("ground_truth/crack/000_mask.bmp", "000_mask.png: is a second 000_mask.bmp"),
        ("ground_truth/crack/000_mask.json", "000_mask.json: is no image by its ending; draw its"),
        ("ground_truth/crack/000.npy", "000.npy: is no image by its ending; convert it"),
        ("test/crack/000.jpg", "000_mask.png: is the mask of 000.jpg and 000.png"),
        (f"train/good/{NFC}.png {NFD}.png", "is a second widget/train/good/grün.png; rename it"),
    ],
)
def test_what_is_out_of_place_is_named(widget: Path, added: str, said: str) -> None:
    first, *others = added.split(".png ") if ".png " in added else [added]
    names = [added] if not others else [f"{first}.png", f"train/good/{others[0]}"]
    for name in names:
        path = widget / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".png", ".jpg", ".bmp"):
            write_image(path, seed=99)
        else:
            path.write_bytes(b"?")
    assert any(re.search(said, line) for line in lines(widget)), lines(widget)


PASSED_OVER = [
    *("train/good/.000.png", "train/good/._000.png", "train/good/@eaDir/0.png", ".git/config"),
    *("train/__MACOSX/good/._0.png", "test/crack/Thumbs.db", "ground_truth/crack/desktop.ini"),
    *("readme.txt", "license", "test/good/labels.json", "test/good.dvc", "train/good/000.png.dvc"),
    *("train/good/000.xmp", "test/good/IMG_1.AAE", "notes.docx"),
]


@pytest.mark.parametrize("name", PASSED_OVER)
def test_what_rules_pass_over_changes_nothing(widget: Path, name: str) -> None:
    before = [sample.key for sample in folder_benchmark("mine", widget.parent).test()]
    (widget / name).parent.mkdir(parents=True, exist_ok=True)
    (widget / name).write_bytes(b"?")
    assert lines(widget) == []
    data = folder_benchmark("mine", widget.parent)
    assert [sample.key for sample in data.test()] == before
    assert any(rule for rule in take(widget).ignored.values())


@pytest.fixture
def sorted_parts(tmp_path: Path) -> Path:
    """Good and cracked bolts, sorted into two folders."""
    for number in range(8):
        write_image(tmp_path / f"bolt/good/{number}.png", number)
    for number in range(2):
        write_image(tmp_path / f"bolt/crack/{number}.png", 50 + number)
    return tmp_path / "bolt"


@pytest.mark.parametrize(
    "added, said",
    [
        ("good/8.heic", "8.heic: is a HEIC photograph, which is not read; convert it to PNG"),
        ("crack/8.nef", "8.nef: is the raw file of a camera, which is not read; convert it"),
        ("crack/deep/8.png", "crack/deep: is not read: images lie one folder higher; move them"),
        ("crack/8.xyz", "8.xyz: is no image by its ending"),
        ("loose.png", "loose.png: is not read: move it into good or the folder of its defect"),
        ("loose.psd", "loose.psd: is a file of an image editor, which is not read"),
        ("masks/9.png", "9.png: is a mask without an image; name it after its image"),
        ("masks/dent/0.png", "dent/0.png: is a mask without an image"),
        ("good/pointer.png", "pointer.png: is a pointer of Git LFS, not the image; .* lfs pull"),
        ("OK/0.png", "/0.png: is a second bolt/.*/good/0.png; rename it"),
        ("good/Thumbs.db", ""),
        ("crack/0.xmp", ""),
        ("good.dvc", ""),
    ],
)
def test_in_folders_of_good_and_bad_images_nothing_is_left_out_silently(
    sorted_parts: Path, added: str, said: str
) -> None:
    path = sorted_parts / added
    path.parent.mkdir(exist_ok=True, parents=True)
    if path.name == "pointer.png":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    elif path.suffix == ".png":
        write_mask(path)
    else:
        path.write_bytes(b"?")
    found = lines(sorted_parts)
    assert bool(found) == bool(said) and re.search(said, "".join(found)), found


@pytest.mark.parametrize("layout", ["masks/{}.png", "Mask/crack/{}_mask.png", "gt/{}_GT.bmp"])
def test_masks_beside_good_and_bad_images_are_masks(sorted_parts: Path, layout: str) -> None:
    """A mask is of the defective image where a normal one has the same name."""
    for number in range(2):
        write_mask(sorted_parts / layout.format(number))
    for folder in (sorted_parts, sorted_parts.parent):
        data = folder_benchmark("mine", folder)
        defective = [sample for sample in data.test() if sample.anomalous]
        assert [sample.key for sample in defective] == [
            "bolt/test/crack/0.png",
            "bolt/test/crack/1.png",
        ]
        assert [data.read_mask(sample).sum() for sample in defective] == [9, 9]  # type: ignore[union-attr]
        assert data.pixel_truth and lines(sorted_parts) == []
    (sorted_parts / layout.format(1)).unlink()
    [line] = lines(sorted_parts)
    assert "crack/1.png: is defective and has no mask; add masks/crack/1.png beside good" in line


def test_one_mask_of_two_defective_images_is_asked_about(sorted_parts: Path) -> None:
    write_image(sorted_parts / "dent/0.png", 77)
    write_mask(sorted_parts / "masks/0.png")
    [line] = take_graded(sorted_parts).problems.values()
    assert (
        "masks/0.png: is the mask of crack/0.png and dent/0.png; put it into masks/DEFECT" in line
    )


def test_a_folder_that_is_nearly_a_data_set_is_told_how_to_become_one(sorted_parts: Path) -> None:
    def said(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            folder_benchmark("mine", folder)
        return str(caught.value)

    (sorted_parts.parent / "site").mkdir()
    sorted_parts.rename(sorted_parts.parent / "site/bolt")
    site = sorted_parts.parent / "site"
    assert "site has some: give that folder" in said(site.parent)
    assert "put normal ones into good" in said(site / "bolt/good")
    (site / "bolt/good").rename(site / "bolt/good parts")
    assert "if the images in" in said(site / "bolt") and "name it good" in said(site / "bolt")


def test_masks_of_a_mac_belong_to_the_images_of_others(widget: Path) -> None:
    write_image(widget / f"test/{NFC}/{NFC}.png", seed=98)
    write_mask(widget / f"ground_truth/{NFD}/{NFD}_mask.png")
    data = folder_benchmark("mine", widget.parent)
    [sample] = [sample for sample in data.test() if sample.defect == NFC]
    assert sample.key == f"widget/test/{NFC}/{NFC}.png" and len(sample.masks) == 1
    assert lines(widget) == []


def test_names_in_no_encoding_are_named_in_escapes(widget: Path) -> None:
    for folder in (b"train/good", b"test/crack", b"test/Stra\xdfe"):
        path = Path(os.fsdecode(os.fsencode(widget) + b"/" + folder + b"/\xdf.png"))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    said = lines(widget)
    assert len(said) == 3 and all("is not named in UTF-8; rename it" in line for line in said)
    assert r"test/Stra\xdfe: " in said[1] + said[2]
    assert not any("\udcdf" in line for line in said)


def test_a_pipe_is_never_waited_for(widget: Path) -> None:
    os.mkfifo(widget / "train/good/pipe.png")
    data = folder_benchmark("mine", widget.parent)
    assert len(data.train()) == 4
    assert ["is no file but a device or pipe; remove it" in line for line in lines(widget)] == [
        True
    ]


def test_a_category_misspelt_is_a_fault_and_what_is_none_is_mentioned(widget: Path) -> None:
    write_image(widget.parent / "nut/Train/good/0.png")
    (widget.parent / "archive.zip").write_bytes(b"?")
    (widget.parent / "scripts").mkdir()
    (widget.parent / "scripts/prepare.py").write_text("")
    data = folder_benchmark("mine", widget.parent)
    assert data.categories() == ("widget",)
    assert [line.split(": ")[1] for line in data.problems()] == ["is not read; name it train"]
    assert data.unread() == ["archive.zip", "scripts"]


def test_a_category_of_a_parts_name_is_no_data_set_of_its_own(widget: Path) -> None:
    write_image(widget.parent / "train/train/good/0.png")
    assert folder_benchmark("mine", widget.parent).categories() == ("train", "widget")
    assert folder_benchmark("mine", widget).categories() == ("widget",)


MARKS = np.zeros((12, 16), np.uint8)
MARKS[3:7, 4:9] = 255
SOFT = np.asarray(Image.fromarray(MARKS).resize((64, 48), Image.Resampling.BICUBIC))


def _indexed(marks: np.ndarray, background: int) -> Image.Image:
    image = Image.fromarray((marks > 0).astype(np.uint8), "P")
    image.putpalette([background] * 3 + [253, 231, 37] + [0] * 762)
    return image


@pytest.mark.parametrize(
    "mask, ending, said",
    [
        (Image.fromarray(MARKS), ".png", ""),
        (Image.fromarray(MARKS // 255), ".png", ""),
        (Image.fromarray(MARKS // 255 + np.eye(12, 16, 5, np.uint8)), ".png", ""),
        (Image.fromarray(MARKS // 3 + 85 * np.eye(12, 16, 5, np.uint8)), ".png", ""),
        (Image.fromarray(np.maximum(MARKS, np.eye(12, 16, 9, np.uint8))), ".png", "3 grey levels"),
        (Image.fromarray(MARKS > 0), ".bmp", ""),
        (Image.fromarray(MARKS.astype(np.uint16) * 257), ".tif", ""),
        (Image.fromarray(np.stack([MARKS, 0 * MARKS, 0 * MARKS], 2)), ".png", ""),
        (_indexed(MARKS, 0), ".png", ""),
        (_indexed(MARKS, 68), ".png", "covers 100% of .*: inverted?"),
        (Image.fromarray(255 - MARKS), ".png", "covers 90% of .*: inverted?"),
        (Image.fromarray(np.full_like(MARKS, 255)), ".png", "covers 100% of"),
        (Image.fromarray(SOFT), ".png", "has .* grey levels"),
        (Image.fromarray(np.kron(MARKS, np.ones((5, 5), np.uint8))), ".jpg", "has .* grey levels"),
        (Image.fromarray(0 * MARKS), ".png", "marks no pixel"),
    ],
)
def test_masks_that_can_hardly_be_right_are_asked_about(
    tmp_path: Path, mask: Image.Image, ending: str, said: str
) -> None:
    for folder, seed in (("train/good", 0), ("test/good", 1), ("test/crack", 2)):
        write_image(tmp_path / "bolt" / folder / "0.png", seed, size=mask.size)
    (tmp_path / "bolt/ground_truth/crack").mkdir(parents=True)
    mask.save(tmp_path / f"bolt/ground_truth/crack/0_mask{ending}")
    data = folder_benchmark("mine", tmp_path)
    found = check(data, data.test())
    assert len(found) == bool(said)
    if said:
        assert re.search(said, found[0])
    if "--trust-masks" in "".join(found):
        assert check(data, data.test(), trust_masks=True) == []


KINDS = {
    "12 in 16 bits": (np.uint16, 4095),
    "10 in 16 bits": (np.uint16, 1000),
    "16 bits": (np.uint16, 65535),
    "14 in 32 bits": (np.int32, 16000),
    "floats to 1": (np.float32, 1.0),
    "floats to 900": (np.float32, 900.0),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_images_decide_what_is_white(tmp_path: Path, kind: str) -> None:
    dtype, most = KINDS[kind]
    ramp = (np.linspace(0, 1, 160).reshape(10, 16) * most).astype(dtype)
    for folder, image in (("train/good", ramp), ("test/good", ramp // 4), ("test/crack", ramp * 2)):
        (tmp_path / "bolt" / folder).mkdir(parents=True)
        Image.fromarray(image.astype(dtype)).save(tmp_path / "bolt" / folder / "0.tif")
    data = folder_benchmark("mine", tmp_path)
    [normal] = data.train()
    levels = data.read_image(normal)
    assert len(np.unique(levels)) > 150 and levels.max() >= 249, "the levels are kept"
    said = losses(data, data.train() + data.test())
    assert any("more than 8 bits a channel become 8" in line for line in said)
    assert any("some values are above" in line for line in said) == (kind not in ("16 bits",))


def test_how_deep_images_are_read_is_part_of_what_they_are(tmp_path: Path) -> None:
    from benchmarks.parts.content import fingerprint

    deep = np.full((4, 4), 3000, np.uint16)
    for number, value in enumerate((deep, deep)):
        write_image(tmp_path / "bolt/test/good/0.png")
        (tmp_path / "bolt/train/good").mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(tmp_path / f"bolt/train/good/{number}.png")
    data = folder_benchmark("mine", tmp_path)
    before = fingerprint(data, data.train()[:1])
    Image.fromarray(deep * 20).save(tmp_path / "bolt/train/good/1.png")
    data = folder_benchmark("mine", tmp_path)
    assert fingerprint(data, data.train()[:1]) != before, "the same file is read as another image"


NAMES = ["0", "1", "a_mask", "0_mask", "1_mask", "0_mask_1", NFC, NFD, "x y", ".0", "Thumbs"]
ENDS = [".png", ".PNG", ".bmp", ".tif", ".jpg", ".gif", ".txt", ".db", "", ".npy", ".heic", ".dvc"]
FOLDERS = {
    take: [
        *("", "train", "train/good", "train/Good", "test", "test/good", "test/OK", "test/crack"),
        *("test/crack/deep", "test/dent", "ground_truth", "ground_truth/crack", "extra"),
        *("ground_truth/dent", "ground_truth/crack/0", "ground_truth/good", "__MACOSX/train"),
    ],
    take_graded: [
        *("", "good", "OK", "crack", "crack/deep", "dent", "masks", "masks/crack", "gt/dent/0"),
        *("__MACOSX/good", "extra/good"),
    ],
}
MODES = ["L", "RGB", "RGBA", "P", "1", "I;16"]


def trees(take: Callable[[Path], Inventory]) -> Any:
    names = st.tuples(*map(st.sampled_from, (FOLDERS[take], NAMES, ENDS)))
    return st.dictionaries(names, st.sampled_from(MODES), max_size=14)


@pytest.mark.parametrize("take", FOLDERS)
@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(data=st.data())
def test_of_any_tree_each_file_is_used_passed_over_or_reported(
    take: Callable[[Path], Inventory], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "bolt"
        for (below, name, end), mode in data.draw(trees(take)).items():
            path = folder / below / f"{name}{end}"
            if path.is_dir() or any(parent.is_file() for parent in path.parents):
                continue  # a file and a folder of one name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                Image.new(mode, (5, 4)).save(path)
            except (OSError, ValueError):  # an ending of no format, or of one without this mode
                path.write_bytes(b"?")
        folder.mkdir(exist_ok=True)
        found = take(folder)
        samples = found.train_samples + found.test_samples
        used = [path for s in samples for path in (s.path, *s.masks) if path is not None]
        assert len({sample.key for sample in samples}) == len(samples)
        assert len(set(used)) == len(used), "none is used twice"
        for file in (path for path in folder.rglob("*") if path.is_file()):
            ways = {file, *file.parents}
            told = ways & {*found.ignored, *found.problems, *found.unread}
            assert (file in used) != bool(told), (file, told)
        for sample in samples:
            assert sample.defect != "good" or sample.path.parent.name in ("good", "OK")
            assert sample.defect == "good" or sample.key.split("/")[1] == "test"
