"""Cases of which a run without slow tests takes only some."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(fast: Iterable[str], names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test; all but the `fast` ones are marked as slow."""
    few = set(fast)
    return [name if name in few else pytest.param(name, marks=pytest.mark.slow) for name in names]
