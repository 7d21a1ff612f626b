"""Times every fast operation beside what a user would pick instead, after checking it.

One run, one machine: ours, torch, faiss flat, flashlib, the naive compiled loop and anomalib (where
LAFITE_BENCH_ANOMALIB names the python of an environment that has it), with a floor made of counted
bytes and operations and the ceilings measured here. An operation that fails its check is not timed.

It needs torch, numpy and typer alone, so it runs on a bare GPU machine: ``python -m
harness.speed.kernels``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness import registry
from harness.memory import peak_memory, settled_memory
from harness.options import RaceOptions, Say
from harness.registry import UsageError
from harness.speed._contests import POINTS, Contest, contests
from kernels.base import Op

REPEATS, PATIENCE = 7, 20.0  # runs of which the median counts; seconds after which one is enough
QUICK = 6_000  # points of a quick run


@dataclass(frozen=True)
class Timing:
    """One row of the table: seconds are medians, ``ratio`` is theirs over ours.

    ``peak_mb`` is what the call needed beyond its input, its output included.
    """

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


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """Check, time, write ``speed.parquet`` and ``speed.png`` into ``out``; the lines of the table.

    ``points`` is a .npy file of (N, D) features, or a data set whose frozen features of the `quick`
    preset are taken; without it random ones are used. UsageError for what is neither.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features_ND, source = _features(options, device)
    flop_rate, copy_rate = _ceilings(device)
    rows: list[Timing] = []
    notes = []
    for op in (registry.load("kernels", name) for name in registry.names("kernels")):
        if options.op not in (None, "kernels", op.name):
            continue
        say(f"checking {op.name}")
        if wrong := _wrong(op):
            notes.append(f"{op.name}: wrong on {wrong}; not timed")
            continue
        for contest in contests(op, features_ND, options.quick):
            floor = max(contest.flops / flop_rate, contest.moved_bytes / copy_rate)
            rows += _time(contest, source, floor, device, say)
    yield f"{source}; ceilings here: {flop_rate / 1e9:.0f} GFLOP/s, {copy_rate / 1e9:.1f} GB/s"
    yield from [*_table(rows), *notes]
    if device == "cpu":
        yield "GPU: not run on a GPU"
    if rows:
        _write(rows, options.out)


def _features(options: RaceOptions, device: str) -> tuple[Tensor, str]:
    """Features (N, D) on the device, and what they are."""
    points = options.points
    if points is None:
        n, d = POINTS[device]
        draw = torch.Generator().manual_seed(0)
        features_ND = torch.randn(QUICK if options.quick else n, d, generator=draw)
        return features_ND.to(device), "random features"
    if points.endswith(".npy"):
        features_ND, source = _loaded(points), Path(points).stem
    else:
        features_ND, source = _frozen(points), f"features of {Path(points).name}"
    if options.quick and len(features_ND) > QUICK:
        features_ND = features_ND[:: len(features_ND) // QUICK].contiguous()
    return features_ND.to(device), source


def _loaded(points: str) -> Tensor:
    try:
        array = np.load(points)
    except (OSError, ValueError) as error:
        raise UsageError(f"--points {points}: no array of features there ({error})") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise UsageError(f"--points {points}: must hold a 2-D array of floats, not {array.shape}")
    return torch.from_numpy(array).float()


def _frozen(benchmark: str) -> Tensor:
    """Frozen features (N, D) of all training patches, as LafitE's `quick` preset reads them."""
    from harness.cache import FeatureCache
    from harness.features import feature_set
    from harness.options import Selection
    from harness.plan import plan
    from methods.base import quiet
    from methods.parts.bank import patches

    selection = Selection(benchmarks=[benchmark], methods=["lafite"], seeds=1, preset="quick")
    features = feature_set(plan(selection)[0], "train")
    assert features is not None, "lafite reads frozen features"
    cache = FeatureCache.default()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows, _ = cache.read(features, device, quiet)
    return patches(torch.from_numpy(rows.astype(np.float32))).contiguous()


def _wrong(op: Op) -> str:
    for name, arguments in op.cases(torch.float32):
        error = op.error(op.fast(*arguments), op.reference(*arguments), arguments)
        if not error <= op.tolerance[torch.float32]:
            return f"{name} (error {error:.2g})"
    return ""


def _time(contest: Contest, source: str, floor: float, device: str, say: Say) -> Iterator[Timing]:
    ours, expected = 0.0, None
    sizes = (contest.op, source, contest.n, contest.m, contest.k)
    for who, call in contest.entries:
        say(f"timing {contest.op}, N={contest.n} M={contest.m} K={contest.k}: {who}")
        seconds, result, peak = _median(call)
        if expected is None:
            ours, expected = seconds, result
        same = _same(expected, result)
        yield Timing(*sizes, who, seconds, seconds / ours, same, peak, floor, device)


def _median(call: Callable[[], Any]) -> tuple[float, Any, float | None]:
    """Median seconds, the result, and the peak in MB; the first run compiles and warms up."""
    seconds: list[float] = []
    result, peaks = None, []
    while len(seconds) <= REPEATS and (len(seconds) < 2 or sum(seconds) < PATIENCE):
        result = None
        before = settled_memory()
        begun = time.perf_counter()
        result = call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        peaks.append((peak_memory() - before) / 1e6)
        if isinstance(result, float):  # a time that another process took and told
            return result, None, None
        if seconds[0] > PATIENCE:
            break
    return statistics.median(seconds[1:] or seconds), result, max(peaks[1:] or peaks)


def _same(expected: Any, result: Any) -> str:
    if result is None:
        return "not compared"
    if result.is_floating_point():
        return f"max |Δ| {float((result - expected).abs().max()):.1g}"
    return f"{float((result == expected).double().mean()):.4%} equal"


def _ceilings(device: str) -> tuple[float, float]:
    size = 2048 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device)
    block = torch.empty(1 << 26, device=device)
    product, _, _ = _median(lambda: a @ a)
    copied, _, _ = _median(lambda: block.clone())
    return 2.0 * size**3 / product, 2.0 * block.nbytes / copied


