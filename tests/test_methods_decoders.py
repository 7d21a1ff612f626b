"""Dinomaly and INP-Former beside plain computations: networks, losses, scores, sizes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_features import made_inputs
from made_training import drawn, numbers, served
from torch import Tensor, nn

from harness.plan.registry import load
from methods.dinomaly import METHOD, Dinomaly
from methods.networks.noisy_decoder import NoisyDecoder
from methods.networks.prototype_decoder import PrototypeDecoder
from methods.parts.tokens import Layout

KNOBS = METHOD.presets["paper"].knobs


def lively(name: str) -> Any:
    """The published method on a small transformer: 16 patches, Dinomaly's with a class token.

    Weights are not small, so that every part matters.
    """
    declared = load("methods", name)
    small = {"backbone": "vit_tiny_patch16_224", "resize": 80, "crop": 64, "decoder_layers": 4}
    method = declared.method(replace(declared.presets["paper"].config, **small, heads=3))
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1 * numbers(*parameter.shape))
    return method


def groups_of(flat: Tensor, prefix: int) -> list[Tensor]:
    """The two groups (B, prefix + 16, 192) of tokens, taken apart by hand."""
    parts = (half.split([192 * prefix, 192 * 16], dim=1) for half in flat.chunk(2, dim=1))
    return [
        torch.cat([before.unflatten(1, (192, prefix)), patches.unflatten(1, (192, 16))], 2).mT
        for before, patches in parts
    ]


def norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, eps=1e-8)


def mlp(layers: nn.Sequential, x: Tensor) -> Tensor:
    out: Tensor = layers[4](F.gelu(layers[1](x)))
    return out


def by_heads(channels: int, heads: int = 3) -> list[slice]:
    width = channels // heads
    return [slice(head * width, (head + 1) * width) for head in range(heads)]


def halves(outputs: list[Tensor]) -> list[Tensor]:
    reverse = torch.stack(outputs[::-1])
    return [half.mean(dim=0) for half in reverse.chunk(2)]


def plain_dinomaly(network: NoisyDecoder, x: Tensor) -> list[Tensor]:
    """The official forward pass without dropout, with attention as a matrix."""
    x, outputs = mlp(network.bottleneck, x), []
    for block in network.decoder:
        query, key, value = block.enter(norm(block.before_attention, x)).chunk(3, dim=2)
        mixed = []
        for own in by_heads(x.shape[2]):
            scores = (F.elu(query[..., own]) + 1) @ (F.elu(key[..., own]) + 1).mT
            mixed.append(scores / scores.sum(dim=2, keepdim=True) @ value[..., own])
        x = x + block.leave(torch.cat(mixed, dim=2))
        x = x + mlp(block.mlp, norm(block.before_mlp, x))
        outputs.append(x)
    return halves(outputs)


def plain_inpformer(network: PrototypeDecoder, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """The official forward pass for one image (T, C), head by head."""
    block, prototypes = network.extract, network.prototypes
    query = block.query(norm(block.before_attention, prototypes))
    key, value = block.key_value(norm(block.before_attention, image)).chunk(2, dim=1)
    mixed = [
        torch.softmax(query[:, own] @ key[:, own].T / 64**0.5, dim=1) @ value[:, own]
        for own in by_heads(192)
    ]
    prototypes = prototypes + block.leave(torch.cat(mixed, dim=1))
    prototypes = prototypes + mlp(block.mlp, norm(block.before_mlp, prototypes))
    nearest = [min(1 - F.cosine_similarity(token, p, dim=0) for p in prototypes) for token in image]
    x, outputs = mlp(network.bottleneck, image), []
    for layer in network.decoder:
        query = layer.query(norm(layer.before_attention, x))
        key, value = layer.key_value(norm(layer.before_attention, prototypes)).chunk(2, dim=1)
        mixed = []
        for own, scale in zip(by_heads(192), layer.scale.flatten(), strict=True):
            cosines = F.cosine_similarity(query[:, None, own], key[None, :, own], dim=2)
            mixed.append((cosines * scale).clamp(min=0) @ value[:, own])
        x = layer.leave(torch.cat(mixed, dim=1))
        x = x + mlp(layer.mlp, norm(layer.before_mlp, x))
        outputs.append(x)
    return halves(outputs), torch.stack(nearest).mean()


def test_dinomalys_decoder_is_the_official_one() -> None:
    network, tokens = lively("dinomaly").network, numbers(2, 17, 192)
    for found, plain in zip(network(tokens), plain_dinomaly(network, tokens), strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_inpformers_network_is_the_official_one() -> None:
    network, tokens = lively("inpformer").network, numbers(2, 16, 192)
    found, gathered = network(tokens)
    for image in range(2):
        groups, nearest = plain_inpformer(network, tokens[image])
        for mine, official in zip(found, groups, strict=True):
            torch.testing.assert_close(mine[image], official, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(gathered[image], nearest, rtol=1e-4, atol=1e-5)


def test_only_the_bottleneck_drops_out_and_only_in_training() -> None:
    network, tokens = lively("dinomaly").network, numbers(2, 17, 192)
    dropped = [name for name, m in network.named_modules() if isinstance(m, nn.Dropout) and m.p]
    assert dropped == ["bottleneck.0", "bottleneck.3", "bottleneck.5"]
    torch.manual_seed(0)
    network.train()
    assert not torch.equal(network(tokens)[0], network(tokens)[0])
    network.eval()
    assert torch.equal(network(tokens)[0], network(tokens)[0])


@pytest.mark.parametrize(("name", "step"), [("dinomaly", 0), ("dinomaly", 700), ("inpformer", 0)])
def test_the_loss_is_the_official_one_and_so_are_its_gradients(name: str, step: int) -> None:
    method = lively(name)
    inputs = made_inputs(method, 3)
    method.losses(method.network, inputs, drawn(3, step=step)).mean().backward()
    found = {name: p.grad.clone() for name, p in method.network.named_parameters()}
    method.network.zero_grad()
    prefix = int(name == "dinomaly")
    targets = groups_of(inputs, prefix)
    rebuilt, total = method.network((targets[0] + targets[1]) / 2), torch.zeros(())
    if name == "inpformer":
        rebuilt, gathered = rebuilt
        total = 0.2 * gathered.mean()
    for target, group in zip(targets, rebuilt, strict=True):
        target, patches = target[:, prefix:], group[:, prefix:]
        with torch.no_grad():
            apart = 1 - F.cosine_similarity(target, patches, dim=2)
            factor = (apart / apart.mean()) ** 3
            if name == "dinomaly":
                hard = int(apart.numel() * (1 - 0.9 * step / 1000))
                easy = apart < apart.flatten().sort(descending=True).values[hard - 1]
                assert easy.any() == (step > 0)
                factor = torch.where(easy, 0.1, 1.0)
        # The same value; its gradient is that of the factor alone.
        patches = patches * factor[..., None] + (patches * (1 - factor[..., None])).detach()
        cosine = F.cosine_similarity(target.flatten(1), patches.flatten(1))
        total = total + (1 - cosine).mean() / 2
    total.backward()
    for key, parameter in method.network.named_parameters():
        torch.testing.assert_close(found[key], parameter.grad, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("sigma", [4.0, 0.0])
def test_map_and_score_are_those_of_the_official_evaluation(sigma: float) -> None:
    method = lively("dinomaly")
    inputs = made_inputs(method, 2)
    found = method.score(inputs, replace(KNOBS, sigma=sigma, scored_at=96))
    targets, maps = groups_of(inputs, 1), torch.zeros(2, 1, 64, 64)
    with torch.no_grad():
        rebuilt = plain_dinomaly(method.network, (targets[0] + targets[1]) / 2)
    for target, group in zip(targets, rebuilt, strict=True):
        apart = 1 - F.cosine_similarity(target[:, 1:], group[:, 1:], dim=2)
        apart = apart.view(2, 1, 4, 4)
        maps += F.interpolate(apart, 64, mode="bilinear", align_corners=True) / 2
    maps = F.interpolate(maps, 96, mode="bilinear", align_corners=False)
    if sigma:
        taps = torch.exp(-((torch.arange(5.0) - 2) ** 2) / (2 * sigma**2))
        window = taps[:, None] * taps / taps.sum() ** 2
        maps = F.conv2d(maps, window[None, None], padding=2)
    ranked = maps.flatten(1).sort(dim=1, descending=True).values
    torch.testing.assert_close(found.images, ranked[:, : int(96 * 96 * 0.01)].mean(dim=1))
    wanted = F.interpolate(maps, 64, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.maps, wanted, rtol=1e-4, atol=1e-5)


def linear(before: int, after: int) -> int:
    return (before + 1) * after


@pytest.mark.parametrize(
    ("backbone", "settings", "width"),
    [
        ("vit_base_patch14_reg4_dinov2.lvd142m", {"heads": 12}, 768),
        (
            "vit_large_patch14_reg4_dinov2.lvd142m",
            {"heads": 16, "layers": (4, 6, 8, 10, 12, 14, 16, 18)},
            1024,
        ),
    ],
)
def test_the_paper_preset_has_the_official_size(
    backbone: str, settings: dict[str, Any], width: int
) -> None:
    """Weights and biases of the repositories' layers, counted by hand."""
    perceptron = linear(width, 4 * width) + linear(4 * width, width)
    block = linear(width, 3 * width) + linear(width, width) + perceptron + 2 * 2 * width
    official = {
        # `bMlp` and eight `Block`s; class and four register tokens.
        "dinomaly": (perceptron + 8 * block, Layout(2, 5, 28, width)),
        # `Mlp`, `Aggregation_Block`, eight `Prototype_Block`s with a scale a head, and six tokens.
        "inpformer": (
            perceptron + block + 8 * (block + settings["heads"]) + 6 * width,
            Layout(2, 0, 28, width),
        ),
    }
    for name, (parameters, layout) in official.items():
        declared = load("methods", name)
        config = replace(declared.presets["paper"].config, backbone=backbone, **settings)
        declared.check(config, KNOBS, 100)
        assert Layout.of(declared.method.inputs(config)) == layout
        assert declared.cost(config, 3629).parameters == parameters
    # 10,000 steps, each a forward pass and twice as much for the gradients: of every token in every
    # linear layer, and of two products a head in attention.
    tokens = 789 * 10_000 * 3629 / (3629 // 16 + 1)
    products = 2 * 2 * 8 * width * width // settings["heads"]
    least = 3 * tokens * (2 * (official["dinomaly"][0] - 8 * 13 * width) + products)
    config = replace(METHOD.presets["paper"].config, backbone=backbone, **settings)
    assert METHOD.cost(config, 3629).train_flops == pytest.approx(least, rel=0.01)


def test_anomalibs_port_has_no_bias_in_its_mlps() -> None:
    sizes = {"channels": 12, "groups": 2, "decoder_layers": 2, "heads": 3}
    network = NoisyDecoder(**sizes, dropout=0.2, mlp_bias=False)
    layers = [m for m in [*network.bottleneck, *network.decoder[0].mlp] if hasattr(m, "bias")]
    assert len(layers) == 4 and all(layer.bias is None for layer in layers)


def test_layers_on_a_grid_are_one_group_of_standardised_tokens() -> None:
    config = METHOD.presets["smoke"].config
    method = Dinomaly(config)
    values = 5 * numbers(7, 192, 8, 8) + numbers(192, 1, 1, seed=1)
    method.reader.fit(served(values))
    [tokens] = method.reader(values)
    mean, std = values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3), unbiased=False)
    wanted = ((values.permute(0, 2, 3, 1) - mean) / std).flatten(1, 2)
    torch.testing.assert_close(tokens, wanted, rtol=1e-3, atol=1e-3)
    assert Layout.of(method.inputs(config)) == Layout(1, 0, 8, 192)
