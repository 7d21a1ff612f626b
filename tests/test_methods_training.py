"""The gradient loop: schedule, clipping, divergence, resuming, compiling."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from made_training import COUNT, TWO, PlainSteps, features, recipe, regress, small, trained
from torch import Tensor, nn

from methods.base import Diverged, Keeper
from methods.parts.accelerating import accelerated, compile_in_place, why_not
from methods.parts.batches import Draws
from methods.parts.progress import quiet
from methods.parts.training import optimise


def test_training_lowers_the_loss_and_leaves_eval_mode() -> None:
    network, losses = trained(recipe(12))
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    assert not network.training


def test_training_starts_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = trained(TWO)[1]
    torch.manual_seed(2)
    assert trained(TWO)[1] == first


def test_every_batch_of_every_epoch_has_draws_of_its_own() -> None:
    seen: list[float] = []

    def spying(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        seen.append(float(draws.normal(1)[0]))
        return regress(net, values, draws)

    trained(recipe(3), spying)
    assert len(set(seen)) == len(seen) == 9


def test_one_cycle_warms_up_and_ends_near_zero() -> None:
    schedule = recipe(1, schedule="one_cycle")
    rates = [schedule.rate(done / 1000) for done in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert rates.index(max(rates)) == 100 and max(rates) == pytest.approx(1.0)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] < 1e-4


def plain_steps(epochs: int, rate: float, clip: float) -> PlainSteps:
    return PlainSteps(epochs=epochs, batch_size=COUNT, learning_rate=rate, clip=clip)


def test_the_schedule_reaches_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[torch.optim.Optimizer] = []
    build = PlainSteps.build
    monkeypatch.setattr(
        PlainSteps,
        "build",
        lambda self, network: (built.append(build(self, network)), built[-1])[1],
    )
    rates = {5: 0.2, 4: 2.0}
    for epochs, wanted in rates.items():
        trained(plain_steps(epochs, 2.0, clip=1e-9))
        assert built[-1].param_groups[0]["lr"] == pytest.approx(wanted)


def test_gradients_are_clipped() -> None:
    def loud(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        return 1e4 * regress(net, values, draws)

    before = nn.utils.parameters_to_vector(small().parameters())
    network, _ = trained(plain_steps(1, 1.0, clip=0.1), loud)
    after = nn.utils.parameters_to_vector(network.parameters())
    assert float((after - before).detach().norm()) == pytest.approx(0.1, rel=1e-3)


def test_a_loss_that_is_not_a_number_ends_training() -> None:
    def broken(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        return regress(net, values, draws) * float("nan")

    with pytest.raises(Diverged, match="epoch 1 of 2"):
        trained(recipe(2), broken)


def test_networks_are_not_compiled_on_a_cpu_and_keep_their_names_where_they_are() -> None:
    network = small()
    assert accelerated(network) is network and network._compiled_call_impl is None
    names = list(network.state_dict())
    compile_in_place(network)
    assert network._compiled_call_impl is not None
    assert list(network.state_dict()) == names
    assert deepcopy(network)._compiled_call_impl is None, "copies stay plain"


def test_without_a_compiler_a_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "g++" in why_not()


class Crash(Exception):
    """Stands for a killed worker."""


class Kept(Keeper):
    """Holds the state after each epoch in memory and crashes when told to."""

    def __init__(self, network: nn.Module, crash_after: int) -> None:
        self.network, self.crash_after = network, crash_after
        self.epochs = 0
        self.state: dict[str, Any] = {}

    def resume(self, optimiser: torch.optim.Optimizer) -> int:
        if self.state:
            optimiser.load_state_dict(self.state)
        return self.epochs

    def keep(self, epochs: int, optimiser: torch.optim.Optimizer) -> None:
        self.epochs = epochs
        self.state = deepcopy(optimiser.state_dict())
        if epochs == self.crash_after:
            raise Crash


def test_a_resumed_training_equals_a_straight_one() -> None:
    network = small()
    keeper = Kept(network, crash_after=2)

    def go() -> None:
        optimise(network, regress, features(), recipe(6), 0, on_progress=quiet, keeper=keeper)

    with pytest.raises(Crash):
        go()
    torch.rand(3)  # a resumed process draws from another global state
    go()
    straight = trained(recipe(6))[0].state_dict()
    torch.testing.assert_close(dict(network.state_dict()), dict(straight), rtol=0, atol=1e-7)
