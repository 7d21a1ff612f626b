"""Diffusion: schedule and samplers against diffusers, and the U-Net."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from made_training import numbers
from torch import Tensor

from methods.lafite import LafitE
from methods.networks.diffusion import (
    corrupt,
    cosine_schedule,
    ddim_denoise,
    ddim_steps,
    min_snr_weights,
)
from methods.networks.unet import UNet
from methods.parts.config import of_config

# The schedule and the sampler, against an independent implementation


def of_diffusers(name: str) -> Any:
    with warnings.catch_warnings():
        # What the other package says about its own imports is not ours to fix.
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
        return getattr(diffusers, name)(
            num_train_timesteps=1000,
            beta_schedule="squaredcos_cap_v2",
            clip_sample=False,
            set_alpha_to_one=True,
            prediction_type="epsilon",
        )


@pytest.fixture(scope="module")
def ddim() -> Any:
    return of_diffusers("DDIMScheduler")


def test_cosine_schedule_is_diffusers(ddim: Any) -> None:
    # Our step t is theirs t - 1; ours adds step 0, where nothing is corrupted.
    ours = cosine_schedule(1000)
    assert ours.shape == (1001,) and ours[0] == 1
    assert bool((ours[1:] < ours[:-1]).all())
    torch.testing.assert_close(ours[1:].float(), ddim.alphas_cumprod, rtol=1e-5, atol=1e-6)


def test_corruption_is_diffusers(ddim: Any) -> None:
    clean, noise, t = (
        numbers(5, 3, 4, 4),
        numbers(5, 3, 4, 4, seed=1),
        torch.tensor([1, 50, 200, 600, 1000]),
    )
    wanted = ddim.add_noise(clean, noise, t - 1)
    torch.testing.assert_close(
        corrupt(clean, t, noise, cosine_schedule(1000)), wanted, rtol=1e-5, atol=1e-5
    )


def predict(noisy: Tensor, moment: Tensor) -> Tensor:
    """Any function of state and step will do, as long as both get the same."""
    return torch.tanh(noisy.roll(1, dims=-1) + 0.3 * noisy) + moment.view(-1, 1, 1, 1) / 1000


@pytest.mark.parametrize(("t", "steps"), [(200, 10), (100, 5), (600, 30), (1000, 50), (40, 40)])
def test_denoising_is_diffusers(ddim: Any, t: int, steps: int) -> None:
    noisy = numbers(2, 3, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ddim.set_timesteps(1000 * steps // t)
        wanted = noisy
        for now in range(t, 0, -t // steps):
            noise = predict(wanted, torch.full((2,), now))
            wanted = ddim.step(noise, now - 1, wanted, eta=0.0).prev_sample
    denoised = ddim_denoise(noisy, predict, t, steps, cosine_schedule(1000))
    torch.testing.assert_close(denoised, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("t", "steps"), [(200, 10), (7, 3), (250, 8), (1, 1), (9, 9)])
def test_steps_go_down_from_t_to_zero_evenly(t: int, steps: int) -> None:
    path = ddim_steps(t, steps)
    assert path[0] == t and path[-1] == 0 and len(path) == steps + 1
    gaps = -np.diff(path)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


def test_min_snr_weights_are_the_published_ones() -> None:
    # SNR 9, 5, 1 and a third.
    weights = min_snr_weights(torch.tensor([0.9, 5 / 6, 0.5, 0.25]))
    torch.testing.assert_close(weights, torch.tensor([5 / 9, 1.0, 1.0, 1.0]))


# The U-Net


def test_unet_of_the_paper_has_354_million_parameters() -> None:
    with torch.device("meta"):
        network = of_config(UNet, LafitE.Config(), channels=272)
    assert sum(parameter.numel() for parameter in network.parameters()) == 353_900_560


@pytest.mark.parametrize("side", [14, 16, 32])
def test_unet_of_the_paper_keeps_the_shape(side: int) -> None:
    with torch.device("meta"):
        network = of_config(UNet, LafitE.Config(), channels=272)
        noise = network(torch.empty(2, 272, side, side), torch.ones(2, dtype=torch.int64))
    assert noise.shape == (2, 272, side, side)


def small(channels: int = 6, base: int = 16) -> UNet:
    torch.manual_seed(0)
    return UNet(channels, base=base, multipliers=(1, 2, 3), blocks=1, attention_levels=1)


def test_unet_starts_as_no_noise() -> None:
    assert not small()(numbers(2, 6, 8, 8), torch.tensor([1, 500])).any()


def test_gradient_reaches_every_parameter() -> None:
    network = small()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    values, moment, noise = numbers(2, 6, 7, 7), torch.tensor([3, 700]), numbers(2, 6, 7, 7, seed=1)
    # The last layer starts at zero and passes nothing at first, then so do the branches.
    for _ in range(3):
        optimiser.zero_grad()
        (network(values, moment) - noise).square().mean().backward()
        optimiser.step()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not silent


def test_unet_tells_steps_and_places_apart() -> None:
    network = small().eval()
    for module in network.modules():  # what starts at zero would tell nothing apart
        if isinstance(module, torch.nn.Conv2d) and not module.weight.any():
            torch.nn.init.normal_(module.weight)
    values = numbers(1, 6, 8, 8)
    with torch.inference_mode():
        early, late = (network(values, torch.tensor([t])) for t in (10, 11))
        assert float((early - late).norm() / early.norm()) > 1e-4
        together = network(torch.cat([values, 2 * values]), torch.tensor([10, 900]))
    torch.testing.assert_close(together[:1], early, rtol=1e-4, atol=1e-4)
