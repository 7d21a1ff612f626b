"""What of the training images is held out: shares, folds, copies, and too few."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from made_data import few, write_image

from benchmarks.base import DataError
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.synthesis.pseudo import PseudoValidation, hold_out
from benchmarks.shapes import Shapes
from harness.plan.cell import Held
from harness.plan.datasets import held_and_seen


def test_hold_out_splits_each_category_and_loses_nothing() -> None:
    train = Shapes().train()
    rest, held_out = hold_out(Shapes(), train, share=0.25)
    assert sorted(rest + held_out, key=lambda sample: sample.key) == train
    counts = Counter(sample.category for sample in held_out)
    assert counts == dict.fromkeys(Shapes().categories(), 6)
    assert hold_out(Shapes(), train[::-1], share=0.25)[1] == held_out[::-1]
    more = hold_out(Shapes(), train, share=0.5)[1]
    assert {sample.key for sample in held_out} < {sample.key for sample in more}


@pytest.mark.parametrize(("share", "expected"), [(0.01, 2), (0.1, 2), (0.5, 12), (0.99, 22)])
def test_hold_out_leaves_two_of_either(share: float, expected: int) -> None:
    train, held_out = hold_out(Shapes(), Shapes().train(["gear"]), share)
    assert (len(train), len(held_out)) == (24 - expected, expected)


def test_folds_hold_out_others_until_all_were() -> None:
    train = Shapes().train(["gear"])
    folds = [{s.key for s in hold_out(Shapes(), train, 0.25, fold=f)[1]} for f in range(4)]
    assert set.union(*folds) == {sample.key for sample in train} and sum(map(len, folds)) == 24
    assert {s.key for s in hold_out(Shapes(), train, 0.25, fold=4)[1]} == folds[0]


def test_too_few_normal_images_are_one_line(tmp_path: Path) -> None:
    benchmark = few(tmp_path, 3)
    with pytest.raises(DataError, match=r"'widget' has 3 different normal images") as error:
        PseudoValidation(benchmark)
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(DataError, match="choose between 0 and 1"):
        hold_out(Shapes(), Shapes().train(), share)


def test_copies_of_an_image_stay_together(tmp_path: Path) -> None:
    few(tmp_path, 8)
    good = tmp_path / "widget/train/good"
    for number in range(8):
        (good / f"{number}_again.png").write_bytes((good / f"{number}.png").read_bytes())
    benchmark = folder_benchmark("mine", tmp_path)
    for seed in range(5):
        parts = hold_out(benchmark, benchmark.train(), 0.3, seed)
        names = [{Path(s.key).stem.removesuffix("_again") for s in part} for part in parts]
        assert not names[0] & names[1]
        assert [len(part) for part in parts] == [12, 4]
    for path in good.glob("[3-7]*"):
        path.unlink()
    with pytest.raises(DataError, match="3 different"):
        PseudoValidation(folder_benchmark("mine", tmp_path))


def test_few_images_and_anomalies_that_do_not_show_are_said_in_a_line_each(tmp_path: Path) -> None:
    """On noise another fragment of noise is nothing to see: it is no anomaly to choose by."""
    for number in range(5):
        write_image(tmp_path / f"widget/train/good/{number}.png", number, size=(64, 64))
    benchmark, said = folder_benchmark("mine", tmp_path), list[str]()
    _, seen = held_and_seen(benchmark, ("widget",), Held(anomalies=8), said.append)
    unseen, few_images = said
    assert "anomalies that can't be seen on their images are left out: " in unseen
    assert "same 2 of 2" in unseen and "same" not in seen.families and seen.unseen() == []
    assert "normal images: widget 5; what so few tell may be chance" in few_images
