"""UniAD: what the neighbour mask hides, jitter, scoring and the published sizes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_training import drawn, numbers, served
from torch import Tensor, nn

from methods.networks.masked_transformer import EncoderLayer, Reconstructor, neighbour_mask
from methods.parts.config import of_config
from methods.uniad import METHOD, UniAD

CONFIG = UniAD.Config(
    width=16, heads=2, feed_forward=32, feature_size=10, encoder_layers=1, decoder_layers=1
)
TOKENS = CONFIG.feature_size**2


@pytest.mark.parametrize(("grid", "window"), [(14, 7), (10, 7), (8, 3), (5, 1)])
def test_the_mask_blocks_exactly_the_window(grid: int, window: int) -> None:
    blocked = neighbour_mask(grid, window)
    assert blocked.shape == (grid**2, grid**2) and blocked.dtype == torch.bool
    for query, key in itertools.product(range(grid**2), repeat=2):
        (y, x), (v, u) = divmod(query, grid), divmod(key, grid)
        assert blocked[query, key] == (abs(y - v) <= window // 2 and abs(x - u) <= window // 2)


def reconstructor(channels: int, config: UniAD.Config) -> Reconstructor:
    return of_config(Reconstructor, config, channels=channels, grid=config.feature_size)


def seen_by(layer: nn.Module, attention: str, changed: int) -> Tensor:
    """Which tokens' attention output changes when token `changed` of the attended input does."""
    caught: list[Tensor] = []
    hook = getattr(layer, attention).register_forward_hook(
        lambda module, inputs, output: caught.append(output[0][0])
    )
    blocked, position = neighbour_mask(10, 7), numbers(TOKENS, 16, seed=1)
    before = numbers(1, TOKENS, 16, seed=2)
    after = before.clone()
    after[0, changed] += 1
    for values in (before, after):
        if isinstance(layer, EncoderLayer):
            layer(values, position, blocked)
        elif attention == "to_memory":
            layer(numbers(1, TOKENS, 16, seed=3), values, position, blocked)
        else:
            layer(values, numbers(1, TOKENS, 16, seed=3), position, blocked)
    hook.remove()
    return (caught[0] != caught[1]).any(dim=1)


@pytest.mark.parametrize("changed", [0, 9, 44, 55, 99])
@pytest.mark.parametrize("attention", ["attention", "to_memory", "to_output"])
@torch.inference_mode()
def test_a_masked_token_can_not_see_its_window(attention: str, changed: int) -> None:
    torch.manual_seed(0)
    network = reconstructor(5, CONFIG).eval()
    layer = (network.encoder if attention == "attention" else network.decoder)[0]
    blind = neighbour_mask(10, 7)[:, changed]
    seen = seen_by(layer, attention, changed)
    if attention == "attention":
        seen[changed] = False  # its own output follows its own query, not what it sees
    assert torch.equal(seen, ~blind)


def test_queries_are_learned_in_each_decoder_layer() -> None:
    network = reconstructor(5, replace(CONFIG, decoder_layers=3))
    queries = [layer.queries for layer in network.decoder]
    assert len(queries) == 3 and len({id(q) for q in queries}) == 3
    assert all(isinstance(q, nn.Parameter) and q.shape == (TOKENS, 16) for q in queries)
    network(numbers(2, 5, 10, 10)).square().sum().backward()
    assert all(q.grad is not None and bool(q.grad.any()) for q in queries)


def test_tokens_keep_their_place() -> None:
    """The error at a location compares its own feature: rows and columns are not swapped."""
    torch.manual_seed(0)
    network = reconstructor(5, CONFIG).eval()
    network.norm = nn.Identity()  # type: ignore[assignment]
    network.encoder = nn.ModuleList()
    network.decoder = nn.ModuleList()
    values = numbers(2, 5, 10, 10)
    wanted = network.leave(network.enter(values.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    torch.testing.assert_close(network(values), wanted)


def test_paper_sizes() -> None:
    config = METHOD.presets["paper"].config
    with torch.device("meta"):
        network = reconstructor(272, config)
    assert sum(parameter.numel() for parameter in network.parameters()) == 7_717_392
    assert len(network.encoder) == len(network.decoder) == 4
    assert network.encoder[0].attention.num_heads == 8


def made(**changes: object) -> UniAD:
    changes = {"backbone": "tf_efficientnet_lite0", "layers": (0, 1), **changes}
    return UniAD(replace(CONFIG, **changes)).eval()


def test_jitter_is_as_strong_as_the_norm_of_the_token() -> None:
    method, caught = made(jitter=20.0), []
    channels = 40
    values = numbers(64, channels, 10, 10) * torch.arange(1, 101).view(1, 1, 10, 10)

    class Spy(nn.Module):
        def forward(self, features: Tensor) -> Tensor:
            caught.append(features)
            return torch.zeros_like(features)

    losses = method.losses(Spy(), values, drawn(64))
    # The target is the clean feature, not the jittered one.
    torch.testing.assert_close(losses, values.square().mean(dim=(1, 2, 3)))
    noise = (caught[0] - values).square().mean(dim=1).sqrt()
    wanted = values.norm(dim=1) / channels * 20
    torch.testing.assert_close(noise / wanted, torch.ones(64, 10, 10), rtol=0, atol=0.5)
    assert float((noise / wanted).mean()) == pytest.approx(1, abs=0.02)


def test_image_score_is_the_largest_average_of_16_by_16_pixels() -> None:
    method, values = made(image_size=80), numbers(2, 40, 10, 10)
    with torch.inference_mode():
        error = (values - method.network(values)).square().sum(dim=1).sqrt()
    maps = F.interpolate(error[:, None], (80, 80), mode="bilinear", align_corners=True)[:, 0]
    scores = method.score(values, UniAD.Knobs())
    torch.testing.assert_close(scores.maps, maps)
    windows = maps.unfold(1, 16, 1).unfold(2, 16, 1).mean(dim=(3, 4))
    torch.testing.assert_close(scores.images, windows.amax(dim=(1, 2)))


def test_editing_first_gives_the_network_bank_rows() -> None:
    method = made(bank_rate=0.5, epochs=1)
    values = numbers(6, 40, 10, 10)
    method.fit(served(values))
    method.eval()
    queries = numbers(1, 40, 10, 10, seed=5)
    knobs = UniAD.Knobs(k=3, coreset=0.5, pool=1)
    mean, std = values.mean(dim=(0, 2, 3)), values.std(dim=(0, 2, 3), correction=0)
    mean, std = mean.view(1, -1, 1, 1), std.view(1, -1, 1, 1)
    with torch.inference_mode():
        # In the space of LafitE's editing, though the network reads raw features.
        edited = method.bank.edit((queries - mean) / std, knobs) * std + mean
        errors = {True: queries - method.network(edited), False: queries - edited}
    for rebuild, error in errors.items():
        scores = method.score(queries, replace(knobs, rebuild=rebuild))
        # Compared with the unedited features.
        wanted = F.interpolate(
            error.norm(dim=1, keepdim=True), (224, 224), mode="bilinear", align_corners=True
        )[:, 0]
        torch.testing.assert_close(scores.maps, wanted, rtol=1e-4, atol=1e-4)
