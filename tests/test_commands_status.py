"""`lafite-bench status`: the file that is kept while a command works, and what is said of it."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from rich.console import Console

from harness.commands.status import command
from harness.plan.registry import UsageError
from harness.screen.eta import Clock
from harness.screen.progress import Tasks
from harness.screen.running import watched
from methods.parts.progress import Progress


def test_what_runs_is_kept_while_it_runs_and_no_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.screen.running.EVERY", 0.0)
    labels = ["shapes lafite seed 0", "shapes lafite seed 1"]
    tasks = Tasks("cells", labels, Clock([{("fit", ""): 60.0}] * 2))
    with watched(tasks, Console(file=io.StringIO()), tmp_path) as show:
        show(0, Progress(stage="train", step=3, steps=8, loss=0.25, where="10.0.0.7"))
        show(1, Progress(stage="train", step=1, steps=8))
        show(1, None)
        command(tmp_path)
    head, first, *others = capsys.readouterr().out.splitlines()
    assert head == "0 cells done, 0 failed attempts"
    assert re.search("cells: 1 of 2 done, about .* left, after 0:00", first)
    assert others == [f"  {labels[0]}: train 3 of 8, loss 0.2500 on 10.0.0.7"]
    command(tmp_path)
    assert "nothing runs" in capsys.readouterr().out


def test_a_command_that_is_silent_may_be_gone_and_half_a_file_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = {"heard": time.time() - 600, "lines": ["cells: 1 of 3 done, after 5:00"]}
    (tmp_path / "running").mkdir()
    (tmp_path / "running" / "host-1.json").write_text(json.dumps(told))
    (tmp_path / "running" / "host-2.json").write_text('{"title"')
    command(tmp_path)
    printed = capsys.readouterr().out
    assert "host-1, cells: 1 of 3 done, after 5:00; silent for 10:00: is it still" in printed
    assert "host-2" not in printed
    with pytest.raises(UsageError, match="no such folder of results"):
        command(tmp_path / "absent")
