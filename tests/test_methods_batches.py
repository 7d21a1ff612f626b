"""Seeds that derive, batches that cover every sample once, ranks that share them."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from made_training import made, order_of

from methods.parts.seeds import derive


def test_derived_seeds_differ_by_seed_and_purpose() -> None:
    purposes = itertools.product((0, 1, 2), ("order", "noise"), (0, 1, "1"))
    seeds = [derive(seed, word, index) for seed, word, index in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Stored models depend on it: it must not change from one release to the next.
    assert derive(0, "order", 0) == derive(0, "order", 0) != derive(0, "order0")


def pretend(monkeypatch: pytest.MonkeyPatch, number: int, world: int) -> None:
    monkeypatch.setattr("methods.parts.batches.rank", lambda: number)
    monkeypatch.setattr("methods.parts.batches.world_size", lambda: world)


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 8), (33, 16), (5, 1)])
def test_an_epoch_gives_each_sample_once_in_even_batches(count: int, size: int) -> None:
    batches = list(made(count).epoch(0, size))
    assert sorted(order_of(batches)) == list(range(count))
    sizes = [len(batch.inputs) for batch in batches]
    assert len(sizes) == math.ceil(count / size)
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    for batch in batches:
        assert batch.size == len(batch.inputs)
        assert batch.positions.tolist() == list(range(batch.size))


def test_order_depends_on_seed_and_epoch_only() -> None:
    batches = made(40, seed=1)
    first = order_of(list(batches.epoch(3, 8)))
    np.random.seed(7)
    torch.manual_seed(7)
    list(batches.epoch(0, 8))
    assert order_of(list(batches.epoch(3, 5))) == first
    assert order_of(list(made(40, seed=1).epoch(3, 8))) == first
    assert order_of(list(batches.epoch(4, 8))) != first
    assert order_of(list(made(40, seed=2).epoch(3, 8))) != first
    assert order_of(list(batches.ordered(8))) == list(range(40))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("count", "size"), [(24, 6), (25, 7), (11, 4)])
def test_ranks_share_every_batch(
    monkeypatch: pytest.MonkeyPatch, world: int, count: int, size: int
) -> None:
    whole = list(made(count).epoch(2, size))
    by_rank = []
    for number in range(world):
        pretend(monkeypatch, number, world)
        by_rank.append(list(made(count).epoch(2, size)))
    assert {len(batches) for batches in by_rank} == {len(whole)}
    for index, wanted in enumerate(whole):
        shares = [batches[index] for batches in by_rank]
        assert {share.size for share in shares} == {wanted.size}
        rows: dict[int, int] = {}
        for share in shares:
            for position, value in zip(
                share.positions.tolist(), share.inputs.tolist(), strict=True
            ):
                assert position not in rows
                rows[position] = value[0]
        assert [rows[i] for i in range(wanted.size)] == wanted.inputs.flatten().tolist()
        lengths = [len(share.inputs) for share in shares]
        assert max(lengths) - min(lengths) <= 1
