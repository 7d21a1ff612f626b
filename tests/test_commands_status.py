"""`lafite-bench status`: the file that is kept while a command works, and what is said of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from harness.commands._eta import Clock
from harness.commands._running import FOLDER, running, what_runs
from harness.commands.status import command
from harness.registry import UsageError
from methods.base import Progress


def test_what_runs_is_kept_while_it_runs_and_no_longer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.commands._running.EVERY", 0.0)
    told: list[tuple[int, Progress | None]] = []
    labels = ["shapes lafite seed 0", "shapes lafite seed 1"]
    clock = Clock([{("fit", ""): 60.0}] * 2)
    with running(tmp_path, "cells", labels, lambda *news: told.append(news), clock) as show:
        show(0, Progress(stage="train", step=3, steps=8, loss=0.25, where="10.0.0.7"))
        show(1, Progress(stage="train", step=1, steps=8))
        show(1, None)
        [one] = what_runs(tmp_path)
        assert (one["title"], one["done"], one["total"]) == ("cells", 1, 2)
        assert one["left"] >= 0, "by the clock of the bars"
        [item] = one["work"]
        assert (item["label"], item["where"], item["loss"]) == (labels[0], "10.0.0.7", 0.25)
        command(tmp_path)
    assert [number for number, _ in told] == [0, 1, 1], "the bars hear all"
    printed = capsys.readouterr().out
    assert "0 cells done, 0 failed attempts" in printed and "cells: 1 of 2 in" in printed
    assert "3 of 8" in printed and "0.2500" in printed and "10.0.0.7" in printed
    assert what_runs(tmp_path) == []
    command(tmp_path)
    assert "nothing runs" in capsys.readouterr().out


def test_a_command_that_is_silent_may_be_gone_and_half_a_file_is_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = time.time()
    content = {"title": "cells", "total": 3, "done": 1, "since": now - 900, "heard": now - 600}
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "host-1.json").write_text(json.dumps(content | {"work": []}))
    (tmp_path / FOLDER / "host-2.json").write_text('{"title"')
    command(tmp_path)
    printed = capsys.readouterr().out
    assert "host-1, cells: 1 of 3 in 5 min" in printed and "is it still there?" in printed
    assert "host-2" not in printed
    with pytest.raises(UsageError, match="no such folder of results"):
        command(tmp_path / "absent")
