"""How long is left, by a clock that is set; bars of one line, and a line a minute in a log."""

from __future__ import annotations

import io
import re
import time as real_time
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

import pytest
from rich.console import Console

from harness.screen import progress
from harness.screen.eta import Clock, Kind
from harness.screen.progress import Tasks, bars, counter, lasting
from harness.work.task import Show
from methods.parts.progress import Progress


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(stage: str, step: int, steps: int = 10) -> Progress:
    return Progress(stage=stage, step=step, steps=steps)


def cell(method: str, fit: float, score: float) -> dict[Kind, float]:
    return {("fit", method): fit, ("score", method): score}


def features(seconds: float) -> dict[Kind, float]:
    return {("features", ""): seconds}


def test_the_first_estimate_is_that_of_all_work_and_two_at_a_time_take_half() -> None:
    time = Time()
    clock = Clock([features(20), cell("a", 20, 10), cell("a", 20, 10)], now=time)
    assert clock.left() == 80, "features and scoring count"
    clock.heard(0, step("start", 0))
    clock.heard(1, step("start", 0))
    assert clock.left() == 40
    time.now = 10
    assert clock.left() == pytest.approx(30)


def test_a_long_scoring_after_a_short_fit_is_not_about_to_end() -> None:
    # "About 0:02 left" stood there for the twenty minutes in which 378 images were scored.
    time = Time()
    clock = Clock([cell("rad", 1, 2)], now=time)
    clock.heard(0, step("start", 0, 1))
    time.now = 0.2
    clock.heard(0, step("bank", 80, 80))
    for now in (30, 60, 100):
        time.now = now
        assert clock.left() > now / 3, "longer than expected, and not a step done"
    clock.heard(0, step("score", 32, 378))
    assert clock.left() == pytest.approx(1_080, rel=0.02)
    time.now = 300
    assert clock.left() > 1_000, "the second piece takes longer than the first"
    for images in range(64, 378, 32):
        time.now = 1_200 * images / 378
        clock.heard(0, step("score", images, 378))
        assert clock.left() == pytest.approx(1_200 - time.now, rel=0.02)


def test_a_cell_that_has_not_begun_counts_as_much_as_is_known_of_others() -> None:
    # "About 0:00 left" stood there before 54 s of another cell.
    time = Time()
    clock = Clock([cell("patchcore", 5, 1), cell("lafite", 20, 10)], now=time)
    clock.heard(0, step("start", 0))
    time.now = 6
    clock.heard(0, step("coreset", 10))
    time.now = 12
    clock.heard(0, step("score", 10))
    clock.heard(0, None)
    assert clock.left() > 30, "what ended took longer than expected: so will what follows"
    clock.heard(1, step("start", 0))
    clock.heard(1, step("train", 0))
    time.now = 22
    clock.heard(1, step("train", 1))
    assert clock.left() == pytest.approx(90 + 10 * 6), "of nine epochs, and to score"


def test_cells_that_share_a_fit_are_scored_one_after_the_other() -> None:
    time = Time()
    clock = Clock([cell("lafite", 10, 30)], [3], time)
    clock.heard(0, step("train", 10))
    for now, images in ((4, 2), (10, 5), (20, 10)):
        time.now = now
        clock.heard(0, step("score", images))
        assert clock.left() == pytest.approx(60 - now), "three times 20 s"
    clock.heard(0, step("measure", 1, 1))
    time.now = 24
    clock.heard(0, step("score", 2))
    assert clock.left() == pytest.approx(60 - 24)
    clock.heard(0, None)
    assert clock.left() == 0


def test_a_resumed_training_is_as_fast_as_its_own_epochs() -> None:
    time = Time()
    clock = Clock([cell("lafite", 100, 1)], now=time)
    clock.heard(0, step("train", 45, 60))
    for epoch in (46, 47):
        time.now += 10
        clock.heard(0, step("train", epoch, 60))
    assert clock.left() == pytest.approx(130 + 1, abs=2)


