"""The contract of a method: what it reads, how it learns, how it scores.

Shape legend: B images, C channels, H and W pixels, h and w grid cells.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

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
    positions: Tensor
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
            # Rank r holds positions r, r + world, ... whatever the pieces are.
            own = piece[piece % world == rank()]
            indices = [int(i) for i in order[own]]
            if indices:
                keys = tuple(self.keys[i] for i in indices)
                positions = torch.from_numpy(own - piece[0])
                yield Batch(self.fetch(indices), keys, positions, len(piece))


class Neighbours(NamedTuple):
    """What a search in a memory bank found for each cell of the grid, nearest first."""

    distances: Tensor
    """(B, g, g, K) float32."""
    rows: Tensor
    """(B, g, g, K) int64, indices of the bank's rows."""


class BankSearch(NamedTuple):
    """The search for the k nearest rows in the first `coreset` share of all training patches."""

    coreset: float
    k: int

    @property
    def name(self) -> str:
        """Names the search among those of one model."""
        return f"{self.coreset:.6g}-{self.k}"

    def serves(self, other: BankSearch) -> bool:
        """Whether it finds what the other does."""
        return self.coreset == other.coreset and self.k >= other.k


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

    @abstractmethod
    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Learn from normal samples; `keeper` lets a training by gradients go on after a crash."""

    @abstractmethod
    def score(self, inputs: Tensor, keys: Sequence[str], knobs: Any) -> Scores:
        """Score a batch; `keys` identify the images, so that noise depends on them alone."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What is known of a method before one is built; each method's file ends with its own."""

    method: type[Method]
    presets: Mapping[str, Preset]
    check: Callable[[Any, Any, int], None]
    """check(config, knobs, images): ValueError, in one line, for values that so many training
    images don't allow."""
    cost: Callable[[Any, int], Cost]
    """cost(config, images): what learning from so many images will cost."""
    search: Callable[[Any], tuple[Stage, ...]] = lambda config: ()
    """search(config): how the knobs are searched, stage by stage."""
    ablation: Callable[[Any, Any], Mapping[str, tuple[Any, Any]]] = lambda config, knobs: {}
    """ablation(config, knobs): named variants that tell what each part adds; one Config for all of
    them, where possible, so that they share a fit."""
    passes: Callable[[Any], int] = lambda knobs: 0
    """passes(knobs): how often scoring one image runs the trained network."""
    files_sha256: Callable[[Any], str] = lambda config: ""
    """files_sha256(config): identity of files, beside data and backbone, that are learned from;
    ValueError, in one line, where they can't be read."""
    scores_while_training: bool = True
    """False where something is learned after the last epoch, without which nothing is scored."""


@runtime_checkable
class SearchesBank(Protocol):
    """A method whose scores begin with a search in a memory bank, which many settings share."""

    @classmethod
    def bank_search(cls, knobs: Any) -> BankSearch | None:
        """The search that scoring with these knobs makes; None if it makes none."""

    def neighbours(self, inputs: Tensor, search: BankSearch) -> Neighbours:
        """What the search finds for the inputs."""

    def score(
        self, inputs: Tensor, keys: Sequence[str], knobs: Any, neighbours: Neighbours | None = None
    ) -> Scores:
        """As `Method.score`; `neighbours` are what a search that serves these knobs found."""


@runtime_checkable
class Explains(Protocol):
    """A method that shows what happens on the way to its scores."""

    def explain(self, inputs: Tensor, keys: Sequence[str], knobs: Any) -> dict[str, Tensor]:
        """Maps (B, g, g) by what they show."""


@runtime_checkable
class Diffuses(Protocol):
    """A method that corrupts features step by step."""

    def corrupted(self, inputs: Tensor, keys: Sequence[str], t: int) -> Tensor:
        """Features (B, C, g, g) after t corruption steps."""
