"""Kernels beside what one would use instead: torch, faiss, flashlib and a plain compiled loop.

`python -m results.measured.kernels --points elpv`. Without `--points` features are random, and a
machine with torch, numpy and numba alone is enough. A kernel is held against its reference first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from harness.plan.registry import load, names
from harness.work.memory import peak_memory, settled_memory
from kernels.base import Op
from kernels.edit import mix, topk_edit, topk_edit_reference, weights
from kernels.kcenter import kcenter_order, kcenter_order_reference
from kernels.topk import topk_l2, topk_l2_reference

REPEATS, PATIENCE = 7, 20.0
"""Calls after the first, whose median counts; seconds after which there is no other call."""
CHUNK = 1 << 27
"""Entries of the distance matrix that torch holds at once."""
QUICK, SMALL = 6_000, 60_000
"""Points of a quick run, and of a coreset that a loop in torch can choose."""
POINTS = {"cpu": (SMALL, 192), "cuda": (711_000, 272)}
"""(N, D) of random features."""
SIZES = {
    "cpu": [(1568, 23_600, k) for k in (5, 1, 32)]
    + [(1568, 23_600 // part, 5) for part in (4, 16)]
    + [(196 * images, 23_600, 5) for images in (1, 4)],
    "cuda": [(12_544, 71_000, 5), (12_544, 371_000, 5)]
    + [(12_544, 71_000, k) for k in (1, 32)]
    + [(196 * images, 71_000, 5) for images in (1, 8)],
}
"""Queries, bank rows, K. The first of a CPU are 8 images of 14x14 patches and a 10 % coreset of
ELPV, those of a GPU 64 images and coresets of MVTec AD at 14x14 and at 32x32."""


class Contest(NamedTuple):
    """Ways to do the same, ours first, and what none of them can do without."""

    n: int
    m: int
    k: int
    flops: float
    moved_bytes: float
    ways: dict[str, Callable[[], Tensor]]


def main() -> None:
    """Print a line for each way: median time, theirs over ours, over the floor, memory, result."""
    ops: list[Op] = [load("kernels", name) for name in names("kernels")]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--op", choices=[op.name for op in ops], help="one kernel")
    parser.add_argument("--points", metavar="DATA", help="a data set whose features are taken")
    parser.add_argument("--quick", action="store_true", help="small sizes, seconds")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    features_ND = frozen(asked.points) if asked.points else torch.randn(POINTS[device])
    step = len(features_ND) // QUICK if asked.quick else 1
    features_ND = features_ND[:: max(1, step)].contiguous().to(device)
    flop_rate, copy_rate = ceilings(device)
    ceiling = f"{flop_rate / 1e9:.0f} GFLOP/s, {copy_rate / 1e9:.1f} GB/s"
    print(f"{asked.points or 'random'} features, {device}; ceilings here: {ceiling}")
    print(f"{'op':14} {'N':>7} {'M/picks':>7} {'K':>3} {'who':24} {'median':>12} {'ours is':>8}")
    for op in ops:
        if asked.op in (None, op.name):
            check(op)
            for contest in CONTESTS.get(op.name, against_reference)(op, features_ND, asked.quick):
                floor = max(contest.flops / flop_rate, contest.moved_bytes / copy_rate)
                for line in lines(contest, floor):
                    print(f"{op.name:14} {line}", flush=True)


def frozen(benchmark: str) -> Tensor:
    """Frozen features (N, D) of all training patches, as LafitE's `quick` preset reads them."""
    from harness.plan.options import Selection
    from harness.plan.plan import plan
    from harness.work.cache import FeatureCache
    from harness.work.features import feature_set, this_device
    from methods.parts.bank import patches
    from methods.parts.progress import quiet

    selection = Selection(benchmarks=[benchmark], methods=["lafite"], seeds=1, preset="quick")
    features = feature_set(plan(selection)[0], "train")
    assert features is not None, "lafite reads frozen features"
    rows, _ = FeatureCache.default().read(features, this_device(), quiet)
    return patches(torch.from_numpy(rows.astype(np.float32)))


