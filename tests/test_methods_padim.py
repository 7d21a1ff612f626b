"""PaDiM: Gaussians by position, held against NumPy and SciPy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_training import numbers, served
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import mahalanobis
from torch import Tensor

from methods import padim
from methods.padim import METHOD, PaDiM, drawn_channels
from methods.parts.aggregate import flatten
from methods.parts.batches import Batches

CONFIG, KNOBS = METHOD.presets["smoke"]
CONFIG = replace(CONFIG, resize=32, channels=9)
SHAPES = ((24, 8, 8), (40, 4, 4), (112, 2, 2))
"""Layers 1 to 3 of lite0 at 32 pixels."""
IMAGES = 13


def layers(count: int, seed: int) -> list[Tensor]:
    return [numbers(count, *shape, seed=seed + i) * (i + 1) + i for i, shape in enumerate(SHAPES)]


def train() -> Batches:
    values = flatten(layers(IMAGES, 0))
    return served(values)


def fitted(seed: int = 0) -> PaDiM:
    method = PaDiM(CONFIG, seed=seed)
    method.fit(train())
    return method


def laid_over(pyramid: list[Tensor]) -> Tensor:
    """Deeper cells repeated over the shallowest grid, as `embedding_concat` does: (B, C, P)."""
    repeated = [
        x.repeat_interleave(2**i, 2).repeat_interleave(2**i, 3) for i, x in enumerate(pyramid)
    ]
    return torch.cat(repeated, dim=1).flatten(2).double()


def test_maps_are_scipys_mahalanobis_distances() -> None:
    method = fitted()
    assert method.shapes == SHAPES
    learned, queries = (laid_over(layers(n, s))[:, method.drawn] for n, s in ((IMAGES, 0), (3, 9)))
    wanted = np.zeros((3, 64))
    for position in range(64):
        covariance = np.cov(learned[:, :, position].T.numpy()) + 0.01 * np.eye(9)
        mean, inverse = learned[:, :, position].mean(0).numpy(), np.linalg.inv(covariance)
        for image in range(3):
            away = queries[image, :, position].numpy()
            wanted[image, position] = mahalanobis(away, mean, inverse)
    maps = torch.from_numpy(wanted).view(3, 1, 8, 8)
    upsampled = torch.nn.functional.interpolate(maps, (32, 32), mode="bilinear")[:, 0].numpy()
    smooth = np.stack([gaussian_filter(plane, 2.0) for plane in upsampled])
    scores = method.score(flatten(layers(3, 9)), replace(KNOBS, sigma=2.0))
    np.testing.assert_allclose(scores.maps.numpy(), smooth, rtol=1e-4)
    np.testing.assert_allclose(scores.images.numpy(), smooth.max(axis=(1, 2)), rtol=1e-4)


def test_passes_over_some_positions_learn_what_one_pass_learns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fitted().state_dict()
    monkeypatch.setattr(padim, "AT_ONCE", 10 * 8 * 9**2)
    monkeypatch.setattr(padim, "FACTORED", 3)
    method, reports = PaDiM(CONFIG), []
    method.fit(train(), on_progress=reports.append)
    torch.testing.assert_close(dict(method.state_dict()), dict(whole))
    # 64 positions, 10 a pass.
    assert (reports[-1].step, reports[-1].steps) == (7 * IMAGES, 7 * IMAGES)


def test_a_far_mean_costs_no_digits() -> None:
    far = [layer + 1000 for layer in layers(IMAGES, 0)]
    values = flatten(far)
    method = PaDiM(CONFIG)
    method.fit(served(values))
    # In float32 the sums of squares would lose the covariance.
    torch.testing.assert_close(method.factor_PDD, fitted().factor_PDD, rtol=1e-2, atol=1e-3)


def test_the_seed_draws_the_channels() -> None:
    first = drawn_channels(176, 9, seed=0)
    assert torch.equal(fitted(0).drawn, first)
    assert len(set(first.tolist())) == 9 and first.max() < 176
    assert not torch.equal(first, drawn_channels(176, 9, seed=1))


def test_the_paper_preset_takes_the_memory_that_is_published() -> None:
    config = METHOD.presets["paper"].config
    # 56x56 positions x 550^2 in float32: the 3.8 GB that the factors take, beside 1 GB of sums.
    assert METHOD.cost(config, 100).bank_bytes == 4 * 56**2 * 550**2 + padim.AT_ONCE
