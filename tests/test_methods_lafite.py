"""LafitE: what editing, t and the score do, and what training buys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import pytest
import torch
from made_features import (
    need_lite0,
)
from made_training import drawn, numbers, served
from torch import Tensor

from harness.checks.subject import batches, inputs, unseen
from methods.lafite import METHOD, LafitE
from methods.parts.backbone import LITE0
from methods.parts.maps import error_map, image_score, smooth_upsample

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


@cache
def fitted(seed: int = 0) -> LafitE:
    values = 3 * numbers(8, 40, 8, 8) + 1
    method = LafitE(CONFIG, seed=seed)
    method.fit(served(values))
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
    scores = method.score(values, replace(KNOBS, t=0))
    torch.testing.assert_close(scores.maps, maps)
    torch.testing.assert_close(scores.images, image_score(maps, 4))


@pytest.mark.usefixtures("no_gradients")
def test_k_zero_is_without_editing() -> None:
    method, values = fitted(), queries()
    clean = method.standardise(values)
    rebuilt = method.reconstruct(clean, replace(KNOBS, k=0, t=1, steps=1))
    # One step of 1000 hardly corrupts: what comes back is nearly the input, not a bank row.
    assert float((rebuilt - clean).norm() / clean.norm()) < 0.05
    knobs = replace(KNOBS, k=1, t=1, steps=1)
    edited = method.reconstruct(method.edit(clean, knobs), knobs)
    assert float((edited - clean).norm() / clean.norm()) > 0.2


@pytest.mark.usefixtures("no_gradients")
def test_the_edited_features_are_corrupted_and_denoised() -> None:
    method, values = fitted(), queries()
    clean = method.standardise(values)
    edited = method.bank.edit(clean, KNOBS)
    wanted = error_map(clean - method.reconstruct(edited, replace(KNOBS, k=0)))
    torch.testing.assert_close(method.explain(values, KNOBS)["original to rebuilt"], wanted)


@pytest.mark.usefixtures("no_gradients")
def test_raw_score_space_measures_in_units_of_the_features() -> None:
    method, values = fitted(), queries()
    knobs = replace(KNOBS, t=0, sigma=0.0)
    edited = method.bank.edit(method.standardise(values), KNOBS)
    raw = edited * method.standardise.std + method.standardise.mean
    wanted = smooth_upsample(error_map(values - raw), 64, 0.0, align_corners=True)
    maps = method.score(values, replace(knobs, score_space="raw")).maps
    torch.testing.assert_close(maps, wanted, rtol=1e-4, atol=1e-4)


def test_one_noise_for_all_images_comes_of_the_seed_and_stays_with_the_model() -> None:
    method, values = fitted(), queries()
    scored = method.score(values, KNOBS).images
    mirrored = method.score(torch.cat([values, values.flip(0)]), KNOBS).images
    torch.testing.assert_close(mirrored, torch.cat([scored, scored.flip(0)]), rtol=1e-4, atol=1e-4)
    other = LafitE(CONFIG, seed=1).eval()
    state = method.state_dict()
    other.load_state_dict(state | {"noise_Cgg": other.noise_Cgg.clone()})
    assert float((other.score(values, KNOBS).images - scored).abs().max()) > 1e-3
    other.load_state_dict(state)
    torch.testing.assert_close(other.score(values, KNOBS).images, scored)


def test_training_draws_only_the_steps_that_are_asked_for() -> None:
    method = LafitE(replace(CONFIG, train_t=30))
    caught: list[Tensor] = []

    def spy(noisy: Tensor, moment: Tensor) -> Tensor:
        caught.append(moment)
        return torch.zeros_like(noisy)

    values = queries(500)
    losses = method.losses(spy, values, drawn(500))  # type: ignore[arg-type]
    assert (int(caught[0].min()), int(caught[0].max())) == (1, 30)
    # The target is the noise itself: predicting none of it costs its variance.
    assert losses.shape == (500,)
    assert float(losses.mean()) == pytest.approx(1, abs=0.02)


# What training buys


def noise_loss(method: LafitE) -> float:
    """Eq. 6 on unseen normal images, every draw the same for every method."""
    normal = [i for i, sample in enumerate(unseen()) if not sample.anomalous]
    values = inputs(method.inputs(method.config), "test")[normal]
    with torch.inference_mode():
        losses = [
            method.losses(method.unet, values, drawn(len(values), seed)).mean()
            for seed in range(20)
        ]
    return float(torch.stack(losses).mean())


@pytest.mark.slow
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
