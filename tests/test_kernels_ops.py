"""Every Op on awkward cases: the path of this machine and the Triton path against the reference."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from kernels import _kcenter_cpu, _numba, _topk_gpu, _triton
from kernels.base import Op
from kernels.edit import topk_edit
from kernels.kcenter import (
    covering_radius,
    kcenter_order,
    kcenter_order_gpu,
    kcenter_order_reference,
    kcenter_order_sharded,
)
from kernels.topk import topk_l2, topk_l2_gpu, topk_l2_reference

FOLDER = Path(__file__).parents[1] / "kernels"
NAMES = sorted(f.stem for f in FOLDER.glob("[!_]*.py") if f.stem != "base")
OPS: list[Op] = [importlib.import_module(f"kernels.{name}").OP for name in NAMES]
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CASES = [
    pytest.param(op, dtype, arguments, id=f"{op.name}-{dtype}-{name}".replace("torch.", ""))
    for op in OPS
    for dtype in DTYPES
    for name, arguments in op.cases(dtype)
]
INTERPRETED = [
    case
    if torch.cuda.is_available() or case.values[1] is torch.float32
    else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
    for case in CASES
]
"""Triton's interpreter takes its time: of its cases those in float32 are enough for each change."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def nan_filled() -> Any:
    """Memory that torch hands out holds NaN, so an output that is never written is seen."""
    before = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = before
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("op", "dtype", "arguments"), CASES)
@pytest.mark.usefixtures("nan_filled")
def test_this_machine(op: Op, dtype: torch.dtype, arguments: tuple[Any, ...]) -> None:
    error = op.error(op.fast(*arguments), op.reference(*arguments), arguments)
    assert error <= op.tolerance[dtype]


@pytest.mark.parametrize(("op", "dtype", "arguments"), INTERPRETED)
@pytest.mark.usefixtures("nan_filled")
def test_triton(
    op: Op, dtype: torch.dtype, arguments: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few queries, too, are searched in several parts.
    monkeypatch.setattr(_topk_gpu, "BLOCK_N", 32)
    monkeypatch.setattr(_topk_gpu, "MINIMA", 1)
    if not _triton.usable(torch.empty(0)) and not torch.cuda.is_available():
        pytest.skip("neither a GPU nor TRITON_INTERPRET=1 set before the import")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    moved = tuple(a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments)
    error = op.error(op.gpu(*moved), op.reference(*moved), moved)
    assert error <= op.tolerance[dtype]


def test_the_gpu_path_knows_which_queries_lie_in_a_crowd() -> None:
    if not _triton.usable(torch.empty(0)) and not torch.cuda.is_available():
        pytest.skip("neither a GPU nor TRITON_INTERPRET=1 set before the import")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator().manual_seed(4)
    alone_MD, crowd_MD = torch.randn(6, 9, generator=draw), torch.randn(700, 9, generator=draw)
    bank_MD = torch.cat([alone_MD * 9, crowd_MD * 1e-4]).to(device)
    queries_ND = torch.cat([alone_MD * 9 + 0.1, crowd_MD[:4] * 1e-4]).to(device)
    largest = float(bank_MD.abs().max()) + 0.1
    *_, sure_N = _topk_gpu.search_gpu(queries_ND, bank_MD, 1, largest)
    assert sure_N.tolist() == [True] * 6 + [False] * 4
    got, truth = topk_l2_gpu(queries_ND, bank_MD, 1), topk_l2_reference(queries_ND, bank_MD, 1)
    assert torch.equal(got[1], truth[1])


@pytest.mark.parametrize("kind", ["normal", "clusters", "grid"])
def test_picks_in_waves_are_the_plain_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kcenter_cpu, "WAVE", 50)  # many waves on few points
    monkeypatch.setattr(_kcenter_cpu, "PENDING", 70)
    draw = torch.Generator().manual_seed(5)
    points_ND = torch.randn(4000, 24, generator=draw)
    if kind == "clusters":
        points_ND = points_ND * 0.05 + points_ND[:40].repeat(100, 1)
    if kind == "grid":
        points_ND = points_ND[:, :2].round()
    order = kcenter_order(points_ND, 400, start=17)
    plain = kcenter_order_reference(points_ND, 400, start=17)
    assert order[0] == 17
    assert len(order.unique()) == 400
    if kind != "grid":
        assert torch.equal(order, plain)
    radius, expected = covering_radius(points_ND, order), covering_radius(points_ND, plain)
    assert radius == pytest.approx(expected, rel=1e-5)


