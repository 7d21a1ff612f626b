"""LafitE: schedule and sampler against diffusers, the U-Net, and what editing and t do."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from made_features import (
    anomalous_share,
    batches,
    inputs,
    need_lite0,
    one_thread,  # noqa: F401
    unseen,
)
from torch import Tensor

from methods.lafite import METHOD, LafitE, noise_predictor
from methods.networks.diffusion import (
    corrupt,
    cosine_schedule,
    ddim_denoise,
    ddim_invert,
    ddim_steps,
)
from methods.networks.unet import UNet
from methods.parts.backbone import LITE0
from methods.parts.batches import Batch, Batches, Draws
from methods.parts.maps import error_map, image_score, smooth_upsample


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The schedule and the sampler, against an independent implementation


@pytest.fixture(scope="module")
def ddim() -> Any:
    with warnings.catch_warnings():
        # What the other package says about its own imports is not ours to fix.
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
        return diffusers.DDIMScheduler(
            num_train_timesteps=1000,
            beta_schedule="squaredcos_cap_v2",
            clip_sample=False,
            set_alpha_to_one=True,
            prediction_type="epsilon",
        )


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


@pytest.mark.parametrize(("t", "steps"), [(200, 10), (100, 5), (600, 30), (1000, 50)])
def test_inversion_is_diffusers(t: int, steps: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        diffusers = pytest.importorskip("diffusers")
        inverse = diffusers.DDIMInverseScheduler(
            num_train_timesteps=1000,
            beta_schedule="squaredcos_cap_v2",
            clip_sample=False,
            set_alpha_to_one=True,
            prediction_type="epsilon",
        )
        inverse.set_timesteps(1000 * steps // t)
        clean = wanted = numbers(2, 3, 4, 4)
        for step in range(t // steps, t + 1, t // steps):
            noise = predict(wanted, torch.full((2,), step))
            # Our step t is theirs t - 1.
            wanted = inverse.step(noise, step - 1, wanted).prev_sample
    latent = ddim_invert(clean, predict, t, steps, cosine_schedule(1000))
    torch.testing.assert_close(latent, wanted, rtol=1e-5, atol=1e-5)


def test_inversion_and_denoising_are_inverse_where_the_noise_does_not_move() -> None:
    clean, noise, level = (
        numbers(3, 2, 4, 4).double(),
        numbers(3, 2, 4, 4, seed=1),
        cosine_schedule(1000),
    )
    for t, steps in [(1, 1), (300, 7), (900, 10)]:
        latent = ddim_invert(clean, lambda x, m: noise.double(), t, steps, level)
        back = ddim_denoise(latent, lambda x, m: noise.double(), t, steps, level)
        torch.testing.assert_close(back, clean)
        assert not torch.allclose(latent, clean, atol=1e-3) or t == 1


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
    return UNet(
        channels, base=base, multipliers=(1, 2, 3), blocks=1, attention_levels=1, dropout=0.0
    )


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


# The method

CONFIG = LafitE.Config(
    backbone=LITE0,
    layers=(0, 1),
    image_size=64,
    feature_size=8,
    base=16,
    multipliers=(1, 2),
    blocks=1,
    epochs=1,
    batch_size=4,
    bank_rate=0.2,
)
KNOBS = LafitE.Knobs(t=50, k=3, steps=2, coreset=0.2, sigma=1.0, pool=4)
KEYS = ["a", "b", "c"]


@cache
def fitted(seed: int = 0) -> LafitE:
    values = 3 * numbers(8, 40, 8, 8) + 1
    method = LafitE(CONFIG, seed=seed)
    method.fit(Batches([str(i) for i in range(8)], lambda i: values[list(i)], seed=seed))
    return method.eval()


@pytest.fixture
def no_gradients() -> Iterator[None]:
    fitted()  # learned before, as it needs gradients
    with torch.inference_mode():
        yield


def queries(count: int = 3) -> Tensor:
    return 3 * numbers(count, 40, 8, 8, seed=5) + 1


@pytest.mark.usefixtures("no_gradients")
def test_t_zero_is_edit_only() -> None:
    method, values = fitted(), queries()
    clean = method.standardise(values)
    edited = method.bank.edit(clean, KNOBS)
    maps = smooth_upsample(error_map(clean - edited), 64, 1.0, align_corners=True)
    scores = method.score(values, KEYS, replace(KNOBS, t=0))
    torch.testing.assert_close(scores.maps, maps)
    torch.testing.assert_close(scores.images, image_score(maps, 4))


@pytest.mark.usefixtures("no_gradients")
def test_k_zero_is_without_editing() -> None:
    method, values = fitted(), queries()
    clean = method.standardise(values)
    rebuilt = method.reconstruct(clean, KEYS, replace(KNOBS, k=0, t=1, steps=1))
    # One step of 1000 hardly corrupts: what comes back is nearly the input, not a bank row.
    assert float((rebuilt - clean).norm() / clean.norm()) < 0.05
    knobs = replace(KNOBS, k=1, t=1, steps=1)
    edited = method.reconstruct(method.edit(clean, knobs), KEYS, knobs)
    assert float((edited - clean).norm() / clean.norm()) > 0.2


@pytest.mark.usefixtures("no_gradients")
def test_the_edited_features_are_corrupted_and_denoised() -> None:
    method, values = fitted(), queries()
    clean = method.standardise(values)
    edited = method.bank.edit(clean, KNOBS)
    wanted = error_map(clean - method.reconstruct(edited, KEYS, replace(KNOBS, k=0)))
    torch.testing.assert_close(method.explain(values, KEYS, KNOBS)["original to rebuilt"], wanted)


@pytest.mark.usefixtures("no_gradients")
def test_raw_score_space_measures_in_units_of_the_features() -> None:
    method, values = fitted(), queries()
    knobs = replace(KNOBS, t=0, sigma=0.0)
    edited = method.bank.edit(method.standardise(values), KNOBS)
    raw = edited * method.standardise.std + method.standardise.mean
    wanted = smooth_upsample(error_map(values - raw), 64, 0.0, align_corners=True)
    maps = method.score(values, KEYS, replace(knobs, score_space="raw")).maps
    torch.testing.assert_close(maps, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("no_gradients")
def test_several_draws_are_averaged_and_the_first_is_that_of_one() -> None:
    method, values = fitted(), queries()
    knobs = replace(KNOBS, sigma=0.0)
    one, two, three = (method.score(values, KEYS, replace(knobs, draws=n)).maps for n in (1, 2, 3))
    second, third = 2 * two - one, 3 * three - 2 * two
    assert not torch.allclose(one, second, atol=1e-3), "the same noise twice"
    assert not torch.allclose(third, second, atol=1e-3), "the same noise twice"
    clean = method.standardise(values)
    rebuilt = method.reconstruct(method.edit(clean, knobs), KEYS, knobs, 1)
    wanted = smooth_upsample(error_map(clean - rebuilt), 64, 0.0, align_corners=True)
    torch.testing.assert_close(second, wanted, rtol=1e-3, atol=1e-3)
    assert METHOD.passes(replace(knobs, draws=3)) == 3 * knobs.steps


@pytest.mark.usefixtures("no_gradients")
def test_whitened_weighs_each_axis_by_what_diffusion_leaves_of_it() -> None:
    method, values = fitted(), queries()
    knobs = replace(KNOBS, sigma=0.0, score_space="whitened")
    clean = method.standardise(values).double()
    rebuilt = method.reconstruct(method.edit(clean.float(), knobs), KEYS, knobs)
    # The norm of U^T d over its deviations, as a form of Sigma s^2 (a^2 Sigma + s^2 I)^-1.
    u, variances = method.axes.axes_CC.double(), method.axes.variances_C.double()
    level = float(cosine_schedule(1000)[knobs.t])
    left = u @ torch.diag(variances) @ u.T * (1 - level)
    left = left @ torch.linalg.inv(
        level * u @ torch.diag(variances) @ u.T + (1 - level) * torch.eye(40)
    )
    difference = (clean - rebuilt).permute(0, 2, 3, 1)
    wanted = (difference * (difference @ torch.linalg.inv(left))).sum(dim=-1).sqrt().float()
    maps = method.score(values, KEYS, knobs).maps
    torch.testing.assert_close(
        maps, smooth_upsample(wanted, 64, 0.0, align_corners=True), rtol=1e-3, atol=1e-3
    )


@pytest.mark.usefixtures("no_gradients")
def test_what_the_covariance_alone_knows_is_the_mahalanobis_distance() -> None:
    method, values = fitted(), queries()
    train = method.standardise(3 * numbers(8, 40, 8, 8) + 1).transpose(0, 1).flatten(1).double()
    clean = method.standardise(values).permute(0, 2, 3, 1).double()
    inverse = torch.linalg.inv(train @ train.T / train.shape[1])
    wanted = (clean * (clean @ inverse)).sum(dim=-1).sqrt().float()
    got = method.explain(values, KEYS, KNOBS)["off the principal axes"]
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.usefixtures("no_gradients")
def test_the_latent_norm_needs_no_noise_and_grows_with_distance() -> None:
    method, values = fitted(), queries()
    for space in ("standardised", "whitened"):
        knobs = replace(KNOBS, k=0, score="latent", score_space=space, sigma=0.0)
        maps = method.score(values, KEYS, knobs).maps
        assert torch.equal(method.score(values, ["x", "y", "z"], knobs).maps, maps)
        middle = method.standardise.mean
        far = method.score(middle + 3 * (values - middle), KEYS, knobs).maps
        assert bool((far > maps).all())


def test_noise_depends_on_seed_and_image_only() -> None:
    method, values = fitted(), queries()
    together = method.score(values, KEYS, KNOBS).images
    alone = method.score(values[2:], KEYS[2:], KNOBS).images
    torch.testing.assert_close(alone, together[2:], rtol=1e-4, atol=1e-4)
    renamed = method.score(values, ["a", "x", "c"], KNOBS).images
    torch.testing.assert_close(renamed[[0, 2]], together[[0, 2]], rtol=1e-4, atol=1e-4)
    assert abs(float(renamed[1] - together[1])) > 1e-3
    other = LafitE(CONFIG, seed=1).eval()
    other.load_state_dict(method.state_dict())
    assert not torch.allclose(other.score(values, KEYS, KNOBS).images, together, rtol=1e-4)


def test_training_draws_only_the_steps_that_are_asked_for() -> None:
    method = LafitE(replace(CONFIG, train_t=30))
    caught: list[Tensor] = []

    def spy(noisy: Tensor, moment: Tensor) -> Tensor:
        caught.append(moment)
        return torch.zeros_like(noisy)

    values = queries(500)
    batch = Batch(values, tuple(map(str, range(500))), torch.arange(500), 500)
    losses = method.losses(spy, values, Draws(batch, torch.device("cpu"), seed=0))  # type: ignore[arg-type]
    assert (int(caught[0].min()), int(caught[0].max())) == (1, 30)
    # The target is the noise itself: predicting none of it costs its variance.
    assert losses.shape == (500,)
    assert float(losses.mean()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("config", "knobs", "word"),
    [({}, {"t": -1}, "t=-1"), ({}, {"t": 1001}, "t=1001"), ({"train_t": 40}, {"t": 50}, "t=50"),
     ({"train_t": 1001}, {}, "train_t=1001"),
     ({}, {"steps": 0}, "steps=0"), ({}, {"t": 5, "steps": 6}, "steps=6"), ({}, {"k": -1}, "k=-1"),
     ({}, {"k": 10**6}, "k=1000000"), ({}, {"t": 0, "k": 0}, "t=0 and k=0"),
     ({}, {"coreset": 0.3}, "coreset"), ({}, {"coreset": 0.0}, "coreset"),
     ({}, {"draws": 0}, "draws=0"), ({"ema": 1.0}, {}, "ema=1.0"),
     ({}, {"t": 0, "score_space": "whitened"}, "whitened"), ({}, {"score": "latent"}, "k=0"),
     ({}, {"score": "latent", "k": 0, "t": 0}, "t=0"),
     ({}, {"score": "latent", "k": 0, "draws": 2}, "draws=2"),
     ({}, {"score": "latent", "k": 0, "score_space": "raw"}, "raw"),
     ({"bank_rate": 1.1}, {}, "bank_rate"), ({}, {"temperature": 0.0}, "temperature"),
     ({}, {"sigma": -0.1}, "sigma"), ({}, {"pool": 65}, "pool"), ({"epochs": 0}, {}, "epochs")],
)  # fmt: skip
def test_settings_out_of_range(config: dict, knobs: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word) as caught:
        METHOD.check(replace(CONFIG, **config), replace(KNOBS, **knobs), 10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "knobs", [{"t": 0}, {"k": 0}, {"t": 1000, "steps": 1000}, {"t": 0, "steps": 10}]
)
def test_settings_in_range(knobs: dict) -> None:
    METHOD.check(CONFIG, replace(KNOBS, **knobs), 10)


def test_paper_values() -> None:
    config, knobs = METHOD.presets["paper"]
    assert (config.base, config.multipliers, config.blocks) == (256, (1, 2, 3, 4), 2)
    assert (config.feature_size, config.image_size, config.diffusion_steps) == (32, 224, 1000)
    assert (config.epochs, config.batch_size, config.schedule) == (1000, 64, "step")
    assert (config.learning_rate, config.weight_decay) == (1e-4, 1e-4)
    assert (config.bank_rate, config.train_t, config.ema) == (0.1, None, 0.0)
    assert (knobs.coreset, knobs.sigma, knobs.pool, knobs.weighting) == (0.1, 4.0, 16, "softmax")


# What training buys


def left(method: LafitE, t: int = 300) -> tuple[float, float]:
    """Mean error without editing on normal and on anomalous cells of `shapes`.

    In units of what remains when no noise is predicted: 1 is no denoising at all. (An AUROC of the
    plain error would say little here: anomalous features are longer, and a random network's error
    grows with length.)
    """
    keys = [sample.key for sample in unseen()]
    clean = method.standardise(inputs(method.inputs(method.config), "test"))
    knobs = replace(KNOBS, k=0, t=t, steps=5)
    with torch.inference_mode():
        error = error_map(clean - method.eval().reconstruct(clean, keys, knobs))
        # A new network's last layer is zero; the seed gives it the same corruption.
        new = LafitE(method.config, seed=method.seed).eval()
        idle = error_map(clean - new.reconstruct(clean, keys, knobs))
    share = anomalous_share(method.config.image_size, method.config.feature_size)
    normal, anomalous = share == 0, share > 0.3
    return tuple(float(error[cells].mean() / idle[cells].mean()) for cells in (normal, anomalous))


def test_a_trained_model_reconstructs_normal_features_better() -> None:
    need_lite0()
    config = replace(
        CONFIG,
        layers=(1,),
        image_size=128,
        base=32,
        train_t=300,
        epochs=40,
        batch_size=8,
        learning_rate=3e-3,
        schedule="one_cycle",
        bank_rate=0.01,
    )
    method = LafitE(config)
    train = batches(method.inputs(config))
    method.standardise.fit(train)
    assert left(method) == pytest.approx((1, 1), rel=1e-3)
    for strength in (0.01, 0.05, 0.2):
        torch.nn.init.normal_(method.unet.leave[-1].weight, std=strength)
        assert left(method)[0] > 0.99, "random weights do not denoise"
    trained = LafitE(config)
    trained.fit(train)
    normal, anomalous = left(trained)
    assert normal < 0.85
    assert anomalous > normal + 0.05


def noise_loss(method: LafitE) -> float:
    """Eq. 6 on unseen normal images, every draw the same for every method."""
    normal = [i for i, sample in enumerate(unseen()) if not sample.anomalous]
    values = inputs(method.inputs(method.config), "test")[normal]
    batch = Batch(values, tuple(map(str, normal)), torch.arange(len(normal)), len(normal))
    with torch.inference_mode():
        losses = [
            method.losses(method.unet, values, Draws(batch, torch.device("cpu"), seed)).mean()
            for seed in range(20)
        ]
    return float(torch.stack(losses).mean())


def test_gradients_teach_more_than_the_covariance() -> None:
    need_lite0()
    config = METHOD.presets["smoke"].config
    still = LafitE(replace(config, learning_rate=1e-12, epochs=1))
    trained = LafitE(config)
    for method in (still, trained):
        method.fit(batches(method.inputs(config)))
    linear = noise_loss(still)
    assert noise_loss(trained) < 0.95 * linear
    torch.nn.init.normal_(still.unet.leave[-1].weight, std=0.02)
    assert noise_loss(still) > linear, "random weights know nothing"
