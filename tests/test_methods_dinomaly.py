"""Dinomaly beside plain computations: its network, loss, map and image score, its size."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from made_features import made_inputs, one_thread  # noqa: F401
from made_training import drawn, numbers
from torch import Tensor, nn

from methods.dinomaly import METHOD, Dinomaly, check, cost
from methods.networks.noisy_decoder import NoisyDecoder
from methods.parts.batches import Batches
from methods.parts.tokens import Layout

PAPER, KNOBS = METHOD.presets["paper"]
TINY = replace(
    PAPER, backbone="vit_tiny_patch16_224", resize=80, crop=64, heads=3, decoder_layers=4
)
"""The published method on a small transformer without registers: 16 patches and a class token."""


def plain_decoder(network: NoisyDecoder, x: Tensor, heads: int) -> list[Tensor]:
    """The official forward pass without dropout, with attention as a matrix."""
    first, second = network.bottleneck[1], network.bottleneck[4]
    x = second(F.gelu(first(x)))
    outputs = []
    for block in network.decoder:
        normed = F.layer_norm(x, x.shape[2:], *affine(block.before_attention), eps=1e-8)
        query, key, value = block.enter(normed).chunk(3, dim=2)
        mixed = []
        for head in range(heads):
            width = x.shape[2] // heads
            own = slice(head * width, (head + 1) * width)
            scores = (F.elu(query[..., own]) + 1) @ (F.elu(key[..., own]) + 1).transpose(1, 2)
            mixed.append(scores / scores.sum(dim=2, keepdim=True) @ value[..., own])
        x = x + block.leave(torch.cat(mixed, dim=2))
        normed = F.layer_norm(x, x.shape[2:], *affine(block.before_mlp), eps=1e-8)
        x = x + block.mlp[4](F.gelu(block.mlp[1](normed)))
        outputs.append(x)
    reverse = outputs[::-1]
    half = len(reverse) // 2
    return [sum(reverse[:half]) / half, sum(reverse[half:]) / half]  # type: ignore[list-item]


def affine(norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
    return norm.weight, norm.bias


def lively(method: Dinomaly) -> Dinomaly:
    """Weights that are not small, so that every part matters."""
    with torch.no_grad():
        for parameter in method.network.parameters():
            parameter.add_(0.1 * numbers(*parameter.shape))
    return method


def groups_of(flat: Tensor) -> list[Tensor]:
    """The two groups (B, 17, 192) of TINY's tokens, taken apart by hand."""
    halves = flat.view(len(flat), 2, -1)
    return [
        torch.cat([part[:, :192].unflatten(1, (192, 1)), part[:, 192:].unflatten(1, (192, 16))], 2)
        .transpose(1, 2)
        for part in halves.unbind(1)
    ]  # fmt: skip


def test_the_decoder_is_the_official_one() -> None:
    method = lively(Dinomaly(TINY))
    tokens = numbers(2, 17, 192)
    wanted = plain_decoder(method.network, tokens, heads=3)
    for found, plain in zip(method.network(tokens), wanted, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)


def test_only_the_bottleneck_drops_out_and_only_in_training() -> None:
    with torch.device("meta"):
        published = NoisyDecoder(768, 2, layers=8, heads=12, dropout=PAPER.dropout, mlp_bias=True)
    network = lively(Dinomaly(TINY)).network
    for one in (published, network):
        assert rates(one.bottleneck) == [0.2, 0.2, 0.2]
        assert not any(rates(one.decoder))
    tokens = numbers(2, 17, 192)
    torch.manual_seed(0)
    network.train()
    assert not torch.equal(network(tokens)[0], network(tokens)[0])
    network.eval()
    assert torch.equal(network(tokens)[0], network(tokens)[0])


def rates(part: nn.Module) -> list[float]:
    """How much each dropout drops, in their order."""
    return [module.p for module in part.modules() if isinstance(module, nn.Dropout)]


@pytest.mark.parametrize("step", [0, 700])
def test_the_loss_is_the_official_one_and_so_are_its_gradients(step: int) -> None:
    method = lively(Dinomaly(TINY))
    inputs = made_inputs(method, 3)
    method.losses(method.network, inputs, drawn(3, step=step)).mean().backward()
    found = {name: p.grad.clone() for name, p in method.network.named_parameters()}
    method.network.zero_grad()
    targets = groups_of(inputs)
    rebuilt = plain_decoder(method.network, (targets[0] + targets[1]) / 2, heads=3)
    total = torch.zeros(())
    for target, group in zip(targets, rebuilt, strict=True):
        target, patches = target[:, 1:], group[:, 1:]
        with torch.no_grad():
            apart = 1 - F.cosine_similarity(target, patches, dim=2)
            hard = int(apart.numel() * (1 - 0.9 * step / 1000))
            easy = apart < apart.flatten().sort(descending=True).values[hard - 1]
        assert easy.any() == (step > 0)
        slowed = torch.where(easy, 0.1, 1.0)[..., None]
        # The same value; its gradient is that of the factor alone.
        patches = patches * slowed + (patches * (1 - slowed)).detach()
        cosine = F.cosine_similarity(target.flatten(1), patches.flatten(1))
        total = total + (1 - cosine).mean() / 2
    total.backward()
    for name, parameter in method.network.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-3, atol=1e-6, msg=name)


