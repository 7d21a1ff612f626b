"""The number format that this processor multiplies fast: one rule for all networks.

bfloat16 is half the bytes of float32, and twice to eight times as fast where the hardware has
products of it: GPUs from sm_80 on, CPUs with AVX512-BF16, AMX or Arm's BF16. Elsewhere PyTorch
emulates it: correct, and up to twelve times slower than float32.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

Format = Literal["float32", "bfloat16"]

OLDER = {
    "ONEDNN_MAX_CPU_ISA": "SSE41 AVX AVX2 AVX2_VNNI AVX2_VNNI_2 AVX512_CORE AVX512_CORE_VNNI",
    "ATEN_CPU_CAPABILITY": "default avx2",
}
"""Values of the variables that hold PyTorch to a processor without bfloat16 products."""
NEWER = {
    "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16 AVX512_CORE_FP16 AVX512_CORE_AMX AVX512_CORE_AMX_FP16 "
    "AVX10_1_512 AVX10_1_512_AMX AVX10_1_512_AMX_FP16 AVX10_2_512 AVX10_2_512_AMX_2 DEFAULT ALL",
    "ATEN_CPU_CAPABILITY": "avx512 sve sve128 sve256 vsx zvector",
}
VARIABLES = {name: tuple(f"{OLDER[name]} {NEWER[name]}".split()) for name in OLDER}
"""All their values; nonsense PyTorch would ignore."""


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware, and its libraries may.

    Tests replace this function to try the other format.
    """
    import torch  # not above: the command line reads the names below, and loads no torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
    # oneDNN reads its variable in either case.
    isa, capability = (os.environ.get(name, "") for name in OLDER)
    held = isa.upper() in OLDER["ONEDNN_MAX_CPU_ISA"].split()
    held |= capability in OLDER["ATEN_CPU_CAPABILITY"].split()
    return device.type == "cpu" and native and not held


def number_format(wished: str, device: torch.device) -> Format:
    """The format in which a device does what a setting's `precision` wishes."""
    return "bfloat16" if wished == "bfloat16" and native_bfloat16(device) else "float32"
