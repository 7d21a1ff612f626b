"""FastFlow: the flow against autograd, likelihoods against SciPy, maps by hand."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_training import numbers, served
from scipy.stats import norm
from torch import Tensor, nn

from harness.plan.overrides import with_overrides
from methods import fastflow
from methods.fastflow import METHOD, FastFlow
from methods.networks.flow import Flow
from methods.parts.batches import Draws
from methods.parts.shapes import check_features, layer_shapes

CONFIG, KNOBS = METHOD.presets["smoke"]
CONFIG = replace(CONFIG, image_size=32, layers=(1, 2), flow_steps=2, epochs=2, batch_size=4)
SHAPES = ((24, 8, 8), (40, 4, 4))
"""Layers 1 and 2 of lite0 at 32 pixels."""


def flow(kernels: tuple[int, ...], channels: int = 5) -> Flow:
    """A flow in float64 whose every parameter is away from where it starts."""
    torch.manual_seed(0)
    made = Flow(channels, kernels=kernels, hidden_ratio=1.5, clamp=2.0).double()
    for parameter in made.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("kernels", [(3,), (1,), (3, 1, 3)])
def test_the_log_jacobian_is_that_of_autograd(kernels: tuple[int, ...]) -> None:
    made, values = flow(kernels), numbers(1, 5, 3, 2).double()

    def forward(flat: Tensor) -> Tensor:
        return made(flat.view_as(values))[0].flatten()

    jacobian = torch.autograd.functional.jacobian(forward, values.flatten())
    _, log_det = made(values)
    assert log_det.shape == (1, 3, 2)
    torch.testing.assert_close(log_det.sum(), torch.linalg.slogdet(jacobian)[1])
    if kernels == (1,):  # no location sees another: each has a Jacobian of its own
        blocks = jacobian.view(5, 6, 5, 6).diagonal(dim1=1, dim2=3).permute(2, 0, 1)
        torch.testing.assert_close(log_det.flatten(), torch.linalg.slogdet(blocks)[1])


def test_log_scales_stay_within_the_clamp() -> None:
    made = flow((3,))
    _, log_det = made(1e6 * numbers(1, 5, 4, 4).double())
    channel = 0.1 * F.softplus(made.steps[0].scale, beta=0.5)
    coupling = (log_det - channel.log().sum()).detach()
    # Two of five channels are scaled.
    assert 2.0 < float(coupling.abs().max()) <= 2 * 2.0


def pyramid(count: int, seed: int = 0) -> Tensor:
    layers = [numbers(count, *shape, seed=seed + i) for i, shape in enumerate(SHAPES)]
    return torch.cat([layer.flatten(1) for layer in layers], dim=1)


def fitted() -> FastFlow:
    values = pyramid(9)
    method = FastFlow(CONFIG)
    method.fit(served(values))
    return method


def test_losses_are_negative_log_likelihoods() -> None:
    method, values = fitted(), pyramid(3, seed=7)
    losses = method.losses(method.flows, values, Draws(None, method.device, 0))  # type: ignore[arg-type]
    wanted = np.zeros(3)
    for shape, start, net, layer_norm in zip(
        SHAPES, (0, 24 * 64), method.flows.flows, method.flows.norms, strict=True
    ):
        size = int(np.prod(shape))
        layer = values[:, start : start + size].view(3, *shape)
        z, log_det = net(layer_norm(layer))
        likelihood = norm.logpdf(z.detach().numpy()).sum(axis=(1, 2, 3))
        likelihood += log_det.detach().numpy().sum(axis=(1, 2))
        constant = -0.5 * np.log(2 * np.pi) * size
        wanted -= likelihood - constant
    np.testing.assert_allclose(losses.detach().numpy(), wanted, rtol=1e-4)


@pytest.mark.parametrize("log_jacobian", [False, True])
def test_maps_are_means_over_layers_of_likelihoods(log_jacobian: bool) -> None:
    method, values = fitted(), pyramid(2, seed=7)
    layers = []
    for shape, start, net, layer_norm in zip(
        SHAPES, (0, 24 * 64), method.flows.flows, method.flows.norms, strict=True
    ):
        layer = values[:, start : start + int(np.prod(shape))].view(2, *shape)
        z, log_det = net(layer_norm(layer))
        away = -torch.exp(-0.5 * z.square().mean(dim=1))
        if log_jacobian:
            away = (0.5 * z.square().sum(dim=1) - log_det) / shape[0]
        layers.append(F.interpolate(away[:, None], (32, 32), mode="bilinear")[:, 0])
    wanted = sum(layers) / 2
    scores = method.score(values, replace(KNOBS, log_jacobian=log_jacobian))
    torch.testing.assert_close(scores.maps, wanted.detach())
    torch.testing.assert_close(scores.images, wanted.detach().amax(dim=(1, 2)))


def test_the_layer_norm_is_trained_or_absent() -> None:
    weights = [module.weight for module in fitted().flows.norms]
    assert [tuple(weight.shape) for weight in weights] == [*SHAPES]
    assert all(bool((weight != 1).any()) for weight in weights)
    bare = FastFlow(replace(CONFIG, layer_norm=False))
    assert not any(isinstance(module, nn.LayerNorm) for module in bare.modules())


def test_kernels_alternate_as_published() -> None:
    method = FastFlow(replace(CONFIG, flow_steps=5, kernels=FastFlow.Config().kernels))
    sizes = [step.subnet[0].kernel_size for step in method.flows.flows[0].steps]
    assert sizes == [(3, 3), (1, 1), (3, 3), (1, 1), (3, 3)]


def test_the_papers_transformer_is_within_reach_of_the_command_line() -> None:
    words = str(fastflow.__doc__).split("DeiT is")[1]
    shown = dict(re.findall(r"--set fastflow\.(\w+)=([^\s`]+)", words))
    config, knobs = with_overrides("fastflow", *METHOD.presets["paper"], shown)
    assert config.backbone.startswith("deit_base_distilled_patch16_384.")
    assert (config.layers, config.flow_steps, config.hidden_ratio) == ((7,), 20, 0.16)
    check_features(FastFlow.inputs(config))
    METHOD.check(config, knobs, 9)
    assert layer_shapes(FastFlow.inputs(config)) == ((768, 24, 24),)
