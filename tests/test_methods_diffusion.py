"""Diffusion: schedule and samplers against diffusers, and the U-Net."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from made_features import one_thread  # noqa: F401
from made_training import numbers
from torch import Tensor

from methods.lafite import LafitE, noise_predictor
from methods.networks.diffusion import (
    corrupt,
    cosine_schedule,
    ddim_denoise,
    ddim_steps,
    min_snr_weights,
)
from methods.networks.unet import UNet

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


def test_denoising_with_the_true_noise_returns_the_clean_sample() -> None:
    clean, noise, level = numbers(3, 2, 4, 4), numbers(3, 2, 4, 4, seed=1), cosine_schedule(1000)
    for t, steps in [(1, 1), (300, 7), (999, 10)]:
        noisy = corrupt(clean, torch.full((3,), t), noise, level)
        denoised = ddim_denoise(noisy.double(), lambda x, m: noise.double(), t, steps, level)
        tolerance = 1e-4 / float(level[t].sqrt())
        torch.testing.assert_close(denoised.float(), clean, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("t", "steps"), [(200, 10), (7, 3), (250, 8), (1, 1), (9, 9)])
def test_steps_go_down_from_t_to_zero_evenly(t: int, steps: int) -> None:
    path = ddim_steps(t, steps)
    assert path[0] == t and path[-1] == 0 and len(path) == steps + 1
    gaps = -np.diff(path)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("t", "steps"), [(5, 6), (5, 0)])
def test_more_steps_than_t_are_refused(t: int, steps: int) -> None:
    with pytest.raises(ValueError, match=f"steps={steps}"):
        ddim_steps(t, steps)


def test_min_snr_weights_are_the_published_ones() -> None:
    # SNR 9, 5, 1 and a third.
    weights = min_snr_weights(torch.tensor([0.9, 5 / 6, 0.5, 0.25]))
    torch.testing.assert_close(weights, torch.tensor([5 / 9, 1.0, 1.0, 1.0]))


# The U-Net


def test_unet_of_the_paper_has_354_million_parameters() -> None:
    with torch.device("meta"):
        network = noise_predictor(272, LafitE.Config())
    assert sum(parameter.numel() for parameter in network.parameters()) == 353_900_560


@pytest.mark.parametrize("side", [14, 16, 32])
def test_unet_of_the_paper_keeps_the_shape(side: int) -> None:
    with torch.device("meta"):
        network = noise_predictor(272, LafitE.Config())
        noise = network(torch.empty(2, 272, side, side), torch.ones(2, dtype=torch.int64))
    assert noise.shape == (2, 272, side, side)


@pytest.mark.slow
def test_one_step_of_the_paper_on_a_cpu() -> None:
    network = noise_predictor(272, LafitE.Config())
    last = network.leave[-1].weight
    assert not last.any()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    values, moment = numbers(2, 272, 32, 32), torch.tensor([1, 700])
    loss = (network(values, moment) - values).square().mean()
    loss.backward()
    optimiser.step()
    assert float(loss.detach()) == pytest.approx(float(values.square().mean()))
    assert last.isfinite().all() and last.any(), "the step moved what started at zero"


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


def test_a_new_unet_is_its_straight_path() -> None:
    """Branches and attention start at zero: what is left is linear in the input, whatever t."""
    network = small().eval()
    torch.nn.init.normal_(network.leave[-1].weight)
    network.leave[0], network.leave[1] = torch.nn.Identity(), torch.nn.Identity()
    values, zero = numbers(2, 6, 8, 8), torch.zeros(2, 6, 8, 8)
    for steps in (torch.tensor([1, 1]), torch.tensor([900, 3])):
        with torch.inference_mode():
            still = network(zero, steps)
            once, twice = (network(x, steps) - still for x in (values, 2 * values))
        torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-4)


def test_the_way_up_has_a_block_more_and_takes_every_skip() -> None:
    with torch.device("meta"):
        network = noise_predictor(272, LafitE.Config())
    assert [len(level) for level in network.down] == [2, 2, 2, 2]
    assert [len(level) for level in network.up] == [3, 3, 3, 3]
    # Ho et al.: the first convolution, two blocks a level, three halvings.
    widths = [256, 256, 256, 256, 512, 512, 512, 768, 768, 768, 1024, 1024]
    taken = [block.block.enter[2].in_channels for level in network.up for block in level]
    before = [1024, 1024, 1024, 1024, 768, 768, 768, 512, 512, 512, 256, 256]
    assert taken == [a + b for a, b in zip(before, reversed(widths), strict=True)]


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


@pytest.mark.slow
def test_unet_overfits_one_batch() -> None:
    network = small(base=32)
    values, moment = numbers(4, 6, 8, 8), torch.tensor([10, 200, 500, 900])
    noise = numbers(4, 6, 8, 8, seed=1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(150):
        optimiser.zero_grad()
        loss = (network(values, moment) - noise).square().mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.05
