"""INP-Former beside plain computations: its network, loss and score, its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_features import made_inputs, one_thread  # noqa: F401
from made_training import drawn, numbers
from torch import Tensor, nn

from methods.inpformer import METHOD, InpFormer, check, cost
from methods.networks.prototype_decoder import PrototypeDecoder
from methods.parts.tokens import Layout

PAPER, KNOBS = METHOD.presets["paper"]
TINY = replace(
    PAPER, backbone="vit_tiny_patch16_224", resize=80, crop=64, heads=3, decoder_layers=4
)


def lively(method: InpFormer) -> InpFormer:
    """Weights that are not small, so that every part matters."""
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1 * numbers(*parameter.shape))
    return method


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, eps=1e-8)


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    out: Tensor = layers[4](F.gelu(layers[1](x)))
    return out


def plain(network: PrototypeDecoder, image: Tensor, heads: int) -> tuple[list[Tensor], Tensor]:
    """The official forward pass for one image (T, C), head by head."""
    width = image.shape[1] // heads
    slices = [slice(head * width, (head + 1) * width) for head in range(heads)]
    block, prototypes = network.extract, network.prototypes
    query = block.query(norm(block.before_attention, prototypes))
    key, value = block.key_value(norm(block.before_attention, image)).chunk(2, dim=1)
    mixed = [
        torch.softmax(query[:, own] @ key[:, own].T / width**0.5, dim=1) @ value[:, own]
        for own in slices
    ]
    prototypes = prototypes + block.leave(torch.cat(mixed, dim=1))
    prototypes = prototypes + mlp(block.mlp, norm(block.before_mlp, prototypes))
    nearest = [min(1 - F.cosine_similarity(token, p, dim=0) for p in prototypes) for token in image]
    x, outputs = mlp(network.bottleneck, image), []
    for layer in network.decoder:
        query = layer.query(norm(layer.before_attention, x))
        key, value = layer.key_value(norm(layer.before_attention, prototypes)).chunk(2, dim=1)
        mixed = []
        for own, scale in zip(slices, layer.scale.flatten(), strict=True):
            cosines = F.cosine_similarity(query[:, None, own], key[None, :, own], dim=2)
            mixed.append((cosines * scale).clamp(min=0) @ value[:, own])
        x = layer.leave(torch.cat(mixed, dim=1))
        x = x + mlp(layer.mlp, norm(layer.before_mlp, x))
        outputs.insert(0, x)
    half = len(outputs) // 2
    groups = [torch.stack(outputs[:half]).mean(0), torch.stack(outputs[half:]).mean(0)]
    return groups, torch.stack(nearest).mean()


def test_the_network_is_the_official_one() -> None:
    method = lively(InpFormer(TINY))
    tokens = numbers(2, 16, 192)
    found, gathered = method.network(tokens)
    for image in range(2):
        groups, nearest = plain(method.network, tokens[image], heads=3)
        for mine, official in zip(found, groups, strict=True):
            torch.testing.assert_close(mine[image], official, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gathered[image], nearest, rtol=1e-4, atol=1e-5)


def test_nothing_passes_around_the_attention() -> None:
    """Without anything in the values every token becomes the same, whatever it was."""
    method = lively(InpFormer(TINY))
    with torch.no_grad():
        for block in method.network.decoder:
            block.key_value.weight.zero_()
            block.key_value.bias.zero_()
    [first, _], _ = method.network(numbers(1, 16, 192))
    torch.testing.assert_close(first, first[:, :1].expand_as(first))


def groups_of(flat: Tensor) -> list[Tensor]:
    """The two groups (B, 16, 192) of TINY's tokens, taken apart by hand."""
    return list(flat.view(len(flat), 2, 192, 16).transpose(2, 3).unbind(1))


def test_the_loss_is_the_official_one_and_so_are_its_gradients() -> None:
    method = lively(InpFormer(TINY))
    inputs = made_inputs(method, 3)
    method.losses(method.network, inputs, drawn(3)).mean().backward()
    found = {name: p.grad.clone() for name, p in method.network.named_parameters()}
    method.network.zero_grad()
    targets = groups_of(inputs)
    rebuilt, gathered = method.network((targets[0] + targets[1]) / 2)
    total = 0.2 * gathered.mean()
    for target, group in zip(targets, rebuilt, strict=True):
        with torch.no_grad():
            apart = 1 - F.cosine_similarity(target, group, dim=2)
            factor = ((apart / apart.mean()) ** 3)[..., None]
        # The same value; its gradient is that of the factor alone.
        group = group * factor + (group * (1 - factor)).detach()
        cosine = F.cosine_similarity(target.flatten(1), group.flatten(1))
        total = total + (1 - cosine).mean() / 2
    total.backward()
    for name, parameter in method.network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_the_score_is_that_of_dinomaly_without_class_and_registers() -> None:
    method = lively(InpFormer(TINY))
    inputs = made_inputs(method, 2)
    found = method.score(inputs, ["a", "b"], replace(KNOBS, sigma=0.0, scored_at=64))
    targets = groups_of(inputs)
    with torch.no_grad():
        rebuilt, _ = method.network((targets[0] + targets[1]) / 2)
    apart = [
        1 - F.cosine_similarity(target, group, dim=2)
        for target, group in zip(targets, rebuilt, strict=True)
    ]
    cells = (sum(apart) / 2).view(2, 1, 4, 4)  # type: ignore[union-attr]
    maps = F.interpolate(cells, 64, mode="bilinear", align_corners=True)[:, 0]
    torch.testing.assert_close(found.maps, maps, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.images, maps.flatten(1).topk(40).values.mean(1))


@pytest.mark.parametrize(
    ("backbone", "settings", "width", "heads"),
    [
        ("vit_base_patch14_reg4_dinov2.lvd142m", {}, 768, 12),
        (
            "vit_large_patch14_reg4_dinov2.lvd142m",
            {"heads": 16, "layers": (4, 6, 8, 10, 12, 14, 16, 18)},
            1024,
            16,
        ),
    ],
)
def test_the_paper_preset_has_the_official_size(
    backbone: str, settings: dict[str, Any], width: int, heads: int
) -> None:
    """Of the repository's `Mlp`, `Aggregation_Block`, eight `Prototype_Block`s and six tokens."""
    config = replace(PAPER, backbone=backbone, **settings)
    check(config, KNOBS, 100)
    assert Layout.of(InpFormer.inputs(config)) == Layout(2, 0, 28, width)
    whole = (width + 1) * 4 * width + (4 * width + 1) * width
    attention = (width + 1) * width + (width + 1) * 2 * width + (width + 1) * width
    block = attention + whole + 4 * width
    assert cost(config, 100).parameters == whole + block + 8 * (block + heads) + 6 * width
