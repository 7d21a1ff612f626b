"""Ranges of settings; values beyond them are refused, in one line, while planning."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from methods.parts.cost import coreset_rows


def at_least(settings: Any, minimum: float, *names: str) -> None:
    """Raise ValueError unless each named field is finite and at least the minimum, or None."""
    for name, value in _finite(settings, names):
        if value < minimum:
            raise ValueError(f"{name}={value}: must be at least {minimum:g}")


def above_zero(settings: Any, *names: str) -> None:
    """Raise ValueError unless each named field is finite and above zero, or None."""
    for name, value in _finite(settings, names):
        if value <= 0:
            raise ValueError(f"{name}={value}: must be above 0")


def _finite(settings: Any, names: Sequence[str]) -> Iterator[tuple[str, float]]:
    """The named fields that are not None; ValueError for one that is not finite."""
    for name in names:
        value = getattr(settings, name)
        if value is None:
            continue
        if not -math.inf < value < math.inf:
            raise ValueError(f"{name}={value}: must be a finite number")
        yield name, value


def up_to_one(settings: Any, *names: str) -> None:
    """Raise ValueError unless each named field is in (0, 1]."""
    for name in names:
        if not 0 < getattr(settings, name) <= 1:
            raise ValueError(f"{name}={getattr(settings, name)}: must be in (0, 1]")


def check_map(knobs: Any, side: int) -> None:
    """Raise ValueError unless smoothing, where there is any, and pooling fit a map of this side."""
    if hasattr(knobs, "sigma"):
        at_least(knobs, 0, "sigma")
    if not 1 <= knobs.pool <= side:
        raise ValueError(f"pool={knobs.pool}: must be in 1..{side}, the side of the map")


def check_evaluated(knobs: Any) -> None:
    """Raise ValueError unless a map can be made so, see `maps.evaluated`."""
    at_least(knobs, 0, "sigma")
    at_least(knobs, 8, "scored_at")
    if knobs.window < 1 or knobs.window % 2 == 0:
        raise ValueError(f"window={knobs.window}: must be odd, as a pixel lies in its middle")
    up_to_one(knobs, "top")


def check_bank(config: Any, knobs: Any, patches: int) -> None:
    """Raise ValueError unless 0 < coreset <= bank_rate <= 1 and the coreset has k rows or more."""
    up_to_one(config, "bank_rate")
    if not 0 < knobs.coreset <= config.bank_rate:
        raise ValueError(
            f"coreset={knobs.coreset}: must be in (0, bank_rate={config.bank_rate}]; "
            "raise bank_rate to keep a larger bank"
        )
    rows = coreset_rows(patches, knobs.coreset)
    if not 0 <= knobs.k <= rows:
        raise ValueError(
            f"k={knobs.k}: must be in 0..{rows}, as the bank would hold {rows} of {patches} patches"
        )
