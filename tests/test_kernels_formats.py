"""The number format follows the processor, for networks and kernels alike."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch

from kernels import _formats
from kernels._formats import native_bfloat16, number_format
from methods.parts.accelerating import autocast

CPU = torch.device("cpu")
NEW = {"avx512_bf16": True}


@pytest.fixture
def processor(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what torch says of the processor, and takes variables of this machine away."""
    for name in _formats.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return lambda **has: monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)


@pytest.mark.parametrize(
    ("has", "native"),
    [({"avx512_bf16": True}, True), ({"amx_bf16": True}, True), ({"bf16": True}, True),
     ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, False), ({}, False)],
)  # fmt: skip
def test_bfloat16_is_native_where_the_processor_multiplies_it(
    processor: Any, has: dict[str, bool], native: bool
) -> None:
    processor(**has)
    assert native_bfloat16(CPU) is native
    assert number_format("bfloat16", CPU) == ("bfloat16" if native else "float32")
    assert number_format("float32", CPU) == "float32"


@pytest.mark.parametrize(
    ("name", "value", "native"),
    [("ONEDNN_MAX_CPU_ISA", "AVX2", False), ("ONEDNN_MAX_CPU_ISA", "avx512_core", False),
     ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", True), ("ONEDNN_MAX_CPU_ISA", "ALL", True),
     ("ATEN_CPU_CAPABILITY", "avx2", False), ("ATEN_CPU_CAPABILITY", "default", False),
     ("ATEN_CPU_CAPABILITY", "avx512", True), ("ONEDNN_MAX_CPU_ISA", "", True)],
)  # fmt: skip
def test_variables_that_hold_torch_to_an_older_processor_are_obeyed(
    processor: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, native: bool
) -> None:
    processor(**NEW)
    monkeypatch.setenv(name, value)
    assert native_bfloat16(CPU) is native


def test_networks_multiply_in_the_format_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, row = torch.nn.Linear(4, 4), torch.ones(1, 4)
    for native, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(_formats, "native_bfloat16", lambda device, has=native: has)
        with autocast(CPU, "bfloat16"):
            assert layer(row).dtype == dtype
        with autocast(CPU, "float32"):
            assert layer(row).dtype == torch.float32


@pytest.mark.parametrize(("name", "value"), [("ONEDNN_MAX_CPU_ISA", "AVX3"),
                                             ("ATEN_CPU_CAPABILITY", "avx3")])  # fmt: skip
def test_nonsense_in_a_variable_is_one_line(name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "list"],
        env=os.environ | {name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"{name}={value}: did you mean" in line
