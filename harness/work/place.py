"""The place of a plan: where and with what it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from harness.plan.cell import Cell
from harness.plan.options import Resources
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.features import this_device
from methods.parts.aggregate import Shape
from methods.parts.backbone import Features


class Piece(NamedTuple):
    """Scores of some images, and the peak memory of the process that made them."""

    maps_NHW: NDArray[np.float32]
    images_N: NDArray[np.float32]
    peak: int


Spread = Callable[[Sequence[range], Any], Iterable[Piece]]
"""Scores each range of the images with these knobs; gives their pieces in the same order."""
Scorers = Callable[[Cell, "Place"], AbstractContextManager[Spread]]
"""Starts the workers that score with a cell's trained model, and ends them."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders and machines; nothing in it changes a result."""

    store: Store
    cache: FeatureCache
    resources: Resources = field(default_factory=Resources)
    scorers: Scorers | None = None
    """None: the process that learned the model scores with it."""
    overwrite: bool = False
    code_version: str = "unknown"
    home: Any | None = None
    """How other nodes find and reach the store, a `cluster.relay.Home`; None: there are none."""
    gate: Any | None = None
    """The demands on a node that joins later, a `cluster.preflight.Gate`."""
    shapes: Mapping[Features, tuple[Shape, ...]] = field(default_factory=dict)
    """Shapes of backbones' layers, as planning found them: see `methods.parts.shapes.SHAPES`."""
    inputs: Mapping[Path, str] = field(default_factory=dict)
    """URI of the data or weights that each path is a copy of; see `harness.work.copies`."""

    @property
    def device(self) -> torch.device:
        """The GPU that this process was given, else the CPU."""
        return this_device()
