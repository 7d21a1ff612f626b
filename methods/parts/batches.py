"""Batches of samples to learn from, and the random numbers that are drawn for them.

Shape legend: B this rank's samples of a batch, C channels, S side of the view in pixels, g grid
cells a side, L numbers of all layers together, N all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from methods.parts.dist import rank, total, world_size
from methods.parts.seeds import derive


class Batch(NamedTuple):
    """This rank's part of a batch."""

    inputs: Tensor
    """Float32: RGB pixels (B, 3, S, S) in [0, 1], frozen features (B, C, g, g), or a pyramid of
    them (B, L)."""
    positions: Tensor
    """Positions (B,) int64 of these samples in the whole batch."""
    size: int
    """Samples in the whole batch, all ranks together."""


class Batches:
    """Samples in batches: all categories mixed, no labels.

    `fetch(indices)` returns the inputs of so many samples as one tensor. `batch_size` is the global
    one: each rank of `torch.distributed` gets its own part of every batch. No sample is dropped or
    doubled.
    """

    def __init__(
        self, samples: int, fetch: Callable[[Sequence[int]], Tensor], *, seed: int = 0
    ) -> None:
        self.samples = samples
        self.fetch = fetch
        self.seed = seed

    def __len__(self) -> int:
        return self.samples

    def epoch(self, index: int, batch_size: int) -> Iterator[Batch]:
        """Batches with each sample once, in an order given by (seed, index) alone.

        There are ceil(samples / batch_size) batches. Their sizes differ by one at most: a small
        last batch would leave a rank without work.
        """
        generator = np.random.default_rng(derive(self.seed, "order", index))
        yield from self._batches(generator.permutation(len(self)), batch_size)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Batches in the order of the samples; rank r gets r, r + world, ..."""
        yield from self._batches(np.arange(len(self)), batch_size)

    def _batches(self, order_N: np.ndarray, batch_size: int) -> Iterator[Batch]:
        batches = max(1, -(-len(order_N) // batch_size))
        world = world_size()
        for whole_B in np.array_split(np.arange(len(order_N)), batches):
            # Rank r holds positions r, r + world, ... wherever a batch begins.
            rank_B = whole_B[whole_B % world == rank()]
            samples = [int(sample) for sample in order_N[rank_B]]
            if samples:
                positions_B = torch.from_numpy(rank_B - whole_B[0])
                yield Batch(self.fetch(samples), positions_B, len(whole_B))


class Draws:
    """Random numbers for this rank's samples of a batch, the same for any number of ranks.

    `step` counts the batches of the training before this one.
    """

    def __init__(self, batch: Batch, device: torch.device, seed: int, *, step: int = 0) -> None:
        self.batch = batch
        self.device = device
        self.step = step
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal (B, *shape) float32."""
        return self._rows(torch.randn, shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform (B, *shape) float32 in [0, 1)."""
        return self._rows(torch.rand, shape)

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Uniform int64 (B, *shape) in [low, high)."""
        return self._rows(partial(torch.randint, low, high), shape)

    def whole(self, values: Tensor) -> Tensor:
        """The values (B, ...) of all ranks' samples, in the batch's order; without gradients."""
        values = values.detach()
        if world_size() == 1:
            return values
        every = values.new_zeros(self.batch.size, *values.shape[1:])
        every[self.batch.positions.to(values.device)] = values
        return total(every)

    def _rows(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        """Draw for all ranks' samples, and take those of this rank."""
        size = (self.batch.size, *shape)
        numbers = draw(size, generator=self.generator, device=self.device)
        return numbers[self.batch.positions.to(self.device)]
