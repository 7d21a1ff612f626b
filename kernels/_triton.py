"""The only file that imports Triton; it also compiles a kernel without a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from kernels.base import reference_only

AVAILABLE = find_spec("triton") is not None

if AVAILABLE:
    import triton
    import triton.language

# Without Triton a kernel stays a plain function, which nobody calls.
tl: Any = triton.language if AVAILABLE else None


def jit(function: Any) -> Any:
    """Mark a Triton kernel."""
    return triton.jit(function) if AVAILABLE else function


@dataclass(frozen=True)
class Compiled:
    """A kernel's registers for an architecture, and its shared and spilled memory in bytes."""

    kernel: str
    arch: int
    registers: int
    shared: int
    spilled: int


def usable(x: Tensor) -> bool:
    """True when Triton can run on x: x is on a GPU, or the interpreter is on."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return AVAILABLE and not reference_only() and (x.is_cuda or interpreted)


def compile_for(
    kernel: Any, arch: int, types: Mapping[str, str], constants: Mapping[str, Any], warps: int = 4
) -> Compiled:
    """Compile a kernel for sm_<arch> without a GPU; ``types`` are Triton's, such as "*fp32"."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {
        name: "constexpr" if name in constants else types[name] for name in kernel.arg_names
    }
    source = ASTSource(kernel, signature, constexprs=dict(constants))
    target = GPUTarget("cuda", arch, 32)
    binary = triton.compile(source, target=target, options={"num_warps": warps})
    registers, spilled = _assembled(binary.asm["ptx"])
    shared = int(binary.metadata.shared)
    return Compiled(kernel.fn.__name__, arch, registers, shared, spilled)


def _assembled(ptx: str) -> tuple[int, int]:
    # The driver reports registers and spills of a loaded kernel; here only the assembler can.
    arch = re.search(r"\.target (sm_\w+)", ptx)
    assert arch, "no target in the compiled code"
    assembler = Path(triton.__file__).parent / "backends/nvidia/bin/ptxas"
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / "kernel.ptx"
        code.write_text(ptx)
        command = [str(assembler), "-v", f"--gpu-name={arch[1]}", str(code), "-o", f"{code}.cubin"]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    registers = max(map(int, re.findall(r"Used (\d+) registers", report)))
    return registers, sum(map(int, re.findall(r"(\d+) bytes spill stores", report)))
