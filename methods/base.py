"""The contract of a method: what it reads, how it learns, how it scores.

Shape legend: B images, C channels, H and W pixels, h and w grid cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methods.parts.backbone import Features, Pixels
from methods.parts.cost import Cost
from methods.parts.dist import rank, world_size
from methods.parts.seeds import derive


class Batch(NamedTuple):
    """This rank's part of a batch."""

    inputs: Tensor
    """Pixels (B, 3, S, S) float32 in [0, 1], RGB, or frozen features float32:
    (B, C, g, g), flat (B, L) where they are a pyramid."""
    keys: tuple[str, ...]
    places: Tensor
    """(B,) int64: where these samples stand in the whole batch."""
    size: int
    """Samples in the whole batch, all ranks together."""


class Scores(NamedTuple):
    """Anomaly scores, larger is more anomalous."""

    maps: Tensor
    """(B, H, W) float32, at the resolution of the method's view of the image."""
    images: Tensor
    """(B,) float32."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What `fit` tells while it runs; `step` of `steps` of the named stage are done."""

    stage: str
    step: int
    steps: int
    loss: float | None = None


OnProgress = Callable[[Progress], None]


def quiet(progress: Progress) -> None:
    """Ignore progress."""


class Keeper:
    """Keeps the state of a training, so that it can go on after a crash; this one keeps nothing."""

    def resume(self, optimiser: torch.optim.Optimizer, average: nn.Module | None) -> int:
        """Put kept state into the optimiser and the EMA; the number of epochs that are done."""
        return 0

    def keep(
        self, epochs: int, optimiser: torch.optim.Optimizer, average: nn.Module | None
    ) -> None:
        """Called on rank 0 after each epoch with the number of epochs done."""


class Diverged(RuntimeError):
    """Training met a loss that is not a number."""


class Batches:
    """Samples by index, in batches: all categories mixed, no labels.

    `keys` names every sample; `fetch(indices)` gives their inputs as one tensor. Under
    `torch.distributed` each rank gets its own part of every batch, so that `batch_size` is always
    the global one and no sample is dropped or doubled.
    """

    def __init__(
        self, keys: Sequence[str], fetch: Callable[[Sequence[int]], Tensor], *, seed: int = 0
    ) -> None:
        self.keys = tuple(keys)
        self.fetch = fetch
        self.seed = seed

    def __len__(self) -> int:
        return len(self.keys)

    def epoch(self, index: int, batch_size: int) -> Iterator[Batch]:
        """Each sample once, in an order given by (seed, index) alone.

        The number of batches is ceil(samples / batch_size) and they differ by one sample at most,
        so no rank is left without work by a small last batch.
        """
        order = np.random.default_rng(derive(self.seed, "order", index)).permutation(len(self))
        yield from self._batches(order, batch_size)

    def ordered(self, batch_size: int) -> Iterator[Batch]:
        """Each sample once, in the order of `keys`; the ranks' parts interleave."""
        yield from self._batches(np.arange(len(self)), batch_size)

    def _batches(self, order: np.ndarray, batch_size: int) -> Iterator[Batch]:
        pieces = max(1, -(-len(order) // batch_size))
        world = world_size()
        for piece in np.array_split(np.arange(len(order)), pieces):
            # Rank r holds the places r, r + world, ... whatever the pieces are.
            places = piece[piece % world == rank()]
            mine = [int(i) for i in order[places]]
            if mine:
                keys = tuple(self.keys[i] for i in mine)
                offsets = torch.from_numpy(places - piece[0])
                yield Batch(self.fetch(mine), keys, offsets, len(piece))


class Neighbours(NamedTuple):
    """What a search in a memory bank found for each cell of the grid, nearest first."""

    distances: Tensor
    """(B, g, g, K) float32."""
    rows: Tensor
    """(B, g, g, K) int64, indices of the bank's rows."""


class Stage(NamedTuple):
    """One step of a search for knobs: all combinations of `grid`, the cheapest first."""

    grid: Mapping[str, Sequence[Any]]
    """Values to try, by the name of a field of Knobs."""
    fixed: Mapping[str, Any] = MappingProxyType({})
    """Values of other knobs during this stage only."""


class Preset(NamedTuple):
    """One of the three words of `--preset`: a Config and Knobs of the method."""

    config: Any
    knobs: Any


class Method(nn.Module, ABC):
    """A way to find anomalies, trained on normal samples only.

    `Config` holds what changes what is learned, `Knobs` what may change afterwards; both are
    frozen, keyword-only dataclasses whose defaults are the published values. Every method is
    final: to vary one, compose parts.
    """

    _anchor: Tensor
    Config: ClassVar[type]
    Knobs: ClassVar[type]
    presets: ClassVar[Mapping[str, Preset]]
    scores_while_training: ClassVar[bool] = True
    """False where something is learned after the last epoch, without which nothing is scored."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__mro__[1] is not Method:
            raise TypeError(f"{cls.__name__}: methods are final; compose parts instead")

    def __init__(self, config: Any, *, seed: int = 0) -> None:
        """Build the method; the seed governs initial weights and every later draw."""
        super().__init__()
        self.config = config
        self.seed = seed
        self.register_buffer("_anchor", torch.empty(0), persistent=False)
        torch.manual_seed(derive(seed, "initial weights"))

    @property
    def device(self) -> torch.device:
        """Where the method lives; inputs are moved there."""
        return self._anchor.device

    @classmethod
    @abstractmethod
    def inputs(cls, config: Any) -> Features | Pixels:
        """What the method reads: frozen features, or the pixels themselves."""

    @classmethod
    @abstractmethod
    def check(cls, config: Any, knobs: Any, images: int) -> None:
        """Raise ValueError, in one line, for values out of range for so many training images."""

    @classmethod
    def files_sha256(cls, config: Any) -> str:
        """Identity of files, beside data and backbone, that are learned from; empty if none are.

        ValueError, in one line, where they can't be read.
        """
        return ""

    @classmethod
    def ablation(cls, config: Any, knobs: Any) -> dict[str, tuple[Any, Any]]:
        """Named variants that tell what each part adds; one Config for all of them, where
        possible, so that they share a fit. None by default."""
        return {}

    @classmethod
    def search(cls, config: Any) -> tuple[Stage, ...]:
        """How the knobs are searched, stage by stage; none where there is nothing to tune."""
        return ()

    @classmethod
    def passes(cls, knobs: Any) -> int:
        """How often scoring one image runs the trained network."""
        return 0

    @classmethod
    @abstractmethod
    def cost(cls, config: Any, images: int) -> Cost:
        """What learning from so many images will cost."""

    @abstractmethod
    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Learn from normal samples; `keeper` lets a training by gradients go on after a crash."""

    def explain(self, inputs: Tensor, keys: Sequence[str], knobs: Any) -> dict[str, Tensor]:
        """Maps (B, g, g) of what happens on the way to the score, by name; none by default."""
        return {}

    def corrupted(self, inputs: Tensor, keys: Sequence[str], t: int) -> Tensor | None:
        """Features (B, C, g, g) after t corruption steps; None where there is no diffusion."""
        return None

    def neighbours(self, inputs: Tensor, k: int, coreset: float) -> Neighbours | None:
        """The search that scoring with knobs `k` and `coreset` makes; None where there is none."""
        return None

    @abstractmethod
    def score(
        self, inputs: Tensor, keys: Sequence[str], knobs: Any, found: Neighbours | None = None
    ) -> Scores:
        """Score a batch; `keys` identify the images, so that noise depends on them alone.

        `found` are their `neighbours` for the same coreset and k or more, if they are known.
        """
