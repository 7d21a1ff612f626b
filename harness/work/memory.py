"""Peak memory of a piece of work."""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


def reset_peak_memory() -> None:
    """Start measuring anew, on the GPU and, where the kernel allows it, on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        _CLEAR.write_text("5")
    except OSError:
        return  # then the peak is that of the process so far


def peak_memory() -> int:
    """Bytes at the peak: of the GPU where there is one, else the resident set of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        line = next(t for t in _STATUS.read_text().splitlines() if t.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def machine_memory() -> int:
    """Bytes of main memory of this machine, whoever uses it."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def settled_memory() -> int:
    """Give freed memory back to the system, start measuring anew; the bytes in use now."""
    if not torch.cuda.is_available():
        # The C library keeps what was freed: the next piece of work would seem to need nothing.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    reset_peak_memory()
    return peak_memory()
