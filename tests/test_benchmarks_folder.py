"""Faults of a user's folder, each with its own line; odd but sound folders that must work."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_data import write_category, write_image, write_mask
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts.content import check, duplicates, fingerprint
from benchmarks.parts.folder import folder_benchmark


@pytest.fixture
def widget(tmp_path: Path) -> Path:
    write_category(tmp_path / "widget")
    return tmp_path / "widget"


def lines(folder: Path) -> list[str]:
    data = folder_benchmark("mine", folder)
    return check(data, data.train() + data.test())


CRACK = "ground_truth/crack"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda widget: (widget / f"{CRACK}/001_mask.png").unlink(),
         f"test/crack/001.png: is defective and has no mask; add .*{CRACK}/001_mask.png$"),
        (lambda widget: write_mask(widget / f"{CRACK}/000_mask.png", size=(10, 12)),
         r"000_mask.png: is 10 x 12, its image 12 x 10 \(width x height\)"),
    ],
    ids=["missing", "of another size"],
)  # fmt: skip
def test_a_mask_at_fault_is_named(widget: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(widget)
    (line,) = lines(widget.parent)
    assert re.search(said, line)


def test_masks_of_normal_images_must_be_black(widget: Path) -> None:
    write_mask(widget / "ground_truth/good/000_mask.png", value=0)
    assert lines(widget.parent) == []
    write_mask(widget / "ground_truth/good/000_mask.png")
    (line,) = lines(widget.parent)
    assert "good/000_mask.png: marks 9 pixels of a normal image; is it defective?" in line


def test_several_masks_and_grey_levels_are_united(widget: Path) -> None:
    write_mask(widget / "ground_truth/crack/000_mask.png", value=1)
    extra = np.zeros((10, 12), dtype=np.uint8)
    extra[9, 11] = 128
    Image.fromarray(extra).save(widget / "ground_truth/crack/000_mask_1.png")
    data = folder_benchmark("mine", widget.parent)
    sample = next(sample for sample in data.test() if sample.key.endswith("crack/000.png"))
    mask = data.read_mask(sample)
    assert mask is not None
    assert mask.sum() == 10
    assert mask[9, 11]
    assert lines(widget.parent) == []


def test_all_problems_come_at_once_one_line_each(widget: Path) -> None:
    (widget / "train/good/000.png").write_bytes(b"")
    (widget / "train/good/001.png").write_bytes(b"no image")
    whole = (widget / "test/good/000.png").read_bytes()
    (widget / "test/good/000.png").write_bytes(whole[: len(whole) // 2])
    (widget / "test/crack/000.png").write_bytes(b"")
    (widget / "ground_truth/crack/001_mask.png").write_bytes(b"")
    write_mask(widget / "ground_truth/crack/001_mask_1.png", size=(3, 3))
    write_image(widget / "train/good/nested/000.png", seed=99)
    problems = lines(widget.parent)
    assert len(problems) == 7
    assert not any("\n" in line for line in problems)
    for line, part in zip(
        problems,
        [
            "train/good/000.png: is empty (0 bytes)",
            "train/good/001.png: is not an image",
            "test/crack/000.png: is empty",
            "001_mask.png: is empty",
            "001_mask_1.png: is 3 x 3",
            "test/good/000.png: is damaged or truncated",
            "train/good/nested: is not read",
        ],
        strict=True,
    ):
        assert part in line


def test_no_masks_anywhere_means_image_labels_only(widget: Path) -> None:
    for path in (widget / "ground_truth/crack").iterdir():
        path.unlink()
    data = folder_benchmark("mine", widget.parent)
    assert not data.pixel_truth
    assert data.no_pixel_reason == "no category has masks in ground_truth"
    assert data.read_mask(data.test()[0]) is None
    assert lines(widget.parent) == []
    write_category(widget.parent / "other", seed=500)
    assert len(lines(widget.parent)) == 2


def test_category_without_training_images(widget: Path) -> None:
    (widget.parent / "bare").mkdir()
    write_image(widget.parent / "blank/test/good/000.png", seed=9)
    data = folder_benchmark("mine", widget.parent)
    with pytest.raises(DataError) as error:
        data.train()
    first, second = str(error.value).splitlines()
    assert "category 'bare' has no training images" in first
    assert "category 'blank' has no training images" in second
    assert len(data.train(["widget"])) == 4


def test_category_without_defects(widget: Path) -> None:
    write_image(widget.parent / "clean/train/good/000.png", seed=900)
    write_image(widget.parent / "clean/test/good/000.png", seed=901)
    data = folder_benchmark("mine", widget.parent)
    assert [sample.anomalous for sample in data.test(["clean"])] == [False]
    assert lines(widget.parent) == []


def test_not_a_data_set(tmp_path: Path, widget: Path) -> None:
    with pytest.raises(DataError, match="is not a folder; expected one with <category>/train/good"):
        folder_benchmark("mine", tmp_path / "nowhere")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("x")
    with pytest.raises(DataError, match="has no category"):
        folder_benchmark("mine", tmp_path / "notes")


def test_a_categorys_folder_is_a_data_set_of_one(
    widget: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = folder_benchmark("mine", widget.parent)
    monkeypatch.chdir(widget)
    (widget / "notes.zip").write_bytes(b"?")
    for folder in (widget, Path()):
        alone = folder_benchmark("mine", folder)
        assert alone.unread() == ["notes.zip"]
        assert [s.key for s in alone.test()] == [s.key for s in whole.test(["widget"])]


def test_folders_of_good_and_bad_images_are_taken(tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / f"bolts/OK/{number}.png", number)
    for number in range(3):
        write_image(tmp_path / f"bolts/scratched/{number}.png", 100 + number)
    one = folder_benchmark("bolts", tmp_path / "bolts")
    several = folder_benchmark("parts", tmp_path)
    for data in (one, several):
        assert data.categories() == ("bolts",) and data.no_pixel_reason and data.remark
        counts = data._counts("bolts")
        assert counts.train + counts.good == 40 and 25 <= counts.train <= 38
        assert {s.defect for s in data.test()} == {"good", "scratched"}
    before = {sample.key for sample in one.train()}
    write_image(tmp_path / "bolts/OK/new.png", 999)
    after = {sample.key for sample in folder_benchmark("bolts", tmp_path / "bolts").train()}
    assert after - before <= {"bolts/train/good/new.png"} and before <= after


def test_endings_in_any_case(widget: Path) -> None:
    image = Image.open(widget / "train/good/000.png")
    for ending in ("JPG", "jpeg", "bmp", "tif", "TIFF", "webp"):
        image.save(widget / f"train/good/more_{ending.lower()}.{ending}")
    image.close()
    assert len(folder_benchmark("mine", widget.parent).train()) == 4 + 6
    assert lines(widget.parent) == []


def test_symbolic_link_loops_end_and_are_named(widget: Path) -> None:
    (widget.parent / "again").symlink_to(widget.parent)
    (widget / "test/good/loop.png").symlink_to(widget / "test/good/loop.png")
    (widget / "test/good/gone.png").symlink_to(widget / "nowhere.png")
    data = folder_benchmark("mine", widget.parent)
    assert data.categories() == ("widget",)
    first, second = lines(widget.parent)
    assert "gone.png: cannot be read (No such file" in first
    assert "loop.png: cannot be read (Too many levels of symbolic links)" in second
    with pytest.raises(DataError, match="cannot be read"):
        fingerprint(data, data.test())


def test_spaces_other_scripts_and_read_only_folders(tmp_path: Path) -> None:
    root = tmp_path / "Мои данные 数据 é"
    write_category(root / "kleine Schraube")
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        data = folder_benchmark("mine", root)
        assert data.categories() == ("kleine Schraube",)
        assert check(data, data.train() + data.test()) == []
        assert len(fingerprint(data, data.test())) == 16
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_duplicates_are_noted(widget: Path) -> None:
    image = (widget / "train/good/000.png").read_bytes()
    (widget / "train/good/003.png").write_bytes(image)
    (widget / "test/crack/001.png").write_bytes(image)
    data = folder_benchmark("mine", widget.parent)
    assert duplicates(data, data.train(), data.test()) == [
        "widget/train/good/003.png: the same image as widget/train/good/000.png; twice in training",
        "widget/test/crack/001.png: the same image as widget/train/good/000.png; "
        "a leak from training",
    ]
