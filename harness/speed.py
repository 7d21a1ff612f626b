"""Times every fast operation beside what a user would pick instead, after checking it.

One run, one machine: ours, the torch reference, faiss flat, the naive compiled loop and anomalib
(where LAFITE_BENCH_ANOMALIB names the python of an environment that has it), with a floor made of
counted bytes and operations and the ceilings measured here. An operation that fails its check is
not timed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from torch import Tensor

from harness import registry
from harness.rivals import SMALL, Contest, contests
from kernels.base import Op

REPEATS, PATIENCE = 7, 20.0  # runs of which the median counts; seconds after which one is enough
QUICK = 6_000  # points of a quick run


@dataclass(frozen=True)
class Timing:
    """One row of the table: seconds are medians, ``ratio`` is theirs over ours."""

    op: str
    data: str
    n: int
    m: int
    k: int
    who: str
    seconds: float
    ratio: float
    same: str
    peak_mb: float | None
    floor_seconds: float
    device: str


def speed(op: str | None, points: Path | None, out: Path, quick: bool = False) -> str:
    """Check, time, write ``speed.parquet`` (and ``speed.png``) into ``out``; return the table.

    ``points`` is a .npy file of (N, D) features; without it random ones are used. ``op`` names one
    operation. Raises ValueError on a file that holds no such array.
    """
    features_ND, data = _features(points, quick)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features_ND = features_ND.to(device)
    flop_rate, copy_rate = _ceilings(device)
    lines = [f"{data}; ceilings here: {flop_rate / 1e9:.0f} GFLOP/s, {copy_rate / 1e9:.1f} GB/s"]
    rows: list[Timing] = []
    found = [registry.load("kernels", name) for name in registry.names("kernels")]
    names = [one.name for one in found]
    if op is not None and op not in names:
        raise ValueError(f"no operation is called {op!r}; there are {', '.join(names)}")
    for one in found if op is None else [found[names.index(op)]]:
        wrong = _wrong(one)
        if wrong:
            lines.append(f"{one.name}: wrong on {wrong}; not timed")
            continue
        for contest in contests(one.name, features_ND, quick):
            floor = max(contest.flops / flop_rate, contest.moved_bytes / copy_rate)
            rows += _time(contest, data, floor, device)
    out.mkdir(parents=True, exist_ok=True)
    if rows:
        frame = polars.DataFrame([asdict(row) for row in rows])
        frame.write_parquet(out / "speed.parquet")
        _plot(frame, out / "speed.png")
    if device == "cpu":
        lines.append("GPU: not run on a GPU")
    return "\n".join([lines[0], *_table(rows), *lines[1:]])


def _features(points: Path | None, quick: bool) -> tuple[Tensor, str]:
    if points is None:
        draw = torch.Generator().manual_seed(0)
        return torch.randn(QUICK if quick else SMALL, 192, generator=draw), "random features"
    array = np.load(points)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise ValueError(f"{points} must hold a 2-D array of floats, got {array.shape}")
    features_ND = torch.from_numpy(array).float()
    if quick and len(features_ND) > QUICK:
        features_ND = features_ND[:: len(features_ND) // QUICK].contiguous()
    return features_ND, points.stem


def _wrong(op: Op) -> str:
    for name, arguments in op.cases(torch.float32):
        error = op.error(op.fast(*arguments), op.reference(*arguments), arguments)
        if not error <= op.tolerance[torch.float32]:
            return f"{name} (error {error:.2g})"
    return ""


def _time(contest: Contest, data: str, floor: float, device: str) -> Iterator[Timing]:
    ours, expected = 0.0, None
    for who, call in contest.entries:
        seconds, result, peak = _median(call)
        if expected is None:
            ours, expected = seconds, result
        sizes = (contest.op, data, contest.n, contest.m, contest.k)
        same = _same(expected, result)
        yield Timing(*sizes, who, seconds, seconds / ours, same, peak, floor, device)


def _median(call: Callable[[], Any]) -> tuple[float, Any, float | None]:
    seconds: list[float] = []
    result, peak = None, None
    while len(seconds) < REPEATS and (len(seconds) < 2 or sum(seconds) < PATIENCE):
        before = _reset_peak()
        begun = time.perf_counter()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took = time.perf_counter() - begun
        if isinstance(result, float):  # a time that another process took and told
            took, result = result, None
        seconds.append(took)
        peak = _peak_since(before)
        if took > PATIENCE:
            break
    # The first run compiles and warms up.
    return statistics.median(seconds[1:] or seconds), result, peak


def _same(expected: Any, result: Any) -> str:
    if result is None:
        return "not compared"
    if result.is_floating_point():
        return f"max |Δ| {float((result - expected).abs().max()):.1g}"
    return f"{float((result == expected).double().mean()):.4%} equal"


def _reset_peak() -> float:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated())
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return _status("VmHWM")
    except OSError:
        return float("nan")


def _peak_since(before: float) -> float | None:
    if torch.cuda.is_available():
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    return (_status("VmHWM") - before) / 2**20 if before == before else None


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * float(next(line.split()[1] for line in lines if line.startswith(field)))


def _ceilings(device: str) -> tuple[float, float]:
    size = 2048 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    block = torch.empty(1 << 26, device=device)
    product, _, _ = _median(lambda: a @ a)
    copied, _, _ = _median(lambda: block.clone())
    return 2.0 * size**3 / product, 2.0 * block.nbytes / copied


def _table(rows: list[Timing]) -> list[str]:
    head = f"{'op':14} {'N':>7} {'M/picks':>7} {'K':>3} {'who':21} {'median':>10} {'ours is':>8} "
    lines = [f"{head}{'x floor':>8} {'peak':>8}  result"] if rows else []
    for r in rows:
        peak = "" if r.peak_mb is None else f"{r.peak_mb:.0f} MB"
        lines.append(
            f"{r.op:14} {r.n:7} {r.m:7} {r.k or '':>3} {r.who:21} {r.seconds * 1e3:7.1f} ms "
            f"{r.ratio:7.2f}x {r.seconds / r.floor_seconds:7.1f}x {peak:>8}  {r.same}"
        )
    return lines


def _plot(frame: polars.DataFrame, path: Path) -> None:
    try:
        import matplotlib  # type: ignore[import-not-found, unused-ignore]
    except ModuleNotFoundError:
        return  # the table stands without its picture
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for axis, column in zip(axes, ("n", "m", "k"), strict=True):
        others = [c for c in ("n", "m", "k") if c != column]
        for (op, who), part in frame.group_by("op", "who", maintain_order=True):
            line = part.filter(part.select(polars.struct(others).is_duplicated()).to_series())
            line = line.sort(column)
            if line.get_column(column).n_unique() > 1:
                axis.loglog(line[column], line["seconds"], "o-", label=f"{op}: {who}")
        axis.set(xlabel=column.upper(), ylabel="seconds")
    if axes[0].lines:
        axes[0].legend(fontsize="xx-small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
