"""Tokens of vision transformers: blocks, class and registers, positions, files that are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from made_training import numbers
from torch import Tensor

from methods.parts import shapes, vit
from methods.parts.aggregate import unflatten
from methods.parts.backbone import Extractor, Tokens, WeightsMissing

TINY = "vit_tiny_patch16_224"
REGISTERS = "vit_small_patch14_reg4_dinov2"
VIEW = Tokens(resize=80, crop=64, backbone=TINY, layers=(2, 3, 6, 7))


def stored(path: Path, name: str, **settings: Any) -> tuple[Path, Any]:
    """A file of random weights, distinct everywhere, and the model that they are of."""
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, **settings).eval()
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.add_(torch.rand_like(value), alpha=0.1)
    torch.save(model.state_dict(), path / "w.pth")
    return path / "w.pth", model


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def normalised(name: str, pixels: Tensor) -> Tensor:
    published = timm.get_pretrained_cfg(name)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (published.mean, published.std))
    return (pixels - mean) / std


@pytest.mark.parametrize("name, side", [(TINY, 224), (REGISTERS, 518)])
@pytest.mark.parametrize("prefix", ["none", "class", "all"])
def test_tokens_are_those_after_the_blocks(
    tmp_path: Path, name: str, side: int, prefix: vit.Prefix
) -> None:
    """At the size of the weights nothing is resampled: a plain walk through timm's blocks."""
    path, model = stored(tmp_path, name)
    view = Tokens(resize=side, backbone=name, layers=(1, 3), prefix=prefix)
    shapes.check_features(view)
    pixels = images(side)[:1]
    with torch.no_grad():
        walked = model._pos_embed(model.patch_embed(normalised(name, pixels)))
        after = []
        for block in model.blocks[:4]:
            walked = block(walked)
            after.append(walked)
    before = model.num_prefix_tokens
    found = unflatten(Extractor(view, path)(pixels), shapes.layer_shapes(view))
    for wanted in (after[1], after[3]):
        if prefix != "none":
            kept = 1 if prefix == "class" else before
            same(found.pop(0)[..., 0], wanted[:, :kept].transpose(1, 2))
        same(found.pop(0).flatten(2), wanted[:, before:].transpose(1, 2))
    assert not found


def same(found: Tensor, wanted: Tensor) -> None:
    """But for rounding: in which order a product sums is the processor's choice."""
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_blocks_in_a_row_are_averaged_and_each_may_be_normalised(tmp_path: Path) -> None:
    path, model = stored(tmp_path, TINY)
    each = [part.flatten(2) for part in read(replace(VIEW, norm=True), path)]
    plain = read(VIEW, path)
    for normed, raw in zip(each, plain, strict=True):
        with torch.no_grad():
            wanted = model.norm(raw.flatten(2).transpose(1, 2)).transpose(1, 2)
        torch.testing.assert_close(normed, wanted, rtol=1e-4, atol=1e-4)
    means = read(replace(VIEW, groups=2), path)
    torch.testing.assert_close(means[0], (plain[0] + plain[1]) / 2)
    torch.testing.assert_close(means[1], (plain[2] + plain[3]) / 2)


def read(view: Tokens, path: Path) -> list[Tensor]:
    shapes.check_features(view)
    flat = Extractor(view, path)(images(view.side))
    assert flat.shape == (2, shapes.feature_numbers(view))
    return unflatten(flat, shapes.layer_shapes(view))


def cubic(x: float) -> float:
    """The kernel of bicubic interpolation, a = -0.75 as in PyTorch."""
    a, x = -0.75, abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def test_positions_are_read_where_dinov2_reads_them() -> None:
    """Cell i of 5 is read at (i + 0.5) / f - 0.5 with f = 5.1 / 7, borders repeated."""
    before, side, first = 7, 5, 3
    values = numbers(1, first + before**2, 2)
    found = vit.resampled_positions(values, first, side)
    assert torch.equal(found[:, :first], values[:, :first])
    weights = torch.zeros(side, before)
    for cell in range(side):
        at = (cell + 0.5) / ((side + 0.1) / before) - 0.5
        for tap in range(math.floor(at) - 1, math.floor(at) + 3):
            weights[cell, min(max(tap, 0), before - 1)] += cubic(at - tap)
    grid = values[0, first:].view(before, before, 2)
    wanted = torch.einsum("ih,jw,hwc->ijc", weights, weights, grid)
    torch.testing.assert_close(found[0, first:].view(side, side, 2), wanted, rtol=1e-4, atol=1e-5)
    assert vit.resampled_positions(values, first, before) is values


