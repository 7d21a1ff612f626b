"""Rules that make a network fast on a GPU; results change by rounding only."""

from __future__ import annotations

import os
import shutil

import torch
from torch import nn

from kernels._formats import number_format

COMPILERS = ("c++", "g++", "clang++")
OPTIONS: dict[str, str | int | bool | object] = {
    # Dropout then draws the numbers that it draws without the compiler.
    "fallback_random": True
}


def accelerated(network: nn.Module) -> nn.Module:
    """The network, made channels-last and compiled in place where it lies on a GPU.

    In place, parameters keep their names in checkpoints, and copies stay plain. What the compiler
    can't do runs eagerly. On a CPU neither pays (results/measured/training-speed.md): channels-last
    costs a quarter there. LAFITE_ACCELERATE=0 leaves the network as it is.
    """
    on_gpu = next(network.parameters()).is_cuda
    if on_gpu and os.environ.get("LAFITE_ACCELERATE") != "0":
        network.to(memory_format=torch.channels_last)
        if not why_not():
            torch._dynamo.config.suppress_errors = True
            compile_in_place(network)
    return network


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Matrix products in bfloat16 if `precision` wishes it and the device is fast at it."""
    low = number_format(precision, device) == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, low)


def compile_in_place(network: nn.Module) -> None:
    """Compile at the next call, once; all batch sizes share the compiled network."""
    if network._compiled_call_impl is None:
        network.compile(options=OPTIONS)


def why_not() -> str:
    """The reason why torch.compile can't work on this machine; empty if it can."""
    if not any(shutil.which(name) for name in COMPILERS):
        return f"no C++ compiler ({', '.join(COMPILERS)}) is installed"
    return ""
