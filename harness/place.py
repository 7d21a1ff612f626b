"""Where and with what a plan runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from harness.features import FeatureCache
from harness.store import Store
from methods.base import Progress

Tell = Callable[[Progress], None]


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

    @property
    def device(self) -> torch.device:
        """The GPU that this process was given, else the CPU."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def ask(self) -> str:
        """The workers of one fit, in words."""
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{self.workers} workers of {self.cpus} CPU{gpus}"
