"""How long tasks will take: as expected at first, corrected by what has been measured since."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import RLock
from typing import NamedTuple

from methods.base import Progress

ENOUGH = 0.05
"""The share of a stage after which its pace is believed."""


class Expected(NamedTuple):
    """A task: its kind, of which all are wrong by the same factor, and the seconds expected."""

    kind: str
    seconds: float


class Running(NamedTuple):
    """When a task began, when its stage did, and how far the stage is."""

    began: float
    stage: str
    since: float
    share: float


class Clock:
    """What is left of some tasks, while they are told of.

    `later` is what comes after them, in seconds of one at a time: it is believed as it is, as
    another kind of work says nothing of it.
    """

    def __init__(
        self,
        tasks: Sequence[Expected],
        now: Callable[[], float] = time.monotonic,
        later: float = 0.0,
    ) -> None:
        self.tasks, self.now, self.later = tasks, now, later
        self.began = now()
        self.running: dict[int, Running] = {}
        self.took: dict[int, float] = {}
        self.at_once = 1
        """How many ran side by side at most."""
        self.lock = RLock()
        """Bars are drawn in a thread of their own."""

    def heard(self, number: int, news: Progress | None) -> None:
        """As `harness.task.Show`."""
        with self.lock:
            self._heard(number, news)

    def _heard(self, number: int, news: Progress | None) -> None:
        now = self.now()
        before = self.running.get(number, Running(now, "", now, 0.0))
        if news is None:
            self.running.pop(number, None)
            self.took[number] = now - before.began
            return
        share = news.step / news.steps if news.steps else 0.0
        since = before.since if before.stage == news.stage else now
        self.running[number] = Running(before.began, news.stage, since, min(share, 1.0))
        self.at_once = max(self.at_once, len(self.running))

    def left(self) -> float:
        """Seconds until all have ended, and what comes later."""
        with self.lock:
            return self._left() + self.later / self.at_once

    def _left(self) -> float:
        now = self.now()
        running = {number: self._left_of(number, now) for number in self.running}
        waiting = [
            self._expected(number)
            for number in range(len(self.tasks))
            if number not in self.running and number not in self.took
        ]
        side_by_side = min(self.at_once, max(1, len(running) + len(waiting)))
        evenly = (sum(running.values()) + sum(waiting)) / side_by_side
        return max([evenly, *running.values(), *waiting])

    def share(self) -> float:
        """How much of the tasks' time has passed."""
        with self.lock:
            passed = self.now() - self.began
            return passed / max(passed + self._left(), 1e-9)

    def _left_of(self, number: int, now: float) -> float:
        """What the estimate leaves, or at least what its stage still takes at its own pace."""
        task = self.running[number]
        expected = self._expected(number) - (now - task.began)
        if task.share < ENOUGH:
            return max(expected, 0.0)
        return max(expected, (now - task.since) * (1 - task.share) / task.share)

    def _expected(self, number: int) -> float:
        return self.tasks[number].seconds * self._factor(self.tasks[number].kind)

    def _factor(self, kind: str) -> float:
        """How much longer than expected tasks take: those of the kind that ended, else all, else
        what runs shows of itself."""
        for mine in (
            [n for n in self.took if self.tasks[n].kind == kind],
            [n for n in self.running if self.tasks[n].kind == kind and self._known(n)],
            list(self.took),
            [n for n in self.running if self._known(n)],
        ):
            if mine:
                expected = sum(self.tasks[n].seconds for n in mine)
                return sum(self.took[n] if n in self.took else self._whole(n) for n in mine) / max(
                    expected, 1e-9
                )
        return 1.0

    def _known(self, number: int) -> bool:
        return self.running[number].share >= ENOUGH

    def _whole(self, number: int) -> float:
        """Seconds of a running task to the end of its stage, at its pace."""
        task = self.running[number]
        return (task.since - task.began) + (self.now() - task.since) / task.share