def test_a_file_of_dinov2s_authors_is_read_as_timms(tmp_path: Path) -> None:
    path, model = stored(tmp_path, REGISTERS)
    ours = model.state_dict()
    class_position = numbers(1, 1, 384)
    theirs = {
        "cls_token": ours.pop("cls_token") - class_position,
        "register_tokens": ours.pop("reg_token"),
        "mask_token": torch.zeros(1, 384),
        "pos_embed": torch.cat([class_position, ours.pop("pos_embed")], dim=1),
        **ours,
    }
    torch.save(theirs, tmp_path / "theirs.pth")
    view = Tokens(resize=56, backbone=REGISTERS, layers=(2,), prefix="all")
    for one, other in zip(read(view, path), read(view, tmp_path / "theirs.pth"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


WITHOUT_BIAS, WITH_BIAS = "vit_small_patch16_dinov3", "vit_tiny_patch16_dinov3_qkvb"


def of_dinov3s_authors(model: Any) -> dict[str, Tensor]:
    """What their repository would save of the same network."""
    theirs = {}
    for key, value in model.state_dict().items():
        key = key.replace("reg_token", "storage_tokens")
        key = key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")
        theirs[key] = value
    width = model.embed_dim
    theirs |= {"mask_token": torch.zeros(1, width), "rope_embed.periods": torch.ones(16)}
    for block in range(12):
        attention = f"blocks.{block}.attn."
        query, value = (
            theirs.pop(f"{attention}{part}_bias", torch.zeros(width)) for part in ("q", "v")
        )
        # The keys' part is masked, whatever it holds.
        theirs[f"{attention}qkv.bias"] = torch.cat([query, torch.ones(width), value])
        theirs[f"{attention}qkv.bias_mask"] = torch.ones(3 * width)
    return theirs


@pytest.mark.parametrize("name", [WITHOUT_BIAS, WITH_BIAS])
def test_a_file_of_dinov3s_authors_is_read_as_timms(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = stored(tmp_path, name)
    torch.save(of_dinov3s_authors(model), tmp_path / "theirs.pth")
    view = Tokens(resize=64, backbone=name, layers=(2, 11), prefix="all", norm=True)
    for one, other in zip(read(view, path), read(view, tmp_path / "theirs.pth"), strict=True):
        assert torch.equal(one, other)
    assert not capsys.readouterr().out


def test_biases_of_dinov3_are_not_left_out(tmp_path: Path) -> None:
    _, model = stored(tmp_path, WITHOUT_BIAS)
    theirs = of_dinov3s_authors(model)
    theirs["blocks.7.attn.qkv.bias"][-1] = 0.1
    torch.save(theirs, tmp_path / "theirs.pth")
    view = Tokens(resize=64, backbone=WITHOUT_BIAS, layers=(2,))
    with pytest.raises(ValueError, match=r"blocks\.7\.attn\.qkv\.bias.*take .*_qkvb") as caught:
        Extractor(view, tmp_path / "theirs.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "other"), [(REGISTERS, WITHOUT_BIAS), (WITHOUT_BIAS, REGISTERS)])
def test_a_file_of_the_other_dino_is_refused(tmp_path: Path, name: str, other: str) -> None:
    _, model = stored(tmp_path, other)
    theirs = (
        of_dinov3s_authors(model)
        if other == WITHOUT_BIAS
        else model.state_dict() | {"mask_token": torch.zeros(1, 384)}
    )
    theirs.pop("reg_token", None)
    torch.save(theirs, tmp_path / "theirs.pth")
    with pytest.raises(WeightsMissing, match=f"not the weights of {name}"):
        Extractor(Tokens(resize=112, backbone=name, layers=(2,)), tmp_path / "theirs.pth")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"backbone": "resnet18"}, "backbone=resnet18: is no vision transformer"),
        ({"backbone": "swin_tiny_patch4_window7_224"}, "is no vision transformer"),
        ({"backbone": "nosuch"}, "nosuch: timm knows no such model"),
        ({"layers": (2, 12)}, r"layers=\(2, 12\): vit_tiny_patch16_224 has blocks 0..11"),
        ({"layers": ()}, "has blocks 0..11"),
        ({"layers": (3, 2)}, "shallowest first"),
        ({"crop": 60}, "a view of 60 pixels: .* multiples of its patch, 16.*64 is one"),
        ({"crop": 16}, "from 32 on"),
        ({"crop": 96}, "crop within"),
        ({"crop": 0}, "a view of 0 from 80 pixels: take a crop within"),
        ({"groups": 3}, "4 blocks can't be averaged to 3"),
        ({"prefix": "class", "backbone": "vit_base_patch16_siglip_224"}, "no class token"),
        (
            {"norm": True, "backbone": "eva02_tiny_patch14_224", "crop": 56},
            "backbone=eva02_tiny_patch14_224: has no final norm",
        ),
    ],
)
def test_tokens_that_can_not_be_had_are_refused(change: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        shapes.check_features(replace(VIEW, **change))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "vit_tiny_patch16_384", "resnet18"])
def test_weights_of_another_size_are_refused_and_of_another_resolution_read(
    tmp_path: Path, name: str
) -> None:
    path, _ = stored(tmp_path, name)
    if name.endswith("384"):
        assert read(VIEW, path)[0].isfinite().all()
        return
    with pytest.raises(WeightsMissing, match=f"not the weights of {TINY}") as caught:
        Extractor(VIEW, path)
    assert "\n" not in str(caught.value)


def test_what_no_token_depends_on_may_be_in_the_file(tmp_path: Path) -> None:
    path, model = stored(tmp_path, TINY)
    others = ("mask_token", "rope.periods", "head.mlp.0.weight", "decoder.blocks.0.norm1.bias")
    torch.save(model.state_dict() | dict.fromkeys(others, torch.ones(1)), tmp_path / "more.pth")
    for one, other in zip(read(VIEW, path), read(VIEW, tmp_path / "more.pth"), strict=True):
        assert torch.equal(one, other)
