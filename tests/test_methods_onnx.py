"""Convolutional backbones in ONNX Runtime: what PyTorch gives, or PyTorch itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_features import need_lite0

from benchmarks.base import DataError
from harness.plan.cell import Cell
from harness.plan.options import Selection
from harness.plan.plan import plan
from harness.work import cache as caching
from harness.work.cache import FeatureCache
from harness.work.features import FeatureSet, feature_set, in_one_pass
from methods.parts import onnx
from methods.parts.backbone import LITE0, Extractor, Features, find_weights, load_backbone
from methods.parts.progress import Progress, quiet

CPU = torch.device("cpu")
VIEW = Features(resize=64, backbone=LITE0, layers=(0, 1, 2, 3), grid=8)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_lite0()
    file = tmp_path_factory.mktemp("program") / "lite0.onnx"
    everything = replace(VIEW, layers=(0, 1, 2, 3, 4))
    onnx.export(load_backbone(everything, find_weights(VIEW)), VIEW.side, 5, file)
    return file


@pytest.mark.parametrize("layers", [(0, 1, 2, 3), (1, 2), (4,)])
@pytest.mark.parametrize("count", [1, 3])
def test_layers_are_those_of_torch(program: Path, layers: tuple[int, ...], count: int) -> None:
    view = replace(VIEW, layers=layers)
    images = torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(count))
    wanted = Extractor(view, find_weights(VIEW)).layers(images)
    got = Extractor(view, find_weights(VIEW), onnx.Program(program, layers)).layers(images)
    assert got.keys() == wanted.keys() == set(layers)
    for layer, values in wanted.items():
        assert got[layer].shape == values.shape
        assert float((got[layer] - values).abs().max() / values.abs().max()) < 1e-5


def cells(*methods: str) -> list[Cell]:
    need_lite0()
    wanted = Selection(benchmarks=["shapes"], methods=list(methods), preset="smoke", seeds=1)
    return plan(wanted)


def sets(*methods: str) -> list[FeatureSet]:
    return [feature_set(cell, "train") for cell in cells(*methods)]  # type: ignore[misc]


def test_views_that_share_a_backbone_share_a_pass(tmp_path: Path) -> None:
    lafite, patchcore = sets("lafite", "patchcore")
    assert in_one_pass([lafite, patchcore]) == [[lafite, patchcore]]
    larger = replace(patchcore, view=replace(patchcore.view, resize=160))
    assert in_one_pass([lafite, larger]) == [[lafite], [larger]]

    together, apart = FeatureCache(root=tmp_path / "a"), FeatureCache(root=tmp_path / "b")
    together.make([lafite, patchcore], CPU, quiet)
    for features in (lafite, patchcore):
        rows, _ = together.read(features, CPU, quiet)
        alone, _ = apart.read(features, CPU, quiet)
        assert np.array_equal(rows, alone)
    # One program serves both, and every later command.
    assert len(list(together.root.glob("*.onnx"))) == len(list(apart.root.glob("*.onnx"))) == 1


def test_a_damaged_program_is_made_again(tmp_path: Path) -> None:
    [features], cache = sets("patchcore"), FeatureCache(root=tmp_path)
    told: list[str] = []
    of = features.view, features.weights, features.weights_sha256
    assert cache.program(*of, CPU, quiet) is not None  # type: ignore[arg-type]
    [first] = tmp_path.glob("*.onnx")
    whole = first.read_bytes()
    first.write_bytes(whole[:-100])
    caching._sha256_of.cache_clear()
    again = cache.program(*of, CPU, lambda p: told.append(p.note))  # type: ignore[arg-type]
    assert again is not None and len(first.read_bytes()) == len(whole)
    assert any("is not whole" in note for note in told)


@pytest.mark.parametrize("package", ["onnxruntime", "onnx"])
def test_without_onnx_runtime_torch_serves_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    [features], cache = sets("patchcore"), FeatureCache(root=tmp_path)
    notes: list[str] = []

    def tell(progress: Progress) -> None:
        notes.extend([progress.note] if progress.note else [])

    with_onnx, _ = FeatureCache(root=tmp_path / "other").read(features, CPU, quiet)
    monkeypatch.setitem(sys.modules, package, None)
    rows, _ = cache.read(features, CPU, tell)
    assert len(notes) == 1 and "runs in PyTorch" in notes[0]
    np.testing.assert_allclose(rows, with_onnx, rtol=2e-3, atol=2e-3)


def test_features_of_another_format_are_another_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cache that unlike machines share holds both, and each reads its own."""
    [features], cache = sets("patchcore"), FeatureCache(root=tmp_path)
    wished = replace(features, view=replace(features.view, precision="bfloat16"))
    assert cache.path(wished) == cache.path(features)  # on a CPU both are made in float32
    monkeypatch.setattr(Features, "format_on", lambda view, device: view.precision)
    assert cache.path(wished) != cache.path(features)


def test_weights_that_changed_are_refused_before_a_program_is_made(tmp_path: Path) -> None:
    [features], cache = sets("patchcore"), FeatureCache(root=tmp_path)
    with pytest.raises(DataError, match="weights"):
        cache.make([replace(features, weights_sha256="0" * 64)], CPU, quiet)
    assert not list(tmp_path.glob("*.onnx"))
