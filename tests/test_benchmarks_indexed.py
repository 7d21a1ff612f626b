"""Data sets by index: what items may be, and what is said of those that can't be used."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts.content import fingerprint
from benchmarks.parts.indexed import IndexedBenchmark

GREY = np.full((6, 8), 100, np.uint8)
MARKS = np.zeros((6, 8), np.uint8)
MARKS[2:4, 3:5] = 255


def one(item: Any, **others: Any) -> IndexedBenchmark:
    return IndexedBenchmark("mine", [(GREY, 0)], [item, (GREY, "good")], **others)


@pytest.mark.parametrize(
    "image",
    [
        GREY,
        GREY[..., None],
        np.repeat(GREY[..., None], 3, axis=2),
        np.repeat(GREY[None], 3, axis=0),
        GREY[None].astype(np.float32) / 255,
        Image.fromarray(GREY),
        Image.fromarray(GREY).convert("RGB"),
    ],
    ids=["grey", "one channel", "RGB", "CHW", "floats", "PIL grey", "PIL RGB"],
)
def test_what_an_image_may_be(image: Any) -> None:
    data = one((image, 1, MARKS), masks=True)
    [defective] = [sample for sample in data.test() if sample.anomalous]
    read = data.read_image(defective)
    assert read.shape == (6, 8, 3) and read.dtype == np.uint8 and (read == 100).all()
    mask = data.read_mask(defective)
    assert mask is not None and mask.sum() == 4


def test_tensors_and_labels_of_torch() -> None:
    torch = pytest.importorskip("torch")
    item = (torch.full((3, 6, 8), 0.5), torch.tensor(1), torch.tensor(MARKS)[None])
    data = one(item, masks=True)
    assert [sample.defect for sample in data.test()] == ["defect", "good"]
    assert data.read_image(data.test()[0]).mean() == 128


def test_categories_masks_and_content_count() -> None:
    names = (["a"], ["a", "a"])
    data = one((GREY, "scratch", MARKS), masks=True, categories=names)
    assert data.categories() == ("a",) and data.pixel_truth
    assert {sample.key for sample in data.test()} == {"a/test/scratch/000000", "a/test/good/000001"}
    other = one((GREY, "scratch", 255 - MARKS), masks=True, categories=names)
    assert fingerprint(data, data.test()) != fingerprint(other, other.test())
    assert fingerprint(data, data.train()) == fingerprint(other, other.train())
    assert not one((GREY, 1)).pixel_truth


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: IndexedBenchmark("mine", [], [(GREY, 0)]), "to train has no items"),
        (lambda: IndexedBenchmark("mine", [(GREY, 1)], [(GREY, 0)]), "item 0 to train is defect"),
        (lambda: one((GREY, 1), categories=(["a"], ["a"])), "test has 2 items, 1 categories"),
    ],
)
def test_what_can_not_be_a_data_set_is_one_line(made: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        made()


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ((GREY.astype(float), 1, MARKS), "give 0 to 1, before any normalisation"),
        ((np.zeros((6, 8, 5), np.uint8), 1, MARKS), "is no image"),
        ((GREY, 1, MARKS[:3]), r"mask \(3, 8\), image \(6, 8\)"),
        ((GREY, 1, 0 * MARKS), "marks no pixel"),
        ((GREY, 1), "has no mask"),
    ],
)
def test_an_item_that_can_not_be_used_is_one_line(item: Any, said: str) -> None:
    data = one(item, masks=True)
    with pytest.raises(DataError, match=said):
        data.read_mask(data.test()[0])
