"""Two processes do what one does: samples, banks, Gaussians, weights, batch statistics.

One spawn does all that needs them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from made_features import (
    in_ranks,
    made_inputs,
    one_thread,  # noqa: F401
)
from made_training import COUNT, TWO, PlainSteps, features, made, numbers, order_of, trained
from torch import Tensor, nn

from harness.plan.registry import load
from methods.base import Method, quiet
from methods.networks.mirrored_student import BatchNorm
from methods.padim import METHOD, PaDiM
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.batches import Batches
from methods.parts.dist import rank, world_size, wrap
from methods.parts.image_bank import ImageBank


class Normed(nn.Module):
    """A loss that depends on what other samples do to the statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 1), BatchNorm(4), nn.Conv2d(4, 2, 1), BatchNorm(2)
        )

    def forward(self, x_BChw: Tensor) -> Tensor:
        return self.layers(x_BChw)


def normed() -> dict[str, Tensor]:
    network, values, wanted = Normed(), numbers(5, 3, 4, 4) * 3 + 1, numbers(5, 2, 4, 4, seed=1)
    wrapped = wrap(network).train()
    own = slice(rank(), None, world_size())
    loss = (wrapped(values[own]) - wanted[own]).square().sum() * world_size() / 5
    loss.backward()
    gradients = {f"{name}.grad": p.grad for name, p in network.named_parameters()}
    return {**network.state_dict(), **gradients}


def gaussians() -> dict[str, Any]:
    config = replace(METHOD.presets["smoke"].config, resize=32, channels=9)
    values = numbers(COUNT, 24 * 64 + 40 * 16 + 112 * 4)
    method = PaDiM(config)
    method.fit(Batches([str(i) for i in range(COUNT)], lambda i: values[list(i)]))
    return dict(method.state_dict())


TINY = {
    "lafite": {
        "image_size": 64,
        "feature_size": 4,
        "base": 8,
        "parameterisation": "preconditioned",
    },
    "uniad": {"image_size": 64, "feature_size": 6, "width": 16, "feed_forward": 16, "heads": 2},
    "patchsvdd": {"image_size": 64, "width": 2, "patches": 2, "coarse_rate": 0.5},
    "revdistill": {"image_size": 64},
    "fastflow": {"image_size": 64, "flow_steps": 1},
    "dinomaly": {"resize": 64, "grid": 4, "dropout": 0.0, "easy_after": 0, "warmup": 0},
    "inpformer": {"resize": 64, "grid": 4, "warmup": 0},
}
"""Settings of methods whose trained weights do not depend on the number of ranks.

DRAEM's do: its batch statistics are those of each worker's part.
"""


def learned(name: str) -> dict[str, Tensor]:
    method = tiny(name)
    values = made_inputs(method, COUNT)
    method.fit(Batches([str(i) for i in range(COUNT)], lambda i: values[list(i)]))
    return dict(method.state_dict())


def tiny(name: str) -> Method:
    declared = load("methods", name)
    method: Method = declared.method(
        replace(declared.presets["smoke"].config, epochs=2, **TINY[name])
    )
    return method


def together() -> dict[str, Any]:
    standardise = Standardise(6)
    standardise.fit(features())
    bank = MemoryBank()
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    official = MemoryBank(torch.float16)
    official.fit(features(), lambda x: x, 0.2, projection=3, starts=4, seed=0, on_progress=quiet)
    images = ImageBank()
    images.fit(features(), lambda x: x.mean(dim=(2, 3)), 0.6, seed=0, on_progress=quiet)
    # Plain steps, as Adam would hide a wrong scale of the loss.
    network, losses = trained(PlainSteps(epochs=4, batch_size=5, learning_rate=1e-2))
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
        "images": images.state_dict(),
        "weights": network.state_dict(),
        "losses": losses,
        "normed": normed(),
        "gaussians": gaussians(),
        "learned": {name: learned(name) for name in TINY},
        "refused": refused,
        "rank": rank(),
    }


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_ranks(together, 2, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_interleave_the_samples(two_ranks: list[dict[str, Any]]) -> None:
    assert [result["rank"] for result in two_ranks] == [0, 1]
    for size in (3, 64):
        first, second = (result["ordered"][size] for result in two_ranks)
        assert (first, second) == ([0, 2, 4, 6], [1, 3, 5])


def test_two_ranks_fill_the_same_bank_as_one(two_ranks: list[dict[str, Any]]) -> None:
    alone, bank, official = Standardise(6), MemoryBank(), MemoryBank(torch.float16)
    alone.fit(features())
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    official.fit(features(), lambda x: x, 0.2, projection=3, starts=4, seed=0, on_progress=quiet)
    for result in two_ranks:
        torch.testing.assert_close(dict(result["standardise"]), dict(alone.state_dict()))
        assert torch.equal(result["bank"]["rows_MD"], bank.rows_MD)
        assert torch.equal(result["official"]["rows_MD"], official.rows_MD)


def test_two_ranks_keep_the_same_images_as_one(two_ranks: list[dict[str, Any]]) -> None:
    alone = ImageBank()
    alone.fit(features(), lambda x: x.mean(dim=(2, 3)), 0.6, seed=0, on_progress=quiet)
    assert len(alone) == int(COUNT * 0.6)
    for result in two_ranks:
        assert torch.equal(result["images"]["images_ML"], alone.images_ML)
        assert torch.equal(result["images"]["vectors_MC"], alone.vectors_MC)


def test_two_ranks_train_the_same_weights_as_one(two_ranks: list[dict[str, Any]]) -> None:
    network, losses = trained(PlainSteps(epochs=4, batch_size=5, learning_rate=1e-2))
    for result in two_ranks:
        wanted = dict(network.state_dict())
        torch.testing.assert_close(dict(result["weights"]), wanted, rtol=0, atol=1e-5)
        assert result["losses"] == pytest.approx(losses, rel=1e-5)


def test_two_ranks_share_the_statistics_of_a_batch(two_ranks: list[dict[str, Any]]) -> None:
    alone = normed()
    assert float(alone["layers.0.weight.grad"].norm()) > 0.01
    for result in two_ranks:
        torch.testing.assert_close(result["normed"], alone, rtol=1e-4, atol=1e-4)


def test_two_ranks_learn_the_same_gaussians_as_one(two_ranks: list[dict[str, Any]]) -> None:
    alone = gaussians()
    for result in two_ranks:
        torch.testing.assert_close(result["gaussians"], alone)


@pytest.mark.parametrize("name", TINY)
def test_two_ranks_learn_what_one_learns(two_ranks: list[dict[str, Any]], name: str) -> None:
    alone = learned(name)
    weights = {key: weight.detach() for key, weight in tiny(name).named_parameters()}
    moved = sum(float((alone[key] - weights[key]).norm()) for key in weights)
    for result in two_ranks:
        joint = result["learned"][name]
        apart = sum(float((joint[key] - alone[key]).norm()) for key in weights)
        assert apart < 1e-3 * moved
        # Batch statistics, the mean image, banks, principal axes.
        for key in alone.keys() - weights.keys():
            torch.testing.assert_close(joint[key], alone[key], rtol=1e-4, atol=1e-4, msg=key)


def test_a_batch_too_small_for_the_ranks_is_refused(two_ranks: list[dict[str, Any]]) -> None:
    # A rank without a sample would leave the others waiting in the gradients' sum.
    assert all("batch_size=1" in result["refused"] for result in two_ranks)
