"""The only file that imports numba before a loop is compiled.

Without numba AVAILABLE is False, and ``njit`` and ``intrinsic`` do nothing.
"""

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
    """Compile with numba where it is installed, else return the function untouched.

    What was compiled is kept for other processes, where there is a folder to keep it in.
    """

    def compiled(function: Any) -> Any:
        if not AVAILABLE:
            return function
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither this package nor a home folder can be written
            return numba.njit(**options)(function)

    return compiled


def intrinsic(function: Any) -> Any:
    """Let compiled loops call the code that ``function`` builds, where numba is installed."""
    if not AVAILABLE:
        return function
    from numba.extending import intrinsic

    return intrinsic(function)


def avx2() -> bool:
    """Whether compiled loops may be given AVX2's own instructions."""
    # A processor that was named to numba may lack them; haswell is the first that has them.
    return (
        AVAILABLE
        and not numba.config.DISABLE_JIT
        and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
        and numba.config.CPU_NAME in (None, "host", "haswell")
    )


@contextmanager
def threads() -> Iterator[int]:
    """Run compiled loops on torch's number of threads, or on fewer where numba was told so."""
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    count = min(numba_threads, torch_threads)
    numba.set_num_threads(count)
    # numba's OpenMP pool sets the thread count of torch's OpenMP too, when it starts and at each
    # parallel loop. Left so, two processes of one thread each would spin on all cores ever after.
    torch.set_num_threads(torch_threads)
    try:
        yield count
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)
