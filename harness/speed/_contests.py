"""What the race of the kernels times: each operation beside what one would pick instead of it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.speed import _anomalib, _faiss
from kernels import _numba
from kernels._numba import njit, prange
from kernels.base import Op
from kernels.edit import mix, topk_edit, topk_edit_reference, weights
from kernels.kcenter import kcenter_order, kcenter_order_reference
from kernels.topk import topk_l2, topk_l2_reference

# Queries, bank rows, K. The first of a CPU are 8 images of 14x14 patches and a 10 % coreset of
# ELPV, those of a GPU 64 images and coresets of MVTec AD at 14x14 and at 32x32.
SIZES = {
    "cpu": (
        (1568, 23_600, 5),
        *((1568, 23_600, k) for k in (1, 32)),
        *((1568, 23_600 // part, 5) for part in (4, 16)),
        *((196 * images, 23_600, 5) for images in (1, 4)),
    ),
    "cuda": (
        (12_544, 71_000, 5),
        (12_544, 371_000, 5),
        *((12_544, 71_000, k) for k in (1, 32)),
        *((196 * images, 71_000, 5) for images in (1, 8)),
    ),
}
SMALL = 60_000
POINTS = {"cpu": (SMALL, 192), "cuda": (711_000, 272)}
"""Random features where none are given: (N, D)."""
FLASHLIB = find_spec("flashlib") is not None
CHUNK = 1 << 27  # entries of the distance matrix that torch holds at once


@dataclass(frozen=True)
class Contest:
    """What is timed side by side: the first entry is ours."""

    op: str
    n: int
    m: int
    k: int
    flops: float
    moved_bytes: float
    entries: tuple[tuple[str, Callable[[], Any]], ...]


def contests(op: Op, features_ND: Tensor, quick: bool) -> Iterator[Contest]:
    """What is timed for one operation: its real sizes first, then N, M and K varied."""
    if op.name == "kcenter_order":
        yield from _coresets(features_ND, quick)
    elif op.name in SEARCHES:
        sizes = SIZES[features_ND.device.type]
        for n, m, k in sizes[:1] if quick else sizes:
            queries_ND = features_ND[-min(n, len(features_ND) // 4) :]
            rest = features_ND[: len(features_ND) - len(queries_ND)]
            bank_MD = rest[:: max(1, len(rest) // m)][:m].contiguous()
            yield SEARCHES[op.name](queries_ND, bank_MD, k)
    else:
        yield _against_reference(op)


def _against_reference(op: Op) -> Contest:
    """An operation without rivals of its own, on the largest of its cases."""

    def size(arguments: tuple[Any, ...]) -> float:
        return float(sum(value.nbytes for value in arguments if isinstance(value, Tensor)))

    arguments = max((arguments for _, arguments in op.cases(torch.float32)), key=size)
    return Contest(
        op.name,
        n=len(arguments[0]),
        m=0,
        k=0,
        flops=0.0,
        moved_bytes=size(arguments),
        entries=(
            ("ours", lambda: op.fast(*arguments)),
            ("torch reference", lambda: op.reference(*arguments)),
        ),
    )


def _search(queries_ND: Tensor, bank_MD: Tensor, k: int) -> Contest:
    entries: list[tuple[str, Callable[[], Any]]] = [
        ("ours", lambda: topk_l2(queries_ND, bank_MD, k)[1]),
        ("torch reference", lambda: topk_l2_reference(queries_ND, bank_MD, k)[1]),
        ("torch addmm + topk", lambda: addmm_topk(queries_ND, bank_MD, k)[1]),
    ]
    if _faiss.AVAILABLE:
        index = _faiss.flat_index(bank_MD)
        entries.append(("faiss flat", lambda: _faiss.search(index, queries_ND, k)[1]))
    if queries_ND.is_cuda and FLASHLIB:
        entries.append(("flashlib", lambda: flash_knn(queries_ND, bank_MD, k)[1]))
    (n, d), m = queries_ND.shape, len(bank_MD)
    moved = 4.0 * d * (n + m) + 12.0 * n * k
    return Contest("topk_l2", n, m, k, 2.0 * n * m * d, moved, tuple(entries))


def _edit(queries_ND: Tensor, bank_MD: Tensor, k: int) -> Contest:
    def mixed(squares_NK: Tensor, indices_NK: Tensor) -> Tensor:
        distances_NK = squares_NK.to(bank_MD.device).clamp(0).sqrt()
        weights_NK = weights(distances_NK, "softmax", 1.0)
        return mix(bank_MD, indices_NK.to(bank_MD.device), weights_NK)

    entries: list[tuple[str, Callable[[], Any]]] = [
        ("ours", lambda: topk_edit(queries_ND, bank_MD, k)),
        ("torch reference", lambda: topk_edit_reference(queries_ND, bank_MD, k)),
        ("torch addmm + topk + mix", lambda: mixed(*addmm_topk(queries_ND, bank_MD, k))),
    ]
    if _faiss.AVAILABLE:
        index = _faiss.flat_index(bank_MD)
        entries.append(
            ("faiss + gather + mix", lambda: mixed(*_faiss.search(index, queries_ND, k)))
        )
    if queries_ND.is_cuda and FLASHLIB:
        entries.append(
            ("flashlib + gather + mix", lambda: mixed(*flash_knn(queries_ND, bank_MD, k)))
        )
    (n, d), m = queries_ND.shape, len(bank_MD)
    flops = 2.0 * n * m * d + 2.0 * n * k * d
    moved = 4.0 * d * (2 * n + m + n * k)
    return Contest("topk_edit", n, m, k, flops, moved, tuple(entries))


def addmm_topk(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search as one writes it in torch, in chunks of queries: (squared distances, indices)."""
    squares_M = bank_MD.square().sum(dim=1)
    nearest = []
    for part_CD in torch.split(queries_ND, max(1, CHUNK // len(bank_MD))):
        partial_CM = torch.addmm(squares_M, part_CD, bank_MD.T, alpha=-2)
        values_CK, indices_CK = partial_CM.topk(k, dim=1, largest=False)
        nearest.append((values_CK + part_CD.square().sum(dim=1, keepdim=True), indices_CK))
    return torch.cat([values for values, _ in nearest]), torch.cat([index for _, index in nearest])


def flash_knn(queries_ND: Tensor, bank_MD: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Search by flashlib, on a GPU: (squared distances, indices)."""
    import flashlib

    squares_NK, indices_NK = flashlib.flash_knn(queries_ND, bank_MD, k)
    return squares_NK, indices_NK.long()


SEARCHES = {"topk_l2": _search, "topk_edit": _edit}


def _coresets(features_ND: Tensor, quick: bool) -> Iterator[Contest]:
    draw = torch.Generator().manual_seed(0)
    some = torch.randperm(len(features_ND), generator=draw)[:SMALL].to(features_ND.device)
    yield _coreset(features_ND[some], len(some) // 100, everyone=True)
    if not quick and len(features_ND) > SMALL:
        share = 100 if features_ND.is_cuda else 10
        yield _coreset(features_ND, len(features_ND) // share, everyone=False)


def _coreset(points_ND: Tensor, count: int, everyone: bool) -> Contest:
    entries: list[tuple[str, Callable[[], Any]]] = [
        ("ours", lambda: kcenter_order(points_ND, count))
    ]
    if _numba.AVAILABLE and not points_ND.is_cuda:
        entries.append(("naive compiled loop", lambda: naive_order(points_ND, count)))
    if everyone or points_ND.is_cuda:
        entries.append(
            ("torch loop (reference)", lambda: kcenter_order_reference(points_ND, count))
        )
    if everyone and _anomalib.python():
        entries.append(("anomalib", lambda: anomalib_seconds(points_ND, count)))
    n, d = points_ND.shape
    # The floor of an exact selection is one look at every point; the plain one looks count times.
    return Contest("kcenter_order", n, count, 0, 2.0 * n * d, 4.0 * n * d, tuple(entries))


def naive_order(points_ND: Tensor, count: int) -> Tensor:
    """Greedy k-center as anyone would compile it: one pass over all points per pick."""
    points = points_ND.numpy()
    nearest = np.full(len(points), np.float32(3e38))
    order = np.zeros(count, dtype=np.int64)
    with _numba.threads():
        _naive(points, nearest, order)
    return torch.from_numpy(order)


@njit(parallel=True, fastmath=True)
def _naive(points: Any, nearest: Any, order: Any) -> None:
    for i in range(len(order)):
        pick = order[i]
        for x in prange(len(points)):
            total = np.float32(0)
            for d in range(points.shape[1]):
                total += (points[x, d] - points[pick, d]) * (points[x, d] - points[pick, d])
            nearest[x] = min(nearest[x], total)
        nearest[pick] = -1
        if i + 1 < len(order):
            order[i + 1] = np.argmax(nearest)


ANOMALIB = """
import sys, time, numpy, torch
from anomalib.models.components.sampling import KCenterGreedy
torch.set_num_threads(int(sys.argv[3]))
points = torch.from_numpy(numpy.load(sys.argv[1]))
begun = time.perf_counter()
KCenterGreedy(points, sampling_ratio=float(sys.argv[2])).select_coreset_idxs()
print(time.perf_counter() - begun)
"""


def anomalib_seconds(points_ND: Tensor, count: int) -> float:
    """What anomalib's own choice takes, without its start."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        np.save(path, points_ND.cpu().numpy())
        arguments = [str(path), str(count / len(points_ND)), str(torch.get_num_threads())]
        return float(_anomalib.printed("-c", ANOMALIB, *arguments)[-1])