def official_order(points_ND: Any, apart_N: Any, count: int) -> list[int]:
    """The loop of the official PatchCore, on distances that no point may exceed."""
    points, nearest, order = points_ND.double(), apart_N.double(), []
    for _ in range(count):
        order.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (points - points[order[-1]]).norm(dim=1))
    return order


def test_picks_can_start_from_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kcenter_cpu, "WAVE", 50)
    points_ND = torch.randn(600, 24, generator=torch.Generator().manual_seed(5))
    apart_N = torch.cdist(points_ND, points_ND[:10]).mean(dim=1) * 0.8
    wanted = official_order(points_ND, apart_N, 80)
    assert wanted != official_order(points_ND, apart_N * 9, 80)  # the distances bind
    for order in (kcenter_order, kcenter_order_reference):
        assert order(points_ND, 80, apart_N).tolist() == wanted
    few = kcenter_order_gpu(points_ND[:99], 8, apart_N[:99])
    assert few.tolist() == official_order(points_ND[:99], apart_N[:99], 8)
    for bad in (apart_N[1:], -apart_N, apart_N * float("nan")):
        with pytest.raises(ValueError, match="start"):
            kcenter_order(points_ND, 2, bad)


def test_picks_are_prefix_stable_and_reported() -> None:
    points_ND = torch.randn(900, 16, generator=torch.Generator().manual_seed(2))
    seen: list[tuple[int, int]] = []
    long = kcenter_order(points_ND, 600, on_progress=lambda done, count: seen.append((done, count)))
    assert torch.equal(kcenter_order(points_ND, 77), long[:77])
    assert seen[-1] == (600, 600)


@pytest.mark.parametrize("thread_count", [1, 2])
def test_picks_do_not_depend_on_threads(thread_count: int) -> None:
    torch.set_num_threads(thread_count)
    points_ND = torch.randn(700, 16, generator=torch.Generator().manual_seed(4))
    assert torch.equal(kcenter_order(points_ND, 60), kcenter_order_reference(points_ND, 60))


def _shard(rank: int, world: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous{world}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=world)
    points_ND = torch.from_numpy(np.load(f"{folder}/points.npy"))
    cuts = np.linspace(0, len(points_ND), world + 1).astype(int)
    order = kcenter_order_sharded(points_ND[cuts[rank] : cuts[rank + 1]], 90, start=200)
    np.save(f"{folder}/order{world}-{rank}.npy", order.numpy())
    apart_N = points_ND.norm(dim=1)[cuts[rank] : cuts[rank + 1]]
    order = kcenter_order_sharded(points_ND[cuts[rank] : cuts[rank + 1]], 90, apart_N)
    np.save(f"{folder}/from{world}-{rank}.npy", order.numpy())
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, pytest.param(4, marks=pytest.mark.slow)])
def test_sharded_picks_are_the_same(world: int, tmp_path: Path) -> None:
    points_ND = torch.randn(301, 9, generator=torch.Generator().manual_seed(6))
    points_ND[250:] = points_ND[:51]
    np.save(tmp_path / "points.npy", points_ND.numpy())
    mp.spawn(_shard, args=(world, str(tmp_path)), nprocs=world)
    expected = kcenter_order(points_ND, 90, start=200)
    for rank in range(world):
        assert np.load(tmp_path / f"order{world}-{rank}.npy").tolist() == expected.tolist()
    expected = kcenter_order(points_ND, 90, points_ND.norm(dim=1))
    for rank in range(world):
        assert np.load(tmp_path / f"from{world}-{rank}.npy").tolist() == expected.tolist()


