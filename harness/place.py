"""Where and with what a plan runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from harness.features import FeatureCache
from harness.store.store import Store
from methods.base import Progress
from methods.parts.aggregate import Shape
from methods.parts.backbone import Features

Tell = Callable[[Progress], None]
Show = Callable[[int, Progress | None], None]
"""Told of progress of item i; None when it ends."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Folders, workers and their sizes; nothing in it changes a result."""

    store: Store
    cache: FeatureCache
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0
    checkpoint_every: int = 10
    patience: int = 600
    overwrite: bool = False
    code_version: str = "unknown"
    shapes: Mapping[Features, tuple[Shape, ...]] = field(default_factory=dict)
    """Of the layers of backbones, as planning found them: see `methods.parts.backbone.SHAPES`."""

    @property
    def device(self) -> torch.device:
        """The GPU that this process was given, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def slots(self, nodes: Iterable[Mapping[str, float]]) -> int:
        """How many workers nodes of these sizes hold: one can't be split over two nodes."""
        needs = {"CPU": self.cpus, "GPU": self.gpus}
        return sum(
            min(int(node.get(kind, 0) / need) for kind, need in needs.items() if need)
            for node in nodes
        )

    def no_room(self, sizes: Mapping[str, float], why: str) -> str:
        """Why the workers of one fit can't be had, where a cluster has these sizes."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return (
            f"{self.workers} workers of {self.cpus} CPU{gpus}: {why} ({sizes.get('CPU', 0):g} CPU, "
            f"{sizes.get('GPU', 0):g} GPU); use fewer --workers or a larger cluster"
        )