def _table(rows: list[Timing]) -> list[str]:
    head = f"{'op':14} {'N':>7} {'M/picks':>7} {'K':>3} {'who':24} {'median':>12} {'ours is':>8} "
    lines = [f"{head}{'x floor':>8} {'peak':>8}  result"] if rows else []
    for r in rows:
        peak = "" if r.peak_mb is None else f"{r.peak_mb:.0f} MB"
        lines.append(
            f"{r.op:14} {r.n:7} {r.m:7} {r.k or '':>3} {r.who:24} {r.seconds * 1e3:9.1f} ms "
            f"{r.ratio:7.2f}x {r.seconds / r.floor_seconds:7.1f}x {peak:>8}  {r.same}"
        )
    return lines


def _write(rows: list[Timing], out: Path) -> None:
    """The Parquet table and the plot; neither where what makes them is not installed."""
    if find_spec("polars") is None:
        return
    import polars

    out.mkdir(parents=True, exist_ok=True)
    frame = polars.DataFrame([asdict(row) for row in rows])
    frame.write_parquet(out / "speed.parquet")
    _plot(frame, out / "speed.png")


def _plot(frame: Any, path: Path) -> None:
    """Seconds against N, M and K: a row of axes for each operation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    ops = frame.get_column("op").unique(maintain_order=True).to_list()
    figure, grid = pyplot.subplots(
        len(ops), 3, figsize=(13, 3.4 * len(ops)), layout="constrained", squeeze=False
    )
    for axes, op in zip(grid, ops, strict=True):
        of_op = frame.filter(frame["op"] == op)
        for axis, column in zip(axes, ("n", "m", "k"), strict=True):
            lines = of_op
            if op == "kcenter_order" and column == "k":
                axis.set_axis_off()  # a coreset has no K
                continue
            if op != "kcenter_order":  # the contests start from the first one, vary one size each
                for other in {"n", "m", "k"} - {column}:
                    lines = lines.filter(lines[other] == of_op[other][0])
            for (who,), line in lines.group_by("who", maintain_order=True):
                line = line.sort(column)
                axis.loglog(line[column], line["seconds"], "o-", label=who)
            axis.set(xlabel=column.upper(), ylabel="seconds", title=op)
            axis.set_xticks(sorted(set(lines[column])))
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].legend(fontsize="x-small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    for line in race(RaceOptions(), print):
        print(line)