def _bad() -> list[Any]:
    x = torch.ones(4, 3)
    bad = torch.full((2, 3), float("nan"))
    return [
        pytest.param(x, x, 0, "k must be from 1 to 4", id="k-0"),
        pytest.param(x, x, 5, "k must be from 1 to 4", id="k-beyond"),
        pytest.param(x, torch.ones(4, 2), 1, "differ in D: queries_ND 4x3, bank_MD 4x2", id="D"),
        pytest.param(x, torch.ones(0, 3), 1, "bank_MD is empty", id="empty"),
        pytest.param(bad, x, 1, "queries_ND 2x3 holds NaN or Inf", id="nan"),
        pytest.param(x, bad / 0, 1, "bank_MD 2x3 holds NaN or Inf", id="inf"),
        pytest.param(x, x.to("meta"), 1, "meta", id="device"),
        pytest.param(x[0], x, 1, "queries_ND must be a 2-D", id="1-D"),
    ]


@pytest.mark.parametrize(("queries_ND", "bank_MD", "k", "message"), _bad())
@pytest.mark.parametrize("search", [topk_l2, topk_edit])
def test_bad_search(search: Any, queries_ND: Any, bank_MD: Any, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        search(queries_ND, bank_MD, k)


def test_bad_weighting_and_coreset() -> None:
    x = torch.ones(4, 3)
    for arguments, message in (((5, 0), "count must be"), ((0, 0), "count"), ((2, 4), "start")):
        with pytest.raises(ValueError, match=message):
            kcenter_order(x, *arguments)
    with pytest.raises(ValueError, match="points_ND 4x3 holds NaN"):
        kcenter_order(x * float("nan"), 2)
    with pytest.raises(ValueError, match="weighting must be one of"):
        topk_edit(x, x, 1, "nearest")
    with pytest.raises(ValueError, match="temperature"):
        topk_edit(x, x, 1, temperature=0.0)


def test_a_large_finite_sum_is_no_infinity() -> None:
    assert topk_l2(torch.full((20, 3), 3e38), torch.full((1, 3), 3e38), 1)[0].max() == 0


@pytest.fixture(params=["int16", "float32"])
def codes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The type of the codes that a CPU's screen multiplies, one after the other."""
    if request.param == "int16" and not _numba.avx2():
        pytest.skip("this CPU has no AVX2")
    monkeypatch.setattr(_numba, "avx2", lambda: request.param == "int16")
    return str(request.param)


@pytest.mark.parametrize("kind", ["correlated", "random", "offset", "tiny", "huge", "one-row-far"])
@pytest.mark.usefixtures("codes")
def test_the_screen_drops_no_neighbour(kind: str) -> None:
    """Whatever the scale and the directions."""
    draw = torch.Generator().manual_seed(8)
    x = torch.randn(2500, 130, generator=draw)
    if kind == "correlated":
        x = torch.randn(2500, 20, generator=draw) @ torch.randn(20, 130, generator=draw) + x / 9
    scale, offset = {"tiny": (1e-12, 0.0), "huge": (1e12, 0.0), "offset": (1e-2, 50.0)}.get(
        kind, (1.0, 0.0)
    )
    x = x * scale + offset
    if kind == "one-row-far":
        x[77] = 1e5
    queries_ND, bank_MD = x[:300], x[300:]
    distances_NK, indices_NK = topk_l2(queries_ND, bank_MD, 7)
    exact_NM = torch.cdist(queries_ND.double(), bank_MD.double())
    nearest_NK = exact_NM.topk(7, largest=False).values
    assert torch.allclose(distances_NK.double(), nearest_NK, rtol=1e-5)
    # Where distances tie in float32 the indices may differ, what they measure may not.
    assert torch.allclose(exact_NM.gather(1, indices_NK), nearest_NK, rtol=1e-5)
    assert torch.equal(kcenter_order(bank_MD, 200), kcenter_order_reference(bank_MD, 200))


@pytest.mark.parametrize("n", [16, 19])
@pytest.mark.parametrize("m", [1, 15, 17, 64, 65, 403])
@pytest.mark.parametrize("d", [1, 2, 79, 80, 131])
@pytest.mark.usefixtures("codes", "nan_filled")
def test_the_screen_takes_any_shape(n: int, m: int, d: int) -> None:
    draw = torch.Generator().manual_seed(n * m * d)
    scale_D = 0.9 ** torch.arange(d)  # so that few directions hold most of the energy
    queries_ND, bank_MD = (torch.randn(rows, d, generator=draw) * scale_D for rows in (n, m))
    k = min(m, 3)
    got, truth = topk_l2(queries_ND, bank_MD, k), topk_l2_reference(queries_ND, bank_MD, k)
    assert torch.allclose(got[0], truth[0], rtol=1e-5, atol=1e-6)
    assert torch.equal(got[1], truth[1])


@pytest.mark.usefixtures("codes")
def test_ties_all_over_a_bank_go_to_the_lower_index() -> None:
    bank_MD = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).repeat(500, 1)
    for search in (topk_l2, topk_l2_reference):
        distances_NK, indices_NK = search(bank_MD[:21], bank_MD, 4)
        assert indices_NK.tolist() == [[i % 3 + 3 * j for j in range(4)] for i in range(21)]
        assert distances_NK.max() == 0
    same_MD = torch.full((900, 5), 0.3)  # every centred row is 0
    assert topk_l2(same_MD[:21], same_MD, 4)[1].tolist() == [[0, 1, 2, 3]] * 21