def ceilings(device: str) -> tuple[float, float]:
    """FLOP/s of a square product in float32, and bytes/s of a copy, read and written."""
    size = 2048 if device == "cpu" else 8192
    a, block = torch.randn(size, size, device=device), torch.empty(1 << 26, device=device)
    product, copied = timed(lambda: a @ a)[0], timed(block.clone)[0]
    return 2.0 * size**3 / product, 2.0 * block.nbytes / copied


def check(op: Op) -> None:
    """AssertionError where a case of the kernel is not what its reference gives."""
    for name, arguments in op.cases(torch.float32):
        error = op.error(op.fast(*arguments), op.reference(*arguments), arguments)
        assert error <= op.tolerance[torch.float32], f"{op.name} is wrong on {name}: {error:.2g}"


def lines(contest: Contest, floor: float) -> Iterator[str]:
    """A line of each way; `floor` is the seconds that no exact way falls below."""
    ours, expected = 0.0, torch.empty(0)
    for who, call in contest.ways.items():
        seconds, result, peak = timed(call)
        if not ours:
            ours, expected = seconds, result
        if result.is_floating_point():
            same = f"max |Δ| {float((result - expected).abs().max()):.1g}"
        else:
            same = f"{float((result == expected).double().mean()):.4%} equal"
        yield (
            f"{contest.n:7} {contest.m:7} {contest.k or '':>3} {who:24} {seconds * 1e3:9.1f} ms "
            f"{seconds / ours:7.2f}x {seconds / floor:7.1f}x floor {peak / 1e6:6.0f} MB  {same}"
        )


def timed(call: Callable[[], Tensor]) -> tuple[float, Tensor, int]:
    """Median seconds, the result, and the bytes at the peak; the first call compiles."""
    seconds: list[float] = []
    peaks: list[int] = []
    while len(seconds) < 2 or (len(seconds) <= REPEATS and sum(seconds[1:]) < PATIENCE):
        result = None
        before, begun = settled_memory(), time.perf_counter()
        result = call()
        if result.is_cuda:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begun)
        peaks.append(peak_memory() - before)
    assert result is not None
    return statistics.median(seconds[1:]), result, max(peaks[1:])


def against_reference(op: Op, features_ND: Tensor, quick: bool) -> Iterator[Contest]:
    """An operation without rivals of its own, on the largest of its cases."""

    def size(arguments: tuple[Any, ...]) -> float:
        return float(sum(value.nbytes for value in arguments if isinstance(value, Tensor)))

    given = max((arguments for _, arguments in op.cases(torch.float32)), key=size)
    ways = {"ours": lambda: op.fast(*given), "torch reference": lambda: op.reference(*given)}
    yield Contest(len(given[0]), 0, 0, 0.0, size(given), ways)


