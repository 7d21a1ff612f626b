"""A small network, samples and a regression, for tests of the gradient loop and the ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from methods.parts.batches import Batch, Batches, Draws
from methods.parts.training import Recipe, optimise


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def made(count: int, seed: int = 0) -> Batches:
    """Samples whose input is their own index."""
    return Batches(count, lambda i: torch.tensor(i).view(-1, 1), seed=seed)


def served(values: Tensor, seed: int = 0) -> Batches:
    """These inputs as training samples."""
    return Batches(len(values), lambda indices: values[list(indices)], seed=seed)


def order_of(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.inputs for batch in batches]).flatten().tolist()


def drawn(count: int, seed: int = 0, *, step: int = 0, positions: Tensor | None = None) -> Draws:
    """The draws for a batch of so many samples, or for those at these positions in it."""
    own = torch.arange(count) if positions is None else positions
    batch = Batch(torch.zeros(len(own), 1), own, count)
    return Draws(batch, torch.device("cpu"), seed, step=step)


COUNT = 13


def features() -> Batches:
    return served(numbers(COUNT, 6, 3, 3) * 2 + 1)


def regress(network: nn.Module, values: Tensor, draws: Draws) -> Tensor:
    """A loss with a draw in it: it must be the same for any number of ranks."""
    noisy = values.flatten(1) + 0.1 * draws.normal(values[0].numel())
    wanted = values.mean(dim=(1, 2, 3)) + draws.integers(0, 3)
    return (network(noisy)[:, 0] - wanted).square()


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(54, 8), nn.SiLU(), nn.Linear(8, 1))


def recipe(epochs: int, batch_size: int = 5, **others: Any) -> Recipe:
    """AdamW at a rate that such a regression needs."""
    settings = {"learning_rate": 1e-2, "optimiser": "adamw", "weight_decay": 0.01} | others
    return Recipe(epochs=epochs, batch_size=batch_size, **settings)


class PlainSteps(Recipe):
    """Gradient descent: Adam would hide a wrong scale of the loss."""

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(network.parameters(), lr=self.learning_rate)


def trained(training: Recipe, losses_of: Any = regress) -> tuple[nn.Module, list[float]]:
    network = small()
    losses: list[float] = []
    optimise(
        network,
        losses_of,
        features(),
        training,
        seed=0,
        on_progress=lambda p: losses.extend([] if p.loss is None else [p.loss]),
    )
    return network, losses


TWO = recipe(epochs=4)
