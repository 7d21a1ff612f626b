"""How long is left: by the estimate at first, by what was measured since; bars of one line."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from harness.commands._eta import Clock, Expected
from harness.commands._progress import bars, lasting
from methods.base import Progress


class Time:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def step(stage: str, step: int, steps: int = 10) -> Progress:
    return Progress(stage=stage, step=step, steps=steps)


def test_the_first_estimate_is_the_plans_and_two_at_a_time_take_half() -> None:
    time = Time()
    clock = Clock([Expected("a", 30), Expected("a", 30), Expected("b", 20)], time)
    assert clock.left() == 80
    clock.heard(0, step("start", 0))
    clock.heard(1, step("start", 0))
    assert clock.left() == 40
    time.now = 10
    assert clock.left() == pytest.approx(30)
    assert clock.share() == pytest.approx(0.25)


def test_cells_that_end_at_once_make_no_false_speed() -> None:
    # The bar of before counted cells: two fast ones that ended together promised a second.
    time = Time()
    clock = Clock([Expected("bank", 5), Expected("bank", 5), *[Expected("net", 300)] * 4], time)
    for number in (0, 1):
        clock.heard(number, step("coreset", 1))
    time.now = 6
    for number in (0, 1):
        clock.heard(number, None)
    for number in (2, 3):
        clock.heard(number, step("start", 0))
    assert 600 < clock.left() < 800, "1.2 times 300, twice"


def test_each_kind_is_corrected_by_what_its_own_take() -> None:
    time = Time()
    clock = Clock([*[Expected("bank", 10)] * 2, *[Expected("net", 10)] * 2], time)
    clock.heard(0, step("coreset", 1))
    time.now = 1
    clock.heard(0, None)  # a tenth of what was expected
    clock.heard(2, step("train", 0))
    time.now = 11
    clock.heard(2, step("train", 1, 10))  # 100 s
    assert clock.left() == pytest.approx(1 + 90 + 100, rel=0.02)
    time.now = 101
    clock.heard(2, None)
    assert clock.left() == pytest.approx(1 + 100, rel=0.02)


def test_what_takes_longer_than_expected_is_believed() -> None:
    time = Time()
    clock = Clock([Expected("net", 10)], time)
    clock.heard(0, step("train", 0, 100))
    time.now = 50
    clock.heard(0, step("train", 10, 100))
    assert clock.left() == pytest.approx(450)
    clock.heard(0, None)
    assert clock.left() == 0 and clock.share() == 1


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_take_one_line_each_at_any_width(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=width, color_system=None)
    labels = [f"mixed lafite ({'a long variant, ' * 8}) seed {seed}" for seed in range(3)]
    with bars("cells", labels, console) as show:
        for number in (0, 1):
            news = Progress(
                stage="train", step=19, steps=100, loss=18.7143, yardsticks={"linear": 0.1234}
            )
            show(number, news)
        show(2, None)
        show(2, step("score", 1))  # late
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", file.getvalue()).splitlines()
    assert any("cells" in line and "1/3" in line and "left" in line for line in drawn)
    assert max(map(len, drawn)) <= width
    assert not [line for line in drawn if "seed 2" in line]
    assert not [line for line in drawn if line.startswith(("ETA", "0:", "left"))], "nothing wraps"


def test_without_a_terminal_each_end_is_a_line_with_the_time() -> None:
    file = io.StringIO()
    with bars("cells", ["a", "b"], Console(file=file, width=40)) as show:
        show(0, step("train", 5))
        show(0, None)
        show(1, None)
    first, second = file.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d cells 1/2: a ended, 0 s; about 0:0\d left", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d cells 2/2: b ended, 0 s", second)


def test_the_time_of_the_cells_stands_beside_that_of_the_features_before_them() -> None:
    time = Time()
    clock = Clock([Expected("features", 10)] * 2, time, later=600)
    for number in (0, 1):
        clock.heard(number, step("features", 0))
    assert clock.left() == 10 + 300, "two at a time"
    time.now = 1
    for number in (0, 1):
        clock.heard(number, None)
    assert clock.left() == 300, "fast features make no fast cells"
    assert clock.share() == 1, "the bar is of the features"

    file = io.StringIO()
    with bars("features", ["a"], Console(file=file, width=40), later=600) as show:
        show(0, None)
    assert re.search(r"features 1/1: a ended, 0 s; about 10:00 left$", file.getvalue().strip())


def test_times_are_short() -> None:
    assert [lasting(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
