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
)
from made_training import COUNT, TWO, PlainSteps, features, made, numbers, order_of, served, trained
from torch import Tensor, nn

from harness.plan.registry import load
from methods.base import Method
from methods.networks.mirrored_student import BatchNorm
from methods.padim import METHOD, PaDiM
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.dist import rank, world_size, wrap
from methods.parts.image_bank import ImageBank
from methods.parts.progress import quiet


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
    method.fit(served(values))
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
    method.fit(served(values))
    return dict(method.state_dict())


def tiny(name: str) -> Method:
    declared = load("methods", name)
    method: Method = declared.method(
        replace(declared.presets["smoke"].config, epochs=2, **TINY[name])
    )
    return method


def together() -> dict[str, Any]:
    """A method learned by one process, or by several that share the samples."""
    standardise, bank, official, images = (
        Standardise(6), MemoryBank(), MemoryBank(torch.float16), ImageBank()
    )  # fmt: skip
    standardise.fit(features())
    whole: dict[str, Any] = {"seed": 0, "on_progress": quiet}
    bank.fit(features(), lambda x: x, 0.2, projection=None, **whole)
    official.fit(features(), lambda x: x, 0.2, projection=3, starts=4, **whole)
    images.fit(features(), lambda x: x.mean(dim=(2, 3)), 0.6, **whole)
    # Plain steps, as Adam would hide a wrong scale of the loss.
    network, losses = trained(PlainSteps(epochs=4, batch_size=5, learning_rate=1e-2))
    try:
        trained(replace(TWO, batch_size=1))
        refused = ""
    except ValueError as error:
        refused = str(error)
    return {
        "standardise": dict(standardise.state_dict()),
        "bank": dict(bank.state_dict()),
        "official bank": dict(official.state_dict()),
        "images": dict(images.state_dict()),
        "weights": dict(network.state_dict()),
        "losses": torch.tensor(losses),
        "batch statistics": normed(),
        "gaussians": gaussians(),
        "learned": {name: learned(name) for name in TINY},
        "refused": refused,
        "ordered": [order_of(list(made(7).ordered(size))) for size in (3, 64)],
    }


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return together()


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_ranks(together, 2, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_interleave_the_samples(two_ranks: list[dict[str, Any]]) -> None:
    assert [result["ordered"] for result in two_ranks] == [2 * [[0, 2, 4, 6]], 2 * [[1, 3, 5]]]


@pytest.mark.parametrize(
    ("part", "tolerance"),
    [
        ("bank", 0), ("official bank", 0), ("images", 0), ("standardise", 1e-5), ("weights", 1e-5),
        ("losses", 1e-5), ("gaussians", 1e-6), ("batch statistics", 1e-4),
    ],
)  # fmt: skip
def test_two_ranks_learn_the_same_as_one(
    alone: dict[str, Any], two_ranks: list[dict[str, Any]], part: str, tolerance: float
) -> None:
    for result in two_ranks:
        torch.testing.assert_close(result[part], alone[part], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", TINY)
def test_two_ranks_train_a_method_as_one_does(
    alone: dict[str, Any], two_ranks: list[dict[str, Any]], name: str
) -> None:
    wanted = alone["learned"][name]
    weights = {key: weight.detach() for key, weight in tiny(name).named_parameters()}
    moved = sum(float((wanted[key] - weights[key]).norm()) for key in weights)
    for result in two_ranks:
        joint = result["learned"][name]
        apart = sum(float((joint[key] - wanted[key]).norm()) for key in weights)
        assert apart < 1e-3 * moved
        # Batch statistics, the mean image, banks, principal axes.
        for key in wanted.keys() - weights.keys():
            torch.testing.assert_close(joint[key], wanted[key], rtol=1e-4, atol=1e-4, msg=key)


def test_a_batch_too_small_for_the_ranks_is_refused(two_ranks: list[dict[str, Any]]) -> None:
    # A rank without a sample would leave the others waiting in the gradients' sum.
    assert all("batch_size=1" in result["refused"] for result in two_ranks)
