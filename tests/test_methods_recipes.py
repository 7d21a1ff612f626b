"""How each method is trained with its published settings: optimiser, epochs, batches, schedule,
and what DRAEM makes of an image before its networks see it.

Every number here is the publication's; no network is trained.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import timm
import torch
from made_features import (
    made_inputs,
)
from made_training import drawn, numbers, served
from torch import Tensor, nn

from harness.plan.registry import load
from methods.base import Method
from methods.draem import METHOD, Draem
from methods.painting.textures import own_textures
from methods.parts.backbone import Features
from methods.parts.shapes import feature_numbers
from methods.parts.stable_adamw import StableAdamW

IMAGES = 3


class Published(NamedTuple):
    """How a method is trained; `tiny` makes its networks small, and changes nothing else."""

    optimiser: type[torch.optim.Optimizer]
    rate: float
    betas: tuple[float, float]
    decay: float
    epochs: int
    batch_size: int
    factors: dict[float, float]
    """The factor on the rate from each share of the training on; 1 before the first."""
    tiny: dict[str, Any]
    clip: float | None = None
    samples: int = IMAGES
    eps: float = 1e-8
    amsgrad: bool = False
    iterations: int | None = None


ADAM, ADAMW = torch.optim.Adam, torch.optim.AdamW
DROP = {0.8: 0.1}
CONSTANT: dict[float, float] = {}
# Over 10,000 steps, of which 100 warm up.
COSINE = {0.0: 0.0, 0.0099: 1.0, 0.01: 1.0, 0.505: 0.55, 0.9999: 0.1}
PUBLISHED = {
    "lafite": Published(
        ADAMW, 1e-4, (0.9, 0.999), 1e-4, 1000, 64, DROP,
        {"image_size": 64, "feature_size": 8, "base": 32, "blocks": 1},
    ),
    "uniad": Published(
        # 8 on each of 8 GPUs.
        ADAMW, 1e-4, (0.9, 0.999), 1e-4, 1000, 64, DROP,
        {"image_size": 64, "feature_size": 8, "width": 16, "feed_forward": 16}, clip=0.1,
    ),
    "patchsvdd": Published(
        ADAM, 1e-4, (0.9, 0.999), 0, 300, 64, CONSTANT,
        {"image_size": 64, "width": 2}, samples=100 * IMAGES,
    ),
    "draem": Published(
        ADAM, 1e-4, (0.9, 0.999), 0, 700, 8, {0.8: 0.2, 0.9: 0.04},
        {"image_size": 64, "rebuild_width": 2, "segment_width": 2},
    ),
    "revdistill": Published(
        ADAM, 5e-3, (0.5, 0.999), 0, 200, 16, CONSTANT,
        {"image_size": 64, "bottleneck_blocks": 1, "decoder_blocks": (1, 1, 1)},
    ),
    "dinomaly": Published(
        StableAdamW, 2e-3, (0.9, 0.999), 1e-4, 10_000, 16, COSINE,
        {"backbone": "vit_tiny_patch16_224", "resize": 64, "crop": 32, "heads": 3},
        clip=0.1, eps=1e-10, amsgrad=True, iterations=10_000,
    ),
    "inpformer": Published(
        # 200 epochs of three images in one batch are as many steps.
        StableAdamW, 1e-3, (0.9, 0.999), 1e-4, 200, 16, COSINE,
        {"backbone": "vit_tiny_patch16_224", "resize": 64, "crop": 32, "heads": 3},
        clip=0.1, eps=1e-10, amsgrad=True,
    ),
    "fastflow": Published(
        ADAM, 1e-3, (0.9, 0.999), 1e-5, 500, 32, CONSTANT,
        {"image_size": 64, "flow_steps": 1, "hidden_ratio": 0.01},
    ),
}  # fmt: skip


class Seen(Exception):
    """Ends a fit where its gradient loop would begin."""


def what_is_optimised(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Method, list[Any]]:
    """A method with its paper preset, but tiny, and what it asks `optimise` to do."""
    declared = load("methods", name)
    asked: list[Any] = []

    def optimise(*arguments: Any, **_: Any) -> None:
        asked.extend(arguments[:4])
        raise Seen

    monkeypatch.setattr(f"methods.{name}.optimise", optimise)
    method: Method = declared.method(
        replace(declared.presets["paper"].config, **PUBLISHED[name].tiny)
    )
    values = made_inputs(method, IMAGES)
    with pytest.raises(Seen):
        method.fit(served(values))
    return method, asked


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_paper_preset_is_trained_as_published(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PUBLISHED[name]
    method, (network, _, batches, recipe) = what_is_optimised(name, monkeypatch)
    optimiser = recipe.build(network)
    assert type(optimiser) is published.optimiser
    for group in optimiser.param_groups:
        assert (group["lr"], group["betas"]) == (published.rate, published.betas)
        assert (group["weight_decay"], group["eps"]) == (published.decay, published.eps)
        assert group["amsgrad"] == published.amsgrad
    trained = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
    assert trained == {
        id(parameter) for parameter in method.parameters() if parameter.requires_grad
    }
    assert trained == {id(parameter) for parameter in network.parameters()}
    assert (recipe.epochs, recipe.batch_size) == (published.epochs, published.batch_size)
    assert recipe.iterations == published.iterations
    assert (recipe.clip, recipe.precision) == (published.clip, "float32")
    assert len(batches) == published.samples
    factor = 1.0
    for done in sorted({epoch / 1000 for epoch in range(1000)} | published.factors.keys()):
        factor = published.factors.get(done, factor)
        if published.factors is not COSINE or done in COSINE:
            assert recipe.rate(done, 10_000) == pytest.approx(factor, abs=1e-6), done


def view_of_draem(images: Tensor, **settings: Any) -> Tensor:
    """What DRAEM, with its paper settings but for these, takes of a batch."""
    config = replace(METHOD.presets["paper"].config, rebuild_width=2, segment_width=2, **settings)
    return Draem(config)._view(images, drawn(len(images)))


def test_draem_turns_three_of_ten_images() -> None:
    images = numbers(800, 3, 64, 64).sigmoid()
    view = view_of_draem(images, image_size=64)
    assert view.shape == images.shape
    as_they_were = (view == images).flatten(1).all(dim=1)
    assert 0.25 < 1 - as_they_were.double().mean() < 0.35
    # Almost none of the others keeps a corner: what a turn brings in there is black.
    corners = view[~as_they_were][:, :, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).double().mean() > 0.9


def test_draem_cuts_windows_of_the_asked_size_out_of_the_image() -> None:
    # Red tells the row, green the column.
    along = torch.arange(96.0) / 96
    image = torch.stack(
        [along[:, None].expand(96, 96), along.expand(96, 96), along.new_ones(96, 96)]
    )
    images = image.expand(500, 3, 96, 96)
    view = view_of_draem(images, image_size=96, window=64, turned=0.0)
    assert view.shape == (500, 3, 64, 64)
    corners = (view[:, :2, 0, 0] * 96).round().long()
    for window, (top, left) in zip(view, corners.tolist(), strict=True):
        assert torch.equal(window, image[:, top : top + 64, left : left + 64])
    assert set(corners.flatten().tolist()) == {*range(33)}, "windows lie everywhere"


class Spy(nn.Module):
    """Both networks; notes what they are shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, images_B3SS: Tensor) -> tuple[Tensor, Tensor]:
        self.shown = images_B3SS
        return images_B3SS, images_B3SS[:, :2]


