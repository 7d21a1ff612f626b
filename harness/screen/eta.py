"""How long a plan will take: one clock over all of its work, set right by what was measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import NamedTuple

from methods.parts.progress import Progress

PARTS = {"features": "features", "fetch features": "features", "neighbours": "search"}
PARTS |= {"calibrate": "calibrate", "score": "score", "measure": "score"}
"""The part of a task that a stage belongs to; all others are those of learning."""
PACED = ("features", "neighbours", "train", "calibrate", "score")
"""Stages that take nearly all of their part: their pace is that of the part."""
IDLE = ("start", "another node")
Kind = tuple[str, str]
"""A part and the method that it is of: all of a kind are wrong by the same factor."""


class Measured(NamedTuple):
    """Seconds that a part took, or will have taken, and those that were expected."""

    kind: Kind
    seconds: float
    expected: float


@dataclass
class _Part:
    """A part of a task that is under way, and how far its stage is."""

    kind: Kind
    expected: float
    cells: int
    """How many cells it is done for, one after the other."""
    began: float
    heard: float
    """When the task was last told of."""
    told: bool = False
    """Whether it was told of: else it was not done, but found done."""
    stage: str = ""
    stage_began: float = 0.0
    first: float = 0.0
    """The steps that were done when the stage began."""
    step: float = 0.0
    steps: float = 0.0
    piece: float = 1.0
    """How many steps are told of at once."""
    rounds: int = 0
    """How many cells the stage is through with."""

    def hear(self, news: Progress) -> None:
        self.told = True
        if news.stage not in PACED:
            return
        if news.stage != self.stage:
            self.stage, self.stage_began, self.rounds = news.stage, self.heard, 0
            # A training tells where it begins, which is later where it is resumed.
            self.first = self.step = news.step if news.stage == "train" else 0
        elif news.step <= self.step:
            self.rounds, self.step = self.rounds + 1, 0  # the next cell that shares the fit
        self.piece = max(1, news.step - self.step)
        self.step, self.steps = news.step, news.steps

    def paced(self, now: float) -> float | None:
        """Seconds left by the pace of its stage; None until a step is done."""
        done = self.rounds * self.steps + self.step - self.first
        if done <= 0:
            return None
        whole = max(self.cells, self.rounds + 1) * self.steps - self.first
        passed = now - self.stage_began
        # A step that takes longer than those before slows the pace before it is done.
        pace = max((self.heard - self.stage_began) / done, passed / (done + self.piece))
        return max(pace * whole - passed, 0.0)

    def left(self, now: float, expected: float) -> float:
        """Seconds left by its pace, else as expected; a part that takes longer than expected
        without a word counts as two thirds done."""
        paced, passed = self.paced(now), now - self.began
        return max(expected - passed, passed / 2) if paced is None else paced


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
        self.began: dict[int, float] = {}
        self.running: dict[int, _Part] = {}
        self.took: dict[int, float] = {}
        self.measured: list[Measured] = []
        self.at_once = 1
        """How many ran side by side at most."""
        self.lock = RLock()
        """Bars and lines are made in threads of their own."""

    def heard(self, number: int, news: Progress | None) -> None:
        """Takes news of a task, as a `harness.work.task.Show`."""
        with self.lock:
            now, kinds = self.now(), {kind[0]: kind for kind in self.tasks[number]}
            if number not in self.running:
                self.began[number] = now
                self._begin(number, next(iter(kinds.values())), now)
            part = self.running[number]
            if news is None:
                self._end(self.running.pop(number), now)
                self.took[number] = now - self.began[number]
                return
            if news.stage not in IDLE:
                kind = kinds.get(PARTS.get(news.stage, "fit"), part.kind)
                if kind != part.kind:
                    self._end(part, part.heard)
                    part = self._begin(number, kind, part.heard)
                part.hear(news)
            part.heard = now
            self.at_once = max(self.at_once, len(self.running))

    def _begin(self, number: int, kind: Kind, now: float) -> _Part:
        cells = self.cells[number] if kind[0] in ("calibrate", "score") else 1
        part = _Part(kind, self.tasks[number][kind], cells, now, now)
        self.running[number] = part
        return part

    def _end(self, part: _Part, now: float) -> None:
        if part.told:
            self.measured.append(Measured(part.kind, now - part.began, part.expected))

    def left(self) -> float:
        """Seconds until all have ended."""
        with self.lock:
            now, factor = self.now(), self._factors()
            running, waiting = [], []
            for number, parts in enumerate(self.tasks):
                each = {kind: seconds * factor(kind) for kind, seconds in parts.items()}
                if part := self.running.get(number):
                    later = [*each.values()][[*each].index(part.kind) + 1 :]
                    running.append(part.left(now, each[part.kind]) + sum(later))
                elif number not in self.took:
                    waiting.append(sum(each.values()))
        side_by_side = min(self.at_once, max(1, len(running) + len(waiting)))
        return max([(sum(running) + sum(waiting)) / side_by_side, *running, *waiting])

    def _factors(self) -> Callable[[Kind], float]:
        """How much longer than expected a part takes: as its kind did, else as that part of other
        methods, else as all; what runs counts once its pace is known."""
        known, now = list(self.measured), self.now()
        for part in self.running.values():
            if (left := part.paced(now)) is not None:
                known.append(Measured(part.kind, now - part.began + left, part.expected))

        def factor(kind: Kind) -> float:
            alike = [one for one in known if one.kind == kind]
            alike = alike or [one for one in known if one.kind[0] == kind[0]] or known
            expected = sum(one.expected for one in alike)
            return sum(one.seconds for one in alike) / max(expected, 1e-9) if alike else 1.0

        return factor
