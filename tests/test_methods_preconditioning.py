"""The preconditioned noise predictor, against closed forms of the covariance, in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_training import drawn, numbers, served
from torch import Tensor, nn

from harness.store.checkpoints import load_whole
from methods.lafite import METHOD, LafitE
from methods.networks.diffusion import corrupt, cosine_schedule
from methods.networks.preconditioning import PrincipalAxes, loss_floor
from methods.parts.backbone import LITE0
from methods.parts.batches import Batches
from methods.parts.progress import Progress

C = 6
LEVEL = cosine_schedule(1000)


def gaussian(count: int, channels: int = C, seed: int = 0) -> Tensor:
    """Features (count, channels, 4, 4) whose channels are mixed, of very unequal variances."""
    scale = torch.logspace(0, -1.5, channels)
    mixing = torch.linalg.qr(numbers(channels, channels, seed=7))[0] * scale
    return torch.einsum("dc,bchw->bdhw", mixing, numbers(count, channels, 4, 4, seed=seed))


def train(features: Tensor) -> Batches:
    return served(features)


def axes_of(features: Tensor) -> PrincipalAxes:
    axes = PrincipalAxes(features.shape[1])
    axes.fit(train(features), lambda values: values)
    return axes


def covariance(features: Tensor) -> np.ndarray:
    cells = features.transpose(0, 1).flatten(1).double().numpy()
    return cells @ cells.T / cells.shape[1]


def silent(noisy: Tensor, steps: Tensor) -> Tensor:
    return torch.zeros_like(noisy)


def test_axes_are_those_of_the_covariance() -> None:
    features = gaussian(150)  # more than one batch of the pass
    axes = axes_of(features)
    u, variances = axes.axes_CC.double().numpy(), axes.variances_C.double().numpy()
    np.testing.assert_allclose(u @ np.diag(variances) @ u.T, covariance(features), atol=1e-6)
    np.testing.assert_allclose(u.T @ u, np.eye(C), atol=1e-6)
    assert (np.diff(variances) <= 0).all()


@pytest.mark.parametrize("t", [1, 50, 400, 1000])
def test_a_silent_network_is_the_best_linear_predictor(t: int) -> None:
    features = gaussian(150)
    noisy, steps = numbers(3, C, 4, 4, seed=1), torch.full((3,), t)
    level = float(LEVEL[t])
    # E[noise | x_t] of a Gaussian: s (a^2 Sigma + s^2 I)^-1 x_t.
    noisy_covariance = level * covariance(features) + (1 - level) * np.eye(C)
    cells = noisy.double().transpose(0, 1).flatten(1).numpy()
    wanted = np.sqrt(1 - level) * np.linalg.solve(noisy_covariance, cells)
    noise = axes_of(features).noise(silent, noisy, steps, LEVEL)
    got = noise.double().transpose(0, 1).flatten(1).numpy()
    np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-4 * np.abs(wanted).max())


def test_with_unit_variances_it_is_v_prediction() -> None:
    clean, noise, steps = (
        numbers(4, C, 2, 2),
        numbers(4, C, 2, 2, seed=1),
        torch.tensor([1, 9, 300, 999]),
    )
    level = LEVEL[steps].float().view(-1, 1, 1, 1)
    velocity = level.sqrt() * noise - (1 - level).sqrt() * clean
    predicted = PrincipalAxes(C).noise(
        lambda noisy, steps: -velocity, corrupt(clean, steps, noise, LEVEL), steps, LEVEL
    )
    torch.testing.assert_close(predicted, noise, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [20, 300, 900])
def test_the_network_reads_and_is_asked_for_unit_variance(t: int) -> None:
    features = gaussian(4000)
    axes, steps, noise = axes_of(features), torch.full((4000,), t), numbers(4000, C, 4, 4, seed=1)
    noisy, read = corrupt(features, steps, noise, LEVEL), []

    def spy(scaled: Tensor, steps: Tensor) -> Tensor:
        read.append(scaled)
        return torch.zeros_like(scaled)

    linear = axes.noise(spy, noisy, steps, LEVEL)
    torch.testing.assert_close(read[0].var(dim=(0, 2, 3)), torch.ones(C), rtol=0.02, atol=0)
    level, variances = float(LEVEL[t]), axes.variances_C
    share = (level * variances / (level * variances + 1 - level)).sqrt()
    asked = torch.einsum("dc,bdhw->bchw", axes.axes_CC, linear - noise) / share.view(-1, 1, 1)
    torch.testing.assert_close(asked.var(dim=(0, 2, 3)), torch.ones(C), rtol=0.02, atol=0)


def test_an_axis_without_variance_is_all_noise() -> None:
    features = gaussian(50)
    features[:, 2] = 0  # a constant channel, standardised
    axes = axes_of(features)
    assert float(axes.variances_C.min()) == pytest.approx(0, abs=1e-9)
    noisy, steps = numbers(2, C, 4, 4), torch.tensor([1, 700])
    for network in (silent, lambda noisy, steps: 100 * torch.ones_like(noisy)):
        noise = axes.noise(network, noisy, steps, LEVEL)
        assert noise.isfinite().all()
        wanted = noisy[:, 2] / (1 - LEVEL[steps]).sqrt().float().view(-1, 1, 1)
        torch.testing.assert_close(noise[:, 2], wanted, rtol=1e-3, atol=1e-3)


# In the method

CONFIG = LafitE.Config(
    backbone=LITE0,
    layers=(0,),
    image_size=32,
    feature_size=4,
    base=8,
    multipliers=(1,),
    blocks=1,
    epochs=1,
    batch_size=50,
    bank_rate=0.01,
    train_t=500,
    parameterisation="preconditioned",
)


def channels() -> int:
    return len(LafitE(CONFIG).axes.variances_C)


def measured_losses(method: LafitE, network: Callable[..., Tensor], features: Tensor) -> float:
    losses = method.losses(network, features, drawn(len(features)))  # type: ignore[arg-type]
    return float(losses.detach().mean())


def with_axes(config: LafitE.Config, features: Tensor) -> LafitE:
    method = LafitE(config)
    method.standardise.fit(train(features))
    method.axes.fit(train(features), method.standardise)
    return method


@pytest.mark.parametrize("loss_weights", ["equal", "min_snr"])
def test_yardsticks_are_the_losses_of_such_predictors(loss_weights: str) -> None:
    features = gaussian(6000, channels()) + 3
    config = replace(CONFIG, loss_weights=loss_weights)  # type: ignore[arg-type]
    method = with_axes(config, features)
    yardsticks = method.yardsticks()
    # An untrained network says nothing: the loss begins at the mean of a^2 lambda / v.
    start = measured_losses(method, method.unet, features)
    assert start == pytest.approx(yardsticks["best linear"], rel=0.02)
    assert start == pytest.approx(measured_losses(method, silent, features))
    plain = with_axes(replace(config, parameterisation="noise"), features)
    assert plain.yardsticks() == yardsticks

    def scaled(noisy: Tensor, steps: Tensor) -> Tensor:
        return (1 - LEVEL[steps]).sqrt().float().view(-1, 1, 1, 1) * noisy

    for network, name in ((silent, "no noise"), (scaled, "scaled input")):
        got = measured_losses(plain, network, features)
        assert got == pytest.approx(yardsticks[name], rel=0.02), name
    assert yardsticks["best linear"] < yardsticks["scaled input"] < yardsticks["no noise"]


def fitted(parameterisation: str) -> tuple[LafitE, list[Progress]]:
    config, reports = replace(CONFIG, parameterisation=parameterisation), []  # type: ignore[arg-type]
    method = LafitE(config)
    method.fit(train(gaussian(100, channels())), on_progress=reports.append)
    return method.eval(), reports


def test_every_epoch_says_what_its_loss_must_beat() -> None:
    method, reports = fitted("preconditioned")
    trained = [report for report in reports if report.loss is not None]
    assert trained and all(report.yardsticks == method.yardsticks() for report in trained)


def test_a_model_of_the_other_parameterisation_is_refused() -> None:
    states = {name: fitted(name)[0].state_dict() for name in ("noise", "preconditioned")}
    for own, other in (("noise", "preconditioned"), ("preconditioned", "noise")):
        method = LafitE(replace(CONFIG, parameterisation=own))  # type: ignore[arg-type]
        before = {name: value.clone() for name, value in method.state_dict().items()}
        with pytest.raises(ValueError, match=r"another architecture, e\.g\. preconditioned"):
            load_whole(method, states[other])
        after = method.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
        load_whole(method, states[own])


# The floor of a network that predicts the noise itself


def test_floor_of_white_noise_through_a_narrow_convolution() -> None:
    """What no input of the last convolution can produce: a projection, by its matrix."""
    narrow, grid = 2, 4
    last = nn.Conv2d(narrow, C, 3, padding=1, bias=False)
    cells = torch.eye(narrow * grid**2).view(-1, narrow, grid, grid)
    with torch.no_grad():
        matrix = last(cells).flatten(1).double().numpy()
    left = 1 - np.linalg.matrix_rank(matrix) / (C * grid**2)
    assert loss_floor(C, narrow, grid, grid**2) <= left + 1e-9
    assert loss_floor(C, narrow, grid, grid**2) == pytest.approx(1 - 2 / 6)
    assert loss_floor(C, C, grid, grid**2) == 0


def test_a_network_too_narrow_for_its_noise_is_pointed_out() -> None:
    narrow = LafitE.Config(backbone=LITE0, feature_size=14, base=64, multipliers=(1, 2, 2))
    assert "below 0.62" in METHOD.caution(narrow) and "lafite.base=192" in METHOD.caution(narrow)
    wide = replace(narrow, base=192)
    for config in (wide, replace(narrow, parameterisation="preconditioned"), LafitE.Config()):
        assert METHOD.caution(config) == ""
    for config, _ in METHOD.presets.values():
        assert METHOD.caution(config) == "", "a preset that can't learn"