def test_draems_networks_see_values_from_0_to_1_and_no_statistics_of_imagenet() -> None:
    images = numbers(60, 3, 64, 64).mul(3).sigmoid()
    method, network = Draem(replace(METHOD.presets["smoke"].config, turned=0.3)), Spy()
    source = own_textures(served(images))
    method.losses(source, network, images, drawn(60))
    assert network.shown.min() >= 0 and network.shown.max() <= 1
    assert not torch.equal(network.shown, images)
    method.config = replace(method.config, turned=0.0, damaged=0.0)
    method.losses(source, network, images, drawn(60))
    assert torch.equal(network.shown, images), "what is neither turned nor damaged stays as it is"
    method.network = network
    method.score(images, METHOD.presets["smoke"].knobs)
    assert torch.equal(network.shown, images)


@pytest.mark.parametrize(
    "name, millions",
    [
        # Of the networks that are trained, and of the frozen one before them: ADer and MambaAD's
        # tables of costs (NeurIPS 2024); DRAEM trains all it has.
        ("uniad", 24.5),
        ("draem", 97.4),
    ],
)
def test_the_paper_preset_has_the_published_size(name: str, millions: float) -> None:
    declared = load("methods", name)
    config = declared.presets["paper"].config
    method = declared.method(config, seed=0)
    count = sum(p.numel() for p in method.parameters() if p.requires_grad)
    view = declared.method.inputs(config)
    if isinstance(view, Features):
        model = view.backbone.partition(".")[0]
        frozen = timm.create_model(model, features_only=True, out_indices=view.layers)
        count += sum(p.numel() for p in frozen.parameters())
    assert count / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize(
    "name, cells, channels",
    [("patchcore", 28 * 28, 1024), ("uniad", 14 * 14, 272), ("lafite", 32 * 32, 272)],
)
def test_the_paper_preset_sees_the_published_features(name: str, cells: int, channels: int) -> None:
    declared = load("methods", name)
    view = declared.method.inputs(declared.presets["paper"].config)
    assert feature_numbers(view) == cells * channels
