"""`lafite-bench speed`: checked first, then timed; bad input is one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from harness import registry
from harness.commands.speed import command
from harness.options import RaceOptions
from harness.registry import UsageError
from harness.speed import kernels, metrics
from kernels import _topk_cpu
from kernels.edit import OP
from methods.base import BankSearch
from methods.parts.bank import MemoryBank


def test_the_table_compares_ours_with_the_others(tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(400, 12)))
    said: list[str] = []
    options = RaceOptions(
        op="topk_l2", points=str(tmp_path / "points.npy"), out=tmp_path, quick=True
    )
    table = "\n".join(kernels.race(options, said.append))
    rows = pl.read_parquet(tmp_path / "speed.parquet")
    assert rows.get_column("who").to_list()[:3] == ["ours", "torch reference", "torch addmm + topk"]
    assert (
        rows.filter(pl.col("who") == "torch reference").get_column("same")[0] == "100.0000% equal"
    )
    assert (rows.get_column("seconds") > 0).all()
    assert (rows.get_column("floor_seconds") > 0).all()
    assert "points; ceilings here" in table
    assert any("timing topk_l2" in line for line in said)
    assert (tmp_path / "speed.png").stat().st_size > 0


def test_a_wrong_operation_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(queries_ND: torch.Tensor, *_: Any) -> torch.Tensor:
        return queries_ND.float() + 1

    broken = replace(OP, fast=wrong)
    load = registry.load
    monkeypatch.setattr(
        registry, "load", lambda kind, name: broken if name == "edit" else load(kind, name)
    )
    options = RaceOptions(op="topk_edit", out=tmp_path, quick=True)
    table = "\n".join(kernels.race(options, print))
    assert "topk_edit: wrong on" in table
    assert "ours" not in table
    assert not (tmp_path / "speed.parquet").exists()


@pytest.mark.parametrize(
    ("op", "points", "message"),
    [
        ("topk", None, "did you mean 'topk_l2'"),
        ("kernels", "absent.npy", "no array of features there"),
        ("kernels", "flat.npy", "2-D array of floats"),
        ("kernels", "elp", "unknown data set 'elp'"),
        ("tuning", None, "name a data set"),
    ],
)
def test_bad_input(
    op: str, points: str | None, message: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("flat.npy", np.zeros(3))
    with pytest.raises(UsageError, match=message):
        command(RaceOptions(op=op, points=points, out=tmp_path, quick=True))


def test_peak_memory_counts_what_a_call_needed() -> None:
    _, _, peak = kernels._median(lambda: torch.ones(20_000_000).sum())
    assert peak == pytest.approx(80, abs=12)


def test_a_bank_is_prepared_once_for_all_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba", reason="numba is not installed")
    bank = MemoryBank()
    bank.rows_MD, bank.source = torch.randn(500, 8), torch.tensor(1000)
    made: list[int] = []
    screen_of = _topk_cpu.screen_of
    monkeypatch.setattr(
        _topk_cpu, "screen_of", lambda rows: (made.append(len(rows)), screen_of(rows))[1]
    )
    with torch.inference_mode():
        for _ in range(3):
            bank.search(torch.randn(2, 8, 4, 4), BankSearch(0.2, k=1))
    assert made == [200]


def test_metrics_stand_beside_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAFITE_BENCH_ANOMALIB", raising=False)
    head, ours, auroc, precision, large = metrics.race(RaceOptions(quick=True), print)
    assert head.startswith("metrics: 8 maps of 48 x 48")
    assert "ours: AUROC" in ours
    for line in (auroc, precision):
        assert float(line.split("|Δ|")[1]) < 1e-9
    assert large.startswith("ours, 0 million pixels from files")


def test_anomalib_that_cannot_run_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAFITE_BENCH_ANOMALIB", "/bin/false")
    with pytest.raises(ValueError, match="LAFITE_BENCH_ANOMALIB=/bin/false: "):
        list(metrics.race(RaceOptions(quick=True), print))
