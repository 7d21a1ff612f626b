"""The number format that this processor multiplies fast: one rule for networks and kernels.

bfloat16 is half the bytes of float32, and twice to eight times as fast where the hardware has
products of it: GPUs from sm_80 on, CPUs with AVX512-BF16, AMX or Arm's BF16. Elsewhere PyTorch
emulates it: correct, and up to twelve times slower than float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Format = Literal["float32", "bfloat16"]

ONEDNN_ISAS = (
    "SSE41",
    "AVX",
    "AVX2",
    "AVX2_VNNI",
    "AVX2_VNNI_2",
    "AVX512_CORE",
    "AVX512_CORE_VNNI",
    "AVX512_CORE_BF16",
    "AVX512_CORE_FP16",
    "AVX512_CORE_AMX",
    "AVX512_CORE_AMX_FP16",
    "AVX10_1_512",
    "AVX10_1_512_AMX",
    "AVX10_1_512_AMX_FP16",
    "AVX10_2_512",
    "AVX10_2_512_AMX_2",
    "DEFAULT",
    "ALL",
)
"""Values of ONEDNN_MAX_CPU_ISA, those without bfloat16 products first."""
ATEN_CAPABILITIES = ("default", "avx2", "avx512", "sve", "sve128", "sve256", "vsx", "zvector")
"""Values of ATEN_CPU_CAPABILITY; the first two have no bfloat16 products."""
VARIABLES: Mapping[str, tuple[str, ...]] = {
    "ONEDNN_MAX_CPU_ISA": ONEDNN_ISAS,
    "ATEN_CPU_CAPABILITY": ATEN_CAPABILITIES,
}
"""Variables that hold PyTorch to an older processor; nonsense in them it would ignore."""


def native_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies bfloat16 matrices in hardware, and its libraries may.

    Tests replace this function to try the other format.
    """
    import torch  # not above: the command line reads the names below, and loads no torch

    if device.type == "cuda":
        with torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and _cpu_has_bfloat16() and not _held_to_older()


def number_format(wished: str, device: torch.device) -> Format:
    """The format in which a device does what a setting's `precision` wishes."""
    return "bfloat16" if wished == "bfloat16" and native_bfloat16(device) else "float32"


def _cpu_has_bfloat16() -> bool:
    import torch

    found: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(found.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def _held_to_older() -> bool:
    """Whether the user holds oneDNN or ATen to instructions without bfloat16 products."""
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    older = ONEDNN_ISAS[: ONEDNN_ISAS.index("AVX512_CORE_BF16")]
    return isa in older or os.environ.get("ATEN_CPU_CAPABILITY", "") in ATEN_CAPABILITIES[:2]
