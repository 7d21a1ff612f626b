"""How long a plan will take: one clock over all of its work, set right by what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import NamedTuple

from methods.base import Progress

PARTS = {"features": "features", "fetch features": "features", "neighbours": "search"}
PARTS |= {"calibrate": "calibrate", "score": "score", "measure": "score"}
"""Which part of a task a stage belongs to; all others are those of learning."""
MAIN = ("features", "neighbours", "train", "calibrate", "score")
"""Stages that take nearly all of their part: their pace is that of the part."""
IDLE = ("start", "another node")
Kind = tuple[str, str]
"""A part and the method that it is of: all of a kind are wrong by the same factor."""


class Measured(NamedTuple):
    """Seconds that a part took, or will have taken, and those that were expected."""

    seconds: float
    expected: float


@dataclass
class _Running:
    """How far a task is."""

    began: float
    heard: float
    """When it was last told of."""
    part: str
    part_began: float
    stage: str = ""
    """Empty until the part is told of."""
    stage_began: float = 0.0
    first: float = 0.0
    """The steps that were done when the stage began."""
    step: float = 0.0
    piece: float = 1.0
    """How many steps are told of at once."""
    steps: float = 0.0
    rounds: int = 0
    """How many cells the stage is through with."""


class Clock:
    """A clock of the time that is left of tasks, while they are told of.

    `tasks` are the seconds expected of each part of each task, in order; `cells` says how many
    cells each scores one after the other.
    """

    def __init__(
        self,
        tasks: Sequence[Mapping[Kind, float]],
        cells: Sequence[int] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.tasks, self.cells, self.now = tasks, cells or [1] * len(tasks), now
        self.began = now()
        self.running: dict[int, _Running] = {}
        self.took: dict[int, float] = {}
        self.measured: dict[Kind, list[Measured]] = {}
        self.at_once = 1
        """How many ran side by side at most."""
        self.lock = RLock()
        """Bars and lines are made in threads of their own."""

    def heard(self, number: int, news: Progress | None) -> None:
        """Takes news of a task, as a `harness.work.task.Show`."""
        with self.lock:
            now = self.now()
            first = next(iter(self._parts(number)), "")
            task = self.running.setdefault(number, _Running(now, now, first, now))
            if news is None:
                self._end_part(number, now)
                del self.running[number]
                self.took[number] = now - task.began
                return
            self._take_up(number, task, news, now)
            task.heard = now
            self.at_once = max(self.at_once, len(self.running))

    def _take_up(self, number: int, task: _Running, news: Progress, now: float) -> None:
        if news.stage in IDLE:
            return
        part = PARTS.get(news.stage, "fit")
        if part != task.part and part in self._parts(number):
            self._end_part(number, task.heard)
            task.part, task.part_began, task.stage = part, task.heard, ""
        if news.stage != task.stage:
            if task.stage in MAIN and news.stage not in MAIN:
                return  # what follows the steps of a cell
            task.stage, task.stage_began, task.rounds = news.stage, task.heard, 0
            # A training tells where it begins, which is later where it is resumed.
            task.first = news.step if news.stage == "train" else 0
            task.step = task.first
        elif news.step <= task.step:
            task.rounds, task.step = task.rounds + 1, 0  # the next cell that shares the fit
        task.piece = max(1, news.step - task.step)
        task.step, task.steps = news.step, news.steps

    def _parts(self, number: int) -> dict[str, Kind]:
        return {kind[0]: kind for kind in self.tasks[number]}

    def _end_part(self, number: int, now: float) -> None:
        task = self.running[number]
        kind = self._parts(number).get(task.part)
        if kind and task.stage:  # else it was not done, but found done
            took = Measured(now - task.part_began, self.tasks[number][kind])
            self.measured.setdefault(kind, []).append(took)

    def left(self) -> float:
        """Seconds until all have ended."""
        with self.lock:
            factor = self._factors()
            running = [self._left_of(number, factor) for number in self.running]
            waiting = [
                sum(seconds * factor(kind) for kind, seconds in parts.items())
                for number, parts in enumerate(self.tasks)
                if number not in self.running and number not in self.took
            ]
        side_by_side = min(self.at_once, max(1, len(running) + len(waiting)))
        return max([(sum(running) + sum(waiting)) / side_by_side, *running, *waiting])

    def share(self) -> float:
        """How much of the tasks' time has passed."""
        passed = self.now() - self.began
        return passed / max(passed + self.left(), 1e-9)

    def _left_of(self, number: int, factor: Callable[[Kind], float]) -> float:
        """Seconds left of a running task: of its part, and of the parts that follow."""
        kinds = list(self.tasks[number])
        at = [kind[0] for kind in kinds].index(self.running[number].part)
        now, *later = (self.tasks[number][kind] * factor(kind) for kind in kinds[at:])
        return self._left_of_part(number, now) + sum(later)

    def _left_of_part(self, number: int, expected: float) -> float:
        """Seconds left of a task's part: by the pace of its stage, once a step is done; else as
        expected. One that takes longer than expected, without a word, counts as two thirds done."""
        task, passed = self.running[number], self.now() - self.running[number].part_began
        paced = self._left_of_stage(number)
        if paced is not None and task.stage in MAIN:
            return paced
        return max(expected - passed, paced or passed / 2)

    def _left_of_stage(self, number: int) -> float | None:
        task = self.running[number]
        cells = self.cells[number] if task.part in ("calibrate", "score") else 1
        done = task.rounds * task.steps + task.step - task.first
        if done <= 0 or not task.steps:
            return None
        whole = max(cells, task.rounds + 1) * task.steps - task.first
        passed = self.now() - task.stage_began
        # A step that takes longer than those before slows the pace before it is done.
        pace = max((task.heard - task.stage_began) / done, passed / (done + task.piece))
        return max(pace * whole - passed, 0.0)

    def _factors(self) -> Callable[[Kind], float]:
        """How much longer than expected a part takes: as its kind did, else as that part of other
        methods, else as all; what runs counts once its pace is known."""
        known = [(kind, one) for kind, each in self.measured.items() for one in each]
        known += self._under_way()

        def factor(kind: Kind) -> float:
            for alike in (
                [one for other, one in known if other == kind],
                [one for other, one in known if other[0] == kind[0]],
                [one for _, one in known],
            ):
                if alike:
                    expected = sum(one.expected for one in alike)
                    return sum(one.seconds for one in alike) / max(expected, 1e-9)
            return 1.0

        return factor

    def _under_way(self) -> Iterator[tuple[Kind, Measured]]:
        for number, task in self.running.items():
            left = self._left_of_stage(number)
            kind = self._parts(number).get(task.part)
            if kind and left is not None and task.stage in MAIN:
                seconds = self.now() - task.part_began + left
                yield kind, Measured(seconds, self.tasks[number][kind])
