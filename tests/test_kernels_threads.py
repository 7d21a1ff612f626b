"""Compiled loops leave torch's number of threads as it was, and use what the processor has."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from kernels import _numba

numba = pytest.importorskip("numba", reason="numba is not installed")


def test_torch_keeps_its_threads() -> None:
    """In a process of its own: numba's pool starts once, and that start is what would change it."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from kernels.kcenter import kcenter_order\n"
        "from kernels.topk import topk_l2\n"
        "x = torch.randn(3000, 64)\n"
        "kcenter_order(x, 50); topk_l2(x[:500], x, 3)\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_avx2_is_used_only_where_torch_and_numba_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(numba.config, "CPU_NAME", None)
    assert _numba.avx2()
    monkeypatch.setattr(numba.config, "CPU_NAME", "generic")
    assert not _numba.avx2()
    monkeypatch.setattr(numba.config, "CPU_NAME", "haswell")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not _numba.avx2()
