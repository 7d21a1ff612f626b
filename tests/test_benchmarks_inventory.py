"""Everything in a category's folder is used, passed over by a named rule, or reported."""

from __future__ import annotations

import os
import re
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_data import write_category, write_image, write_mask
from PIL import Image

from benchmarks.base import Sample
from benchmarks.parts.content import check, losses
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.inventory import take

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
        ("train/good/0.heic", "train/good/0.heic: is no image by its ending"),
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
        (f"train/good/{NFC}.png {NFD}.png", "is another|has the name of another image"),
    ],
)
def test_what_is_out_of_place_is_named(widget: Path, added: str, said: str) -> None:
    first, *others = added.split(".png ") if ".png " in added else [added]
    names = [added] if not others else [f"{first}.png", f"train/good/{others[0]}"]
    for name in names:
        path = widget / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".heic", ".npy", ".json", ""):
            path.write_bytes(b"?")
        else:
            write_image(path, seed=99)
    assert any(re.search(said, line) for line in lines(widget)), lines(widget)


PASSED_OVER = [
    *("train/good/.000.png", "train/good/._000.png", "train/good/@eaDir/0.png", ".git/config"),
    *("train/__MACOSX/good/._0.png", "test/crack/Thumbs.db", "ground_truth/crack/desktop.ini"),
    *("readme.txt", "license", "test/good/labels.json"),
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
ENDS = [".png", ".PNG", ".bmp", ".tif", ".jpg", ".gif", ".pgm", ".txt", ".db", "", ".npy"]
FOLDERS = ["", "train", "train/good", "train/Good", "test", "test/good", "test/OK", "test/crack"]
FOLDERS += ["test/crack/deep", "test/dent", "ground_truth", "ground_truth/crack", "extra"]
FOLDERS += ["ground_truth/dent", "ground_truth/crack/0", "ground_truth/good", "__MACOSX/train"]
MODES = ["L", "RGB", "RGBA", "P", "1", "I;16"]


def reference(files: set[str]) -> dict[str, str]:
    """What each file is, by rules written out one by one: a label, "ignored" or "reported"."""

    def hidden(name: str, is_file: bool) -> bool:
        system = name.lower() in ("thumbs.db", "__macosx")
        return name.startswith(".") or system or (is_file and name.lower().endswith(".txt"))

    def picture(name: str) -> bool:
        ends = (".png", ".bmp", ".tif", ".jpg", ".gif", ".pgm")
        return name.lower().endswith(ends)

    def same(a: str, b: str) -> bool:
        return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)

    found = {}
    for file in sorted(files):
        *folders, name = file.split("/")
        if any(hidden(part, False) for part in folders) or hidden(name, True):
            found[file] = "ignored"
        elif folders in (["train", "good"], ["test", "good"], ["test", "crack"], ["test", "dent"]):
            twins = [other for other in files if same(other, file)]
            found[file] = "reported" if not picture(name) else f"{folders[0]} {folders[1]}"
            if picture(name) and len(twins) > 1:  # one of the two names is kept
                found[file] = "either"
        else:
            found[file] = "reported"
    for file in sorted(files):
        *folders, name = file.split("/")
        if len(folders) == 2 and folders[0] == "ground_truth" and found[file] == "reported":
            stem = name.rsplit(".", 1)[0]
            owners = {
                unicodedata.normalize("NFC", other)
                for other in files
                if other.startswith(f"test/{folders[1]}/")
                and found[other] not in ("reported", "ignored")
                and any(same(Path(other).stem + end, stem) for end in ("_mask", "_mask_1"))
            }
            if picture(name) and len(owners) == 1:
                found[file] = "mask"
    return found


TREES = st.dictionaries(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from(ENDS)),
    st.sampled_from(MODES),
    max_size=14,
)


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(TREES)
def test_any_tree_is_used_passed_over_or_reported(tree: dict[tuple[str, str, str], str]) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / "bolt"
        for (below, name, end), mode in tree.items():
            path = folder / below / f"{name}{end}"
            if path.is_dir() or any(parent.is_file() for parent in path.parents):
                continue  # a file and a folder of one name
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                Image.new(mode, (5, 4)).save(path)
            except (OSError, ValueError):  # an ending of no format, or of one without this mode
                path.write_bytes(b"?")
        folder.mkdir(exist_ok=True)
        _holds(folder)


def _holds(folder: Path) -> None:
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    found = take(folder)
    used = {_below(folder, sample): sample for sample in found.train_samples + found.test_samples}
    masks = {str(m.relative_to(folder)) for sample in found.test_samples for m in sample.masks}
    ignored = {str(path.relative_to(folder)) for path in found.ignored}
    reported = {str(path.relative_to(folder)) for path in [*found.problems, *found.unread]}

    def covered(file: str, paths: set[str]) -> bool:
        return any(file == path or file.startswith(f"{path}/") for path in paths)

    for file, wanted in reference(files).items():
        ways = [file in used, file in masks, covered(file, ignored), covered(file, reported)]
        if wanted.split()[0] in ("train", "test"):
            assert ways[0] and used[file].defect == wanted.split()[1], (file, wanted, ways)
            assert used[file].key.split("/")[1] == wanted.split()[0]
        elif wanted == "either":
            assert ways[0] or ways[3], file
        else:
            # What rules pass over may lie in a folder that is reported; a mask may be there twice.
            expected = {"mask": ways[1], "ignored": ways[2] or ways[3], "reported": ways[3]}
            assert expected[wanted], (file, wanted, ways)
            assert not ways[0], (file, wanted, ways)


def _below(folder: Path, sample: Sample) -> str:
    assert sample.path is not None
    return str(sample.path.relative_to(folder))
