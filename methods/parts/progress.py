"""News of work that goes on, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Progress:
    """A report of a running `fit`: `step` of `steps` of the named stage are done."""

    stage: str
    step: int
    steps: int
    loss: float | None = None
    yardsticks: Mapping[str, float] = field(default_factory=dict)
    """Name -> loss of a predictor that needs no training, which `loss` must beat."""
    note: str = ""
    """A line for the user; the numbers beside it say nothing."""
    where: str = ""
    """The address of the machine, on a cluster."""


OnProgress = Callable[[Progress], None]


def quiet(*told: object) -> None:
    """A listener that ignores what it is told."""