def test_fast_cells_make_no_false_speed_of_others() -> None:
    time = Time()
    clock = Clock([*[cell("bank", 5, 1)] * 2, *[cell("net", 300, 30)] * 4], now=time)
    for number in (0, 1):
        clock.heard(number, step("coreset", 1))
    time.now = 6
    for number in (0, 1):
        clock.heard(number, None)
    for number in (2, 3):
        clock.heard(number, step("start", 0))
    assert 600 < clock.left() < 800


def drawn(
    console: Console, *labels: str, counted: Collection[int] = (), table: str = ""
) -> AbstractContextManager[Show]:
    """Bars of tasks that are expected to take a second each."""
    clock = Clock([features(1.0)] * len(labels))
    return bars(Tasks("cells", labels, clock, counted), console, lambda: table)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_take_one_line_each_at_any_width_and_leave_none(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    labels = [f"mixed lafite ({'a long variant, ' * 8}) seed {seed}" for seed in range(3)]
    with drawn(console, *labels, table="a first row") as show:
        for number in (0, 1):
            show(number, Progress(stage="train", step=19, steps=100, loss=18.7143))
        show(2, None)
        show(2, step("score", 1))  # late
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", file.getvalue()).splitlines()
    assert any("cells" in line and "1/3" in line and "left" in line for line in lines)
    assert "a first row" in map(str.strip, lines), "the table while the others run"
    assert max(map(len, lines)) <= width
    assert not [line for line in lines if "seed 2" in line]
    assert not [line for line in lines if line.startswith(("ETA", "0:", "left"))], "nothing wraps"
    assert file.getvalue().rstrip().endswith("\x1b[2K"), "the last that is drawn is taken away"


def log_of(monkeypatch: pytest.MonkeyPatch) -> tuple[Console, Any]:
    file = io.StringIO()
    monkeypatch.setattr(progress, "EVERY", 0.05)
    monkeypatch.setattr(progress, "LOOK", 0.01)
    return Console(file=file, width=40), file


def test_without_a_terminal_each_end_is_a_line_with_the_time() -> None:
    file = io.StringIO()
    console = Console(file=file, width=40)
    with drawn(console, "features of train", "a", "b", counted={1, 2}) as show:
        for number in (0, 1, 2):
            show(number, step("train", 5))
            show(number, None)
    lines = file.getvalue().splitlines()
    time, left = r"\d\d:\d\d:\d\d", r", about 0:0\d left"
    assert re.fullmatch(rf"{time} features of train ended, 0 s; cells: 0 of 2 done{left}", lines[0])
    assert re.fullmatch(rf"{time} a ended, 0 s; cells: 1 of 2 done{left}", lines[1])
    assert re.fullmatch(rf"{time} b ended, 0 s; cells: 2 of 2 done", lines[2])


def test_a_log_has_a_line_a_minute_of_what_runs_and_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    console, file = log_of(monkeypatch)
    with drawn(console, *(f"cell {n}" for n in range(9))) as show:
        show(0, Progress(stage="train", step=26, steps=60, loss=0.231))
        for number in range(1, 6):
            show(number, step("score", 1_200, 2_000))
        real_time.sleep(0.2)
    line = file.getvalue().splitlines()[-1]
    assert re.match(r"\d\d:\d\d:\d\d cells: 0 of 9 done, about \d+:\d\d left; ", line)
    assert "; cell 0: train 26 of 60, loss 0.2310; cell 1: score 1,200 of 2,000;" in line
    assert line.endswith("; ... and 3 more")


def test_planning_is_no_silence_either(monkeypatch: pytest.MonkeyPatch) -> None:
    console, file = log_of(monkeypatch)
    with counter("planning: images read", None, console) as count:
        count(1_234)
        real_time.sleep(0.2)
    assert re.match(r"\d\d:\d\d:\d\d planning: images read: 1,234\n", file.getvalue())


def test_times_are_short() -> None:
    assert [lasting(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
