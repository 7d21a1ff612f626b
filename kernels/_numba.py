"""The only place that imports numba; without it ``njit`` marks nothing and AVAILABLE is False."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch

AVAILABLE = find_spec("numba") is not None

if AVAILABLE:
    import numba

prange: Any = numba.prange if AVAILABLE else range


def njit(**options: Any) -> Callable[[Any], Any]:
    """Compile with numba where it is installed, else return the function untouched."""
    return numba.njit(cache=True, **options) if AVAILABLE else lambda function: function


@contextmanager
def threads() -> Iterator[int]:
    """Run compiled loops on torch's number of threads, or on fewer where numba was told so."""
    of_torch = torch.get_num_threads()
    before = numba.get_num_threads()
    count = min(before, of_torch)
    numba.set_num_threads(count)
    # numba's OpenMP pool sets the thread count of torch's OpenMP too, when it starts and at each
    # parallel loop: left so, two processes of one thread each would spin on all cores ever after.
    torch.set_num_threads(of_torch)
    try:
        yield count
    finally:
        numba.set_num_threads(before)
        torch.set_num_threads(of_torch)
