"""`lafite-bench synth`: the written folder, its table and sheet, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_data import anomalies, few
from PIL import Image

from benchmarks.base import DataError
from benchmarks.parts.content import check
from benchmarks.parts.folder import folder_benchmark
from benchmarks.parts.synthesis.pseudo import PseudoValidation
from benchmarks.shapes import Shapes
from harness.checks.synthetic_folder import write_synthetic
from harness.commands.synth import command


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synth") / "preview"
    steps: list[tuple[int, int]] = []
    pseudo = PseudoValidation(Shapes(), ["disc", "gear"], share=0.25, anomalies=3)
    sheet = write_synthetic(pseudo, out, lambda done, total: steps.append((done, total)))
    assert sheet == out / "contact_sheet.png"
    assert steps == [(done, 84) for done in range(1, 85)]  # 2 x (18 kept, 6 held, 18 made)
    return out


def test_the_written_folder_is_a_data_set_without_a_problem(written: Path) -> None:
    data = folder_benchmark("preview", written)
    assert data.categories() == ("disc", "gear")
    assert check(data, data.train() + data.test()) == []
    pseudo = PseudoValidation(Shapes(), ["disc", "gear"], share=0.25, anomalies=3)
    assert len(data.train()) == len(pseudo.train())
    files = {sample.key: sample for sample in data.test()}
    assert len(files) == len(pseudo.validation())
    for sample in anomalies(pseudo):
        file = files[f"{sample.category}/test/{sample.defect}/{Path(sample.key).name}.png"]
        assert (data.read_image(file) == pseudo.read_image(sample)).all()
        assert (data.read_mask(file) == pseudo.read_mask(sample)).all()


def test_the_contact_sheet_shows_each_category(written: Path) -> None:
    with Image.open(written / "contact_sheet.png") as image:
        assert image.size[0] > 1000
        pixels = np.asarray(image)
    outline = (pixels[..., :3] == (255, 0, 80)).all(axis=2)
    half = len(pixels) // 2
    assert outline[:half].any()
    assert outline[half:].any()


def test_files_are_copied_byte_for_byte(tmp_path: Path) -> None:
    benchmark = few(tmp_path / "data", 6)
    command(str(tmp_path / "data"), out=tmp_path / "out")
    copies = {path.name: path for path in (tmp_path / "out/widget").rglob("good/*.png")}
    assert len(copies) == 6
    for sample in benchmark.train():
        assert sample.path is not None
        assert copies[sample.path.name].read_bytes() == sample.path.read_bytes()


def test_a_folder_in_use_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="exists already"):
        command("shapes", out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_leaves_no_half_written_folder(tmp_path: Path) -> None:
    few(tmp_path / "data", 5)
    damaged = tmp_path / "data/widget/train/good/0.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(DataError, match="damaged"):
        command(str(tmp_path / "data"), out=tmp_path / "out", share=0.6)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
