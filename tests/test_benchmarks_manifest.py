"""Own data by a table of images: CSV and Parquet, what is wrong with one, and a run on it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from made_data import write_category, write_image, write_mask

from benchmarks.base import DataError
from benchmarks.parts.content import check
from harness.plan.cell import open_benchmark
from harness.plan.datasets import in_pieces, opened
from harness.plan.options import Selection

ROWS = [
    *({"image": f"i/{n}.png", "split": "train", "label": "0", "mask": ""} for n in range(3)),
    {"image": "i/3.png", "split": "test", "label": "good", "mask": ""},
    {"image": "i/4.png", "split": "test", "label": "1", "mask": "m/4.png"},
    {"image": "i/5.png", "split": "test", "label": "Scratch", "mask": "m/5.png"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(6):
        write_image(tmp_path / f"i/{number}.png", number)
    for number in (4, 5):
        write_mask(tmp_path / f"m/{number}.png")
    return tmp_path


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_is_a_data_set(folder: Path, ending: str) -> None:
    table, path = pl.DataFrame(ROWS), folder / f"bolts.{ending}"
    table.write_csv(path) if ending == "csv" else table.write_parquet(path)
    benchmark = open_benchmark(str(path), None)
    assert benchmark.categories() == ("bolts",) and benchmark.pixel_truth
    assert len(benchmark.train()) == 3
    assert [sample.defect for sample in benchmark.test()] == ["defect", "good", "scratch"]
    marked = [s for s in benchmark.test() if s.anomalous]
    assert all(benchmark.read_mask(sample).sum() == 9 for sample in marked)  # type: ignore[union-attr]
    selection = Selection(benchmarks=[str(path)])
    [data] = in_pieces(*opened(str(path), selection), str(path), selection)
    assert (data.name, data.train_images, data.test_images) == ("bolts", 3, 3)
    assert data.open().categories() == ("bolts",), "found again from what a row keeps"


def test_without_masks_there_are_no_pixel_metrics_and_categories_are_told_apart(
    folder: Path,
) -> None:
    table = pl.DataFrame(ROWS).drop("mask").with_columns(category=pl.lit("a"))
    other = table.with_columns(
        category=pl.lit("b"), image=pl.col("image").str.replace("i/", "./i/")
    )
    pl.concat([table, other]).write_csv(folder / "t.csv")
    benchmark = open_benchmark(str(folder / "t.csv"), None)
    assert benchmark.categories() == ("a", "b")
    assert benchmark.no_pixel_reason == "t.csv has no column mask"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "validation"}, "line 2: split 'validation'; write train or test"),
        ({"label": "crack"}, "line 2: a defective image to train on"),
        ({"image": ""}, "line 2: names no image"),
        ({"image": "i/1.png"}, "lists 1 images twice, such as i/1.png"),
    ],
)
def test_a_row_that_can_not_be_is_one_line(folder: Path, change: dict, says: str) -> None:
    pl.DataFrame([ROWS[0] | change, *ROWS[1:]]).write_csv(folder / "t.csv")
    with pytest.raises(DataError, match=says) as caught:
        open_benchmark(str(folder / "t.csv"), None)
    assert "\n" not in str(caught.value)


def test_the_advice_for_a_mask_that_is_missing_is_that_of_a_table(folder: Path) -> None:
    rows = [row | {"mask": row["mask"] if row["image"] != "i/4.png" else ""} for row in ROWS]
    pl.DataFrame(rows).write_csv(folder / "t.csv")
    data = open_benchmark(str(folder / "t.csv"), None)
    [line] = check(data, data.test())
    assert line.endswith(
        "i/4.png: is defective and has no mask; name it in the column mask of t.csv"
    )


def test_what_a_mask_marks_is_not_learned_from(folder: Path) -> None:
    pl.DataFrame([ROWS[0] | {"mask": "m/4.png"}, *ROWS[1:]]).write_csv(folder / "t.csv")
    data = open_benchmark(str(folder / "t.csv"), None)
    [line] = check(data, data.train())
    assert "marks 9 pixels of a normal image; is it defective?" in line


def test_a_table_that_is_none_is_one_line(folder: Path) -> None:
    (folder / "t.csv").write_text("image,split\ni/0.png,train\n")
    with pytest.raises(DataError, match="has no column label; it needs image, split, label"):
        open_benchmark(str(folder / "t.csv"), None)
    (folder / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="can't be read"):
        open_benchmark(str(folder / "t.parquet"), None)
    (folder / "e.csv").write_text("image,split,label\n")
    with pytest.raises(DataError, match="lists no image"):
        open_benchmark(str(folder / "e.csv"), None)


def test_a_missing_image_is_a_fault_that_planning_names(folder: Path) -> None:
    write_category(folder / "unused")
    (folder / "i/0.png").unlink()
    pl.DataFrame(ROWS).write_csv(folder / "t.csv")
    [fault] = open_benchmark(str(folder / "t.csv"), None).problems()
    assert "i/0.png: is named by t and missing" in fault