@pytest.mark.usefixtures("codes")
def test_a_code_rounded_against_its_row_drops_no_neighbour() -> None:
    """The int16 codes of 11 equal coordinates are rounded down by 0.5: products are too small."""
    lengths_M = torch.linspace(2, 3, 400)
    lengths_M[:20] = 1.005
    lengths_M[300] = 1.0
    bank_MD = torch.cat([lengths_M, -lengths_M])[:, None].expand(-1, 11).contiguous()
    distances_NK, indices_NK = topk_l2(torch.ones(16, 11), bank_MD, 1)
    assert indices_NK.flatten().tolist() == [300] * 16
    assert distances_NK.max() == 0


def test_a_bank_that_changes_is_prepared_again() -> None:
    draw = torch.Generator().manual_seed(9)
    queries_ND, bank_MD = (torch.randn(n, 20, generator=draw) for n in (40, 300))
    first = topk_l2(queries_ND, bank_MD, 1)[1]
    bank_MD.mul_(-1)
    assert not torch.equal(topk_l2(queries_ND, bank_MD, 1)[1], first)
    assert torch.equal(
        topk_l2(queries_ND, bank_MD, 1)[1], topk_l2_reference(queries_ND, bank_MD, 1)[1]
    )


def test_reference_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "LAFITE_KERNELS", "reference")
    monkeypatch.setattr("kernels.topk.search", None)  # would fail if it were called
    monkeypatch.setattr("kernels.kcenter.order_cpu", None)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert topk_l2(x, x, 1)[1].flatten().tolist() == list(range(40))
    assert len(kcenter_order(x, 3)) == 3
    assert not _triton.usable(x)


def test_torch_keeps_its_threads() -> None:
    """Numba's pool starts once a process, and that would change it: this one is its own."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from kernels.kcenter import kcenter_order\n"
        "from kernels.topk import topk_l2\n"
        "x = torch.randn(3000, 64)\n"
        "kcenter_order(x, 50); topk_l2(x[:500], x, 3)\n"
        "assert torch.get_num_threads() == 1, torch.get_num_threads()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_avx2_is_used_only_where_torch_and_numba_may(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba", reason="numba is not installed")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(numba.config, "CPU_NAME", None)
    assert _numba.avx2()
    monkeypatch.setattr(numba.config, "CPU_NAME", "generic")
    assert not _numba.avx2()
    monkeypatch.setattr(numba.config, "CPU_NAME", "haswell")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert not _numba.avx2()
