"""`lafite-bench status`: the file that is kept while a command works, and what is said of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.commands.status import command
from harness.plan.registry import UsageError
from harness.screen.eta import Clock
from harness.screen.running import running
from methods.base import Progress


def test_what_runs_is_kept_while_it_runs_and_no_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.screen.running.EVERY", 0.0)
    told: list[int] = []
    labels = ["shapes lafite seed 0", "shapes lafite seed 1"]
    clock = Clock([{("fit", ""): 60.0}] * 2)

    def show(number: int, news: Progress | None) -> None:
        told.append(number)
        clock.heard(number, news)

    with running(tmp_path, "cells", labels, show, clock) as keep:
        keep(0, Progress(stage="train", step=3, steps=8, loss=0.25, where="10.0.0.7"))
        keep(1, Progress(stage="train", step=1, steps=8))
        keep(1, None)
        command(tmp_path)
    assert told == [0, 1, 1], "the bars hear all"
    head, first, *others = capsys.readouterr().out.splitlines()
    assert head == "0 cells done, 0 failed attempts" and "cells: 1 of 2 in 0:00, about " in first
    assert others == [f"  {labels[0]}: train 3 of 8, loss 0.2500 on 10.0.0.7, for 0:00"]
    command(tmp_path)
    assert "nothing runs" in capsys.readouterr().out


def test_a_command_that_is_silent_may_be_gone_and_half_a_file_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    content = {"done": "cells: 1 of 3", "left": 0, "since": now - 900, "heard": now - 600}
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "host-1.json").write_text(json.dumps(content | {"work": []}))
    (tmp_path / "running" / "host-2.json").write_text('{"title"')
    command(tmp_path)
    printed = capsys.readouterr().out
    assert "host-1, cells: 1 of 3 in 5:00" in printed and "is it still there?" in printed
    assert "host-2" not in printed
    with pytest.raises(UsageError, match="no such folder of results"):
        command(tmp_path / "absent")
