"""Two processes do what one does: samples, bank, weights. One spawn does all that needs them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from made_features import (
    in_ranks,
    one_thread,  # noqa: F401
)
from made_training import TWO, features, made, order_of, trained

from methods.base import quiet
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.dist import rank


def together() -> dict[str, Any]:
    standardise = Standardise(6)
    standardise.fit(features())
    bank = MemoryBank()
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    official = MemoryBank(torch.float16)
    official.fit(features(), lambda x: x, 0.2, projection=3, starts=4, seed=0, on_progress=quiet)
    # Plain steps, as Adam would hide a wrong scale of the loss.
    network, losses = trained(TWO, by=torch.optim.SGD)
    try:
        trained(replace(TWO, batch_size=1))
        refused = ""
    except ValueError as error:
        refused = str(error)
    return {
        "ordered": {size: order_of(list(made(7).ordered(size))) for size in (3, 64)},
        "standardise": standardise.state_dict(),
        "bank": bank.state_dict(),
        "official": official.state_dict(),
        "weights": network.state_dict(),
        "losses": losses,
        "refused": refused,
        "rank": rank(),
    }


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_ranks(together, 2, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_interleave_the_samples(two_ranks: list[dict[str, Any]]) -> None:
    assert [found["rank"] for found in two_ranks] == [0, 1]
    for size in (3, 64):
        first, second = (found["ordered"][size] for found in two_ranks)
        assert (first, second) == ([0, 2, 4, 6], [1, 3, 5])


def test_two_ranks_fill_the_same_bank_as_one(two_ranks: list[dict[str, Any]]) -> None:
    alone, bank, official = Standardise(6), MemoryBank(), MemoryBank(torch.float16)
    alone.fit(features())
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    official.fit(features(), lambda x: x, 0.2, projection=3, starts=4, seed=0, on_progress=quiet)
    for found in two_ranks:
        torch.testing.assert_close(dict(found["standardise"]), dict(alone.state_dict()))
        assert torch.equal(found["bank"]["rows_MD"], bank.rows_MD)
        assert torch.equal(found["official"]["rows_MD"], official.rows_MD)


def test_two_ranks_train_the_same_weights_as_one(two_ranks: list[dict[str, Any]]) -> None:
    network, losses = trained(TWO, by=torch.optim.SGD)
    for found in two_ranks:
        wanted = dict(network.state_dict())
        torch.testing.assert_close(dict(found["weights"]), wanted, rtol=0, atol=1e-5)
        assert found["losses"] == pytest.approx(losses, rel=1e-5)


def test_a_batch_too_small_for_the_ranks_is_refused(two_ranks: list[dict[str, Any]]) -> None:
    # A rank without a sample would leave the others waiting in the gradients' sum.
    assert all("batch_size=1" in found["refused"] for found in two_ranks)
