"""The contract of a method: what it reads, how it learns, how it scores.

Shape legend: B images, C channels, S side of the view in pixels, g grid cells a side, K neighbours.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from methods.parts.backbone import Features, Pixels
from methods.parts.batches import Batches
from methods.parts.cost import Cost
from methods.parts.progress import OnProgress, quiet
from methods.parts.seeds import derive


class Scores(NamedTuple):
    """Anomaly scores, larger is more anomalous."""

    maps: Tensor
    """(B, S, S) float32, at the resolution of the view."""
    images: Tensor
    """(B,) float32."""


class Keeper:
    """Keeps the state of a training that is to survive a crash; this one keeps nothing."""

    def resume(self, optimiser: torch.optim.Optimizer) -> int:
        """Restore the optimiser; returns the number of epochs that are done."""
        return 0

    def keep(self, epochs: int, optimiser: torch.optim.Optimizer) -> None:
        """Keep the state after so many epochs; called on rank 0 at the end of each."""


class Diverged(RuntimeError):
    """The loss of a training is not finite."""


class Stage(NamedTuple):
    """One step of a search for knobs: all combinations of `grid`, the cheapest first."""

    grid: Mapping[str, Sequence[Any]]
    """Values to try, by the name of a field of Knobs."""
    fixed: Mapping[str, Any] = MappingProxyType({})
    """Values of other knobs during this stage only."""


class Preset(NamedTuple):
    """The Config and Knobs behind a word of `--preset`."""

    config: Any
    knobs: Any


class Method(nn.Module, ABC):
    """A way to find anomalies, trained on normal samples only.

    `Config` holds the settings that learning depends on, `Knobs` those that may change after it.
    Both are frozen, keyword-only dataclasses whose defaults are the published values. Every method
    is final: to vary one, compose parts.
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
        """The device of the method; inputs are moved there."""
        return self._anchor.device

    @classmethod
    @abstractmethod
    def inputs(cls, config: Any) -> Features | Pixels:
        """The view of an image that the method reads: frozen features, or pixels."""

    @abstractmethod
    def fit(
        self, train: Batches, *, on_progress: OnProgress = quiet, keeper: Keeper | None = None
    ) -> None:
        """Learn from normal samples; `keeper` lets a training by gradients go on after a crash."""

    @abstractmethod
    def score(self, inputs: Tensor, knobs: Any) -> Scores:
        """Score a batch; an image's score depends on nothing but the image."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The facts of a method that are known before it is built; its file ends with them."""

    method: type[Method]
    presets: Mapping[str, Preset]
    check: Callable[[Any, Any, int], None]
    """check(config, knobs, images): raises ValueError, in one line, for values out of range, or
    that so many training images don't allow."""
    cost: Callable[[Any, int], Cost]
    """cost(config, images): the cost of learning from so many images."""
    stages: Callable[[Any, Any], tuple[Stage, ...]] = lambda config, knobs: ()
    """stages(config, knobs): the stages of a search for knobs that starts with those, in order."""
    ablation: Callable[[Any, Any], Mapping[str, tuple[Any, Any]]] = lambda config, knobs: {}
    """ablation(config, knobs): named variants that show what each component adds. They share one
    Config where possible, and so one fit."""
    passes: Callable[[Any], int] = lambda knobs: 0
    """passes(knobs): forward passes of the trained network to score one image."""
    files_sha256: Callable[[Any], str] = lambda config: ""
    """files_sha256(config): identity of further files that `fit` reads, beside data and backbone;
    ValueError, in one line, where they can't be read."""
    revision: Callable[[Any], int] = lambda config: 0
    """revision(config): a number to raise when other code gives other scores for these settings."""
    caution: Callable[[Any], str] = lambda config: ""
    """caution(config): a warning, in one line, to read before this is trained; mostly empty."""
    named: Callable[[Any], Mapping[str, str]] = lambda config: {}
    """named(config): settings that every row is to name, although they are the preset's."""


class Neighbours(NamedTuple):
    """The nearest rows of a memory bank to each grid cell, the nearest first."""

    distances: Tensor
    """(B, g, g, K) float32, Euclidean."""
    rows: Tensor
    """(B, g, g, K) int64, indices of the bank's rows."""


class BankSearch(NamedTuple):
    """A search for the k nearest rows in a bank of `coreset` of all training patches."""

    coreset: float
    k: int

    @property
    def name(self) -> str:
        """A name that no other search of the same model has."""
        return f"{self.coreset:.6g}-{self.k}"

    def serves(self, other: BankSearch) -> bool:
        """Whether its neighbours include those of the other search."""
        return self.coreset == other.coreset and self.k >= other.k


@runtime_checkable
class SearchesBank(Protocol):
    """A method whose scores begin with a search in a memory bank, which many settings share."""

    @classmethod
    def bank_search(cls, knobs: Any) -> BankSearch | None:
        """The search that scoring with these knobs begins with; None if it begins with none."""

    def neighbours(self, inputs: Tensor, search: BankSearch) -> Neighbours:
        """The neighbours of the inputs."""

    def score(self, inputs: Tensor, knobs: Any, neighbours: Neighbours | None = None) -> Scores:
        """The scores as by `Method.score`; `neighbours` come of a search that serves the knobs."""


@runtime_checkable
class Explains(Protocol):
    """A method that shows what happens on the way to its scores."""

    def explain(self, inputs: Tensor, knobs: Any) -> dict[str, Tensor]:
        """Maps (B, g, g) or (B, S, S), by what they show; those named "A to B" have one unit."""


@runtime_checkable
class Exports(Protocol):
    """A method whose scores `torch.export` or ONNX can't express as they are computed."""

    def program(self) -> Method:
        """Its twin that they can express."""
