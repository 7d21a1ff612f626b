"""Standardising, the memory bank and editing, by brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_training import COUNT, features, numbers, served

from methods.base import BankSearch
from methods.lafite import LafitE
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.progress import quiet


def test_standardise_is_zero_mean_and_unit_variance() -> None:
    values = features().fetch(range(COUNT)).numpy().astype(np.float64)
    standardise = Standardise(6)
    standardise.fit(features())
    mean, std = (f(values, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    np.testing.assert_allclose(standardise.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(standardise.std, std, rtol=1e-6)
    wanted = (values - mean) / std
    standardised = standardise(torch.from_numpy(values).float())
    np.testing.assert_allclose(standardised, wanted, rtol=1e-4, atol=1e-5)


def test_standardise_survives_a_channel_that_never_moves() -> None:
    values = numbers(4, 2, 3, 3)
    values[:, 1] = 5.0
    standardise = Standardise(2)
    standardise.fit(served(values))
    assert standardise(values).isfinite().all()


def filled(rate: float = 0.5, projection: int | None = None, seed: int = 0) -> MemoryBank:
    bank = MemoryBank()
    bank.fit(features(), lambda x: x, rate, projection=projection, seed=seed, on_progress=quiet)
    return bank


def test_bank_holds_the_rate_and_a_smaller_coreset_is_its_prefix() -> None:
    bank, small_bank = filled(0.5), filled(0.1)
    assert bank.rows_MD.shape == (int(COUNT * 9 * 0.5), 6)
    assert bank.source == COUNT * 9
    assert torch.equal(bank.prefix(0.1), small_bank.rows_MD)
    assert torch.equal(bank.prefix(0.5), bank.rows_MD)
    assert len(bank.prefix(1e-9)) == 1
    rows = {
        tuple(row)
        for row in features().fetch(range(COUNT)).permute(0, 2, 3, 1).reshape(-1, 6).tolist()
    }
    assert {tuple(row) for row in bank.rows_MD.tolist()} <= rows


def test_bank_choice_depends_on_the_seed_and_the_projection() -> None:
    first = filled()
    assert torch.equal(filled().rows_MD, first.rows_MD)
    assert not torch.equal(filled(seed=1).rows_MD, first.rows_MD)
    projected = filled(projection=2)
    assert projected.rows_MD.shape == first.rows_MD.shape
    assert not torch.equal(projected.rows_MD, first.rows_MD)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_is_the_mean_squared_distance_by_brute_force(k: int) -> None:
    bank, queries = filled(), numbers(2, 6, 3, 3, seed=9)
    rows = queries.permute(0, 2, 3, 1).reshape(-1, 6)
    apart = (rows[:, None] - bank.prefix(0.3)[None]).square().sum(dim=2)
    wanted = apart.sort(dim=1).values[:, :k].mean(dim=1).view(2, 3, 3)
    distances = bank.search(queries, BankSearch(0.3, k)).distances
    torch.testing.assert_close(distances.square().mean(dim=-1), wanted)


@pytest.mark.parametrize("k", [1, 3])
def test_editing_mixes_neighbours_by_softmax_of_distance(k: int) -> None:
    bank, queries = filled(), numbers(1, 6, 2, 2, seed=9)
    knobs = LafitE.Knobs(coreset=0.5, k=k, temperature=0.5)
    edited = bank.edit(queries, knobs)
    for y, x in itertools.product(range(2), range(2)):
        apart = (bank.rows_MD - queries[0, :, y, x]).norm(dim=1)
        near = apart.argsort()[:k]
        weights = torch.softmax(-apart[near] / 0.5, dim=0)
        torch.testing.assert_close(edited[0, :, y, x], weights @ bank.rows_MD[near])


def test_a_temperature_in_root_channels_means_the_same_for_features_of_any_width() -> None:
    """Every channel twice: distances grow with sqrt(2), the mix should not change."""
    bank, queries = filled(), numbers(1, 6, 2, 2, seed=9)
    wide = MemoryBank()
    wide.rows_MD, wide.source = bank.rows_MD.repeat(1, 2), bank.source
    absolute = LafitE.Knobs(coreset=0.5, k=3, temperature=0.2 * 6**0.5)
    relative = replace(absolute, temperature=0.2, temperature_unit="root_channels")
    edited, twice = bank.edit(queries, relative), queries.repeat(1, 2, 1, 1)
    torch.testing.assert_close(wide.edit(twice, relative)[:, :6], edited)
    torch.testing.assert_close(bank.edit(queries, absolute), edited)
    assert not torch.allclose(wide.edit(twice, absolute)[:, :6], edited)
    neighbours = bank.search(queries, BankSearch(0.5, 4))
    torch.testing.assert_close(bank.edit(queries, relative, neighbours), edited)