def gaussian(side: int, sigma: float) -> Tensor:
    apart = torch.arange(side) - (side - 1) / 2
    weights = torch.exp(-(apart[:, None] ** 2 + apart[None] ** 2) / (2 * sigma**2))
    return weights / weights.sum()


@pytest.mark.parametrize("sigma", [4.0, 0.0])
def test_map_and_score_are_those_of_the_official_evaluation(sigma: float) -> None:
    method = lively(Dinomaly(TINY))
    inputs = made_inputs(method, 2)
    knobs = replace(KNOBS, sigma=sigma, scored_at=96)
    found = method.score(inputs, ["a", "b"], knobs)
    targets = groups_of(inputs)
    maps = torch.zeros(2, 1, 64, 64)
    with torch.no_grad():
        rebuilt = plain_decoder(method.network, (targets[0] + targets[1]) / 2, heads=3)
    for target, group in zip(targets, rebuilt, strict=True):
        apart = 1 - F.cosine_similarity(target[:, 1:], group[:, 1:], dim=2)
        apart = apart.view(2, 1, 4, 4)
        maps += F.interpolate(apart, 64, mode="bilinear", align_corners=True) / 2
    maps = F.interpolate(maps, 96, mode="bilinear", align_corners=False)
    if sigma:
        maps = F.conv2d(maps, gaussian(5, sigma)[None, None], padding=2)
    ranked = maps.flatten(1).sort(dim=1, descending=True).values
    torch.testing.assert_close(found.images, ranked[:, : int(96 * 96 * 0.01)].mean(dim=1))
    wanted = F.interpolate(maps, 64, mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(found.maps, wanted, rtol=1e-4, atol=1e-5)


def official_parameters(width: int) -> int:
    """Weights and biases of the repository's `bMlp` and eight `Block`s, by their layers."""

    def linear(before: int, after: int) -> int:
        return (before + 1) * after

    mlp = linear(width, 4 * width) + linear(4 * width, width)
    attention = linear(width, 3 * width) + linear(width, width)
    return mlp + 8 * (attention + mlp + 2 * 2 * width)


@pytest.mark.parametrize(
    ("backbone", "settings", "width"),
    [
        ("vit_base_patch14_reg4_dinov2.lvd142m", {}, 768),
        ("vit_small_patch14_reg4_dinov2.lvd142m", {"heads": 6}, 384),
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
    config = replace(PAPER, backbone=backbone, **settings)
    check(config, KNOBS, 100)
    assert Layout.of(Dinomaly.inputs(config)) == Layout(2, 5, 28, width)
    found = cost(config, 3629)
    assert found.parameters == official_parameters(width)
    # 10,000 steps, each a forward pass and twice as much for the gradients: of every token in every
    # linear layer, and of two products a head in attention.
    tokens = 789 * cost_samples(3629)
    products = 2 * 2 * 8 * width * width // config.heads
    least = 3 * tokens * (2 * (official_parameters(width) - 8 * 13 * width) + products)
    assert found.train_flops == pytest.approx(least, rel=0.01)


def cost_samples(images: int) -> float:
    return 10_000 * images / (images // 16 + 1)


def test_anomalibs_port_has_no_bias_in_its_mlps() -> None:
    network = NoisyDecoder(12, 2, layers=2, heads=3, dropout=0.2, mlp_bias=False)
    linear = [m for m in [*network.bottleneck, *network.decoder[0].mlp] if hasattr(m, "bias")]
    assert len(linear) == 4 and all(layer.bias is None for layer in linear)


def test_layers_on_a_grid_are_one_group_of_standardised_tokens() -> None:
    config = METHOD.presets["smoke"].config
    method = Dinomaly(config)
    values = 5 * numbers(7, 192, 8, 8) + numbers(192, 1, 1, seed=1)
    method.reader.fit(Batches([str(i) for i in range(7)], lambda i: values[list(i)]))
    [tokens] = method.reader(values)
    assert tokens.shape == (7, 64, 192)
    torch.testing.assert_close(tokens.mean(dim=(0, 1)), torch.zeros(192), atol=1e-4, rtol=0)
    mean, std = values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(
        tokens[3, 10], (values[3, :, 1, 2] - mean) / std, rtol=1e-3, atol=1e-3
    )
    assert Layout.of(method.inputs(config)) == Layout(1, 0, 8, 192)