def searches(op: Op, features_ND: Tensor, quick: bool) -> Iterator[Contest]:
    """Search, or editing, which is a search and a mixture of what it finds."""
    sizes = SIZES[features_ND.device.type]
    for n, m, k in sizes[:1] if quick else sizes:
        queries_ND = features_ND[-min(n, len(features_ND) // 4) :]
        rest = features_ND[: len(features_ND) - len(queries_ND)]
        bank_MD = rest[:: max(1, len(rest) // m)][:m].contiguous()
        yield search(op, queries_ND, bank_MD, k)


def search(op: Op, queries_ND: Tensor, bank_MD: Tensor, k: int) -> Contest:
    """One search of these sizes by everyone who is installed."""
    given = queries_ND, bank_MD, k
    finders = {"torch addmm + topk": addmm_topk}
    if find_spec("faiss"):
        finders["faiss flat"] = faiss_search(bank_MD)
    if queries_ND.is_cuda and find_spec("flashlib"):
        finders["flashlib"] = flash_knn
    ways: dict[str, Callable[[], Tensor]]
    if op.name == "topk_l2":
        ways = {"ours": lambda: topk_l2(*given)[1]}
        ways["torch reference"] = lambda: topk_l2_reference(*given)[1]
        ways |= {who: lambda find=find: find(*given)[1] for who, find in finders.items()}  # type: ignore[misc]
    else:
        ways = {"ours": lambda: topk_edit(*given)}
        ways["torch reference"] = lambda: topk_edit_reference(*given)
        for who, find in finders.items():
            ways[f"{who} + mix"] = lambda find=find: mixed(bank_MD, *find(*given))  # type: ignore[misc]
    (n, d), m = queries_ND.shape, len(bank_MD)
    edited = 0 if op.name == "topk_l2" else n * k * d
    moved = 4.0 * d * (n + m) + (12.0 * n * k if not edited else 4.0 * (n * d + edited))
    return Contest(n, m, k, 2.0 * (n * m * d + edited), moved, ways)


def addmm_topk(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search as one writes it in torch, in chunks of queries: (squared distances, indices)."""
    squares_M = bank_MD.square().sum(dim=1)
    nearest = []
    for part_CD in torch.split(queries_ND, max(1, CHUNK // len(bank_MD))):
        partial_CM = torch.addmm(squares_M, part_CD, bank_MD.T, alpha=-2)
        values_CK, indices_CK = partial_CM.topk(k, dim=1, largest=False)
        nearest.append((values_CK + part_CD.square().sum(dim=1, keepdim=True), indices_CK))
    return torch.cat([values for values, _ in nearest]), torch.cat([index for _, index in nearest])


def faiss_search(bank_MD: Tensor) -> Callable[..., tuple[Tensor, Tensor]]:
    """Exact search by faiss on the bank's device, whose flat index is built before."""
    import faiss

    index: Any = faiss.IndexFlatL2(bank_MD.shape[1])
    if bank_MD.is_cuda:
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index.add(bank_MD.cpu().numpy())

    def find(queries_ND: Tensor, _: Tensor, k: int) -> tuple[Tensor, Tensor]:
        squares, indices = index.search(queries_ND.cpu().numpy(), k)
        device = bank_MD.device
        return torch.from_numpy(squares).to(device), torch.from_numpy(indices).to(device)

    return find


def flash_knn(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search by flashlib, on a GPU."""
    import flashlib

    squares_NK, indices_NK = flashlib.flash_knn(queries_ND, bank_MD, k)
    return squares_NK, indices_NK.long()


def mixed(bank_MD: Tensor, squares_NK: Tensor, indices_NK: Tensor) -> Tensor:
    """The edited features of neighbours that a search found."""
    return mix(bank_MD, indices_NK, weights(squares_NK.clamp(0).sqrt(), "softmax", 1.0))


def coresets(op: Op, features_ND: Tensor, quick: bool) -> Iterator[Contest]:
    """A coreset of 1 % of some points, then one of all of them, which the loop in torch is left
    out of on a CPU."""
    some = features_ND[torch.randperm(len(features_ND))[:SMALL].to(features_ND.device)]
    yield coreset(some, len(some) // 100, in_torch=True)
    if not quick and len(features_ND) > SMALL:
        share = 100 if features_ND.is_cuda else 10
        yield coreset(features_ND, len(features_ND) // share, in_torch=features_ND.is_cuda)


def coreset(points_ND: Tensor, count: int, *, in_torch: bool) -> Contest:
    """One choice of so many points; its floor is one look at each of them."""
    ways: dict[str, Callable[[], Tensor]] = {"ours": lambda: kcenter_order(points_ND, count)}
    if not points_ND.is_cuda:
        ways["naive compiled loop"] = lambda: torch.from_numpy(naive(points_ND.numpy(), count))
    if in_torch:
        ways["torch loop (reference)"] = lambda: kcenter_order_reference(points_ND, count)
    n, d = points_ND.shape
    return Contest(n, count, 0, 2.0 * n * d, 4.0 * n * d, ways)


@numba.njit(parallel=True, fastmath=True)  # type: ignore[untyped-decorator]
def naive(points: Any, count: int) -> Any:
    """Greedy k-center as anyone would compile it: one pass over all points per pick."""
    nearest = np.full(len(points), np.float32(3e38))
    order = np.zeros(count, dtype=np.int64)
    for i in range(count):
        pick = order[i]
        for x in numba.prange(len(points)):
            total = np.float32(0)
            for d in range(points.shape[1]):
                total += (points[x, d] - points[pick, d]) * (points[x, d] - points[pick, d])
            nearest[x] = min(nearest[x], total)
        nearest[pick] = -1
        if i + 1 < count:
            order[i + 1] = np.argmax(nearest)
    return order


CONTESTS = {"topk_l2": searches, "topk_edit": searches, "kcenter_order": coresets}

if __name__ == "__main__":
    torch.manual_seed(0)
    main()
