"""PatchCore: distances to a coreset, by brute force."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from made_features import one_thread  # noqa: F401
from torch import Tensor

from methods.base import Batches
from methods.parts.maps import smooth_upsample
from methods.patchcore import PatchCore

CONFIG, KNOBS = PatchCore.presets["smoke"]
CONFIG = replace(CONFIG, resize=32, grid=4, channels=6, bank_rate=0.5)
KNOBS = replace(KNOBS, coreset=0.5)


def numbers(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, 4, 4, generator=torch.Generator().manual_seed(seed))


def fitted(seed: int = 0) -> PatchCore:
    values = numbers(10, 0)
    method = PatchCore(CONFIG, seed=seed)
    method.fit(Batches([str(i) for i in range(10)], lambda i: values[list(i)], seed=seed))
    return method


@pytest.mark.parametrize(("k", "coreset"), [(1, 0.5), (1, 0.1), (4, 0.3)])
def test_scores_are_brute_force_distances(k: int, coreset: float) -> None:
    method, queries = fitted(), numbers(3, 1)
    bank = method.bank.rows_MD[: int(160 * coreset)]
    rows = queries.permute(0, 2, 3, 1).reshape(-1, 6)
    apart = (rows[:, None] - bank[None]).square().sum(dim=2)
    wanted = apart.sort(dim=1).values[:, :k].mean(dim=1).view(3, 4, 4)
    found = method.score(queries, ["a", "b", "c"], replace(KNOBS, k=k, coreset=coreset))
    torch.testing.assert_close(found.images, wanted.amax(dim=(1, 2)))
    torch.testing.assert_close(found.maps, smooth_upsample(wanted, 32, 1.0))


def test_a_training_patch_in_the_whole_bank_scores_zero() -> None:
    method = PatchCore(replace(CONFIG, bank_rate=1.0))
    values = numbers(4, 0)
    method.fit(Batches(list("abcd"), lambda i: values[list(i)]))
    found = method.score(values[:2], ["a", "b"], replace(KNOBS, coreset=1.0))
    torch.testing.assert_close(found.images, torch.zeros(2))


def test_the_seed_decides_where_the_coreset_starts() -> None:
    assert torch.equal(fitted(0).bank.rows_MD, fitted(0).bank.rows_MD)
    assert not torch.equal(fitted(0).bank.rows_MD, fitted(1).bank.rows_MD)


def test_maps_have_the_side_of_the_crop() -> None:
    config = replace(CONFIG, crop=24)
    assert PatchCore.inputs(config).side == 24
    method = PatchCore(config)
    values = numbers(4, 0)
    method.fit(Batches(list("abcd"), lambda i: values[list(i)]))
    assert method.score(values[:1], ["a"], KNOBS).maps.shape == (1, 24, 24)


@pytest.mark.parametrize(
    ("config", "knobs", "word"),
    [({}, {"k": 0}, "k=0"), ({}, {"k": 10**6}, "k=1000000"), ({"bank_rate": 0.0}, {}, "bank_rate"),
     ({}, {"coreset": 0.9}, "coreset"), ({}, {"sigma": -1.0}, "sigma"), ({}, {"pool": 5}, "pool")],
)  # fmt: skip
def test_settings_out_of_range(config: dict, knobs: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PatchCore.check(replace(CONFIG, **config), replace(KNOBS, **knobs), images=10)
    PatchCore.check(CONFIG, KNOBS, images=10)


def test_paper_values() -> None:
    config, knobs = PatchCore.presets["paper"]
    assert (config.backbone, config.layers) == ("wide_resnet50_2.tv_in1k", (2, 3))
    assert (config.resize, config.crop, config.grid, config.channels) == (256, 224, 28, 1024)
    assert (config.bank_rate, config.projection) == (0.1, 128)
    assert (knobs.k, knobs.coreset, knobs.sigma, knobs.pool) == (1, 0.1, 4.0, 1)
