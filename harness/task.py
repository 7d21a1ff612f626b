"""Work that can run in other processes, and the driver that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

from harness.cell import Cell
from harness.place import Place
from methods.base import OnProgress, Progress, quiet

Show = Callable[[int, Progress | None], None]
"""Told of the progress of the task with this number; None when it ends."""


class Task(Protocol):
    """A piece of work that is sent to the process that does it."""

    @property
    def label(self) -> str:
        """The task in one line."""

    @property
    def fits(self) -> Cell | None:
        """The cell whose model it learns first, which several workers can do together."""

    def run(self, place: Place, tell: OnProgress) -> None:
        """Do it; what it makes is in the store or the cache afterwards."""


AnyTask = TypeVar("AnyTask", bound=Task)


class Driver(Protocol):
    """Runs tasks under a title; yields each as it ends, with its error if it failed."""

    def __call__(
        self, title: str, tasks: Sequence[AnyTask], place: Place
    ) -> Iterable[tuple[AnyTask, BaseException | None]]: ...


def in_this_process(
    title: str, tasks: Sequence[AnyTask], place: Place
) -> Iterator[tuple[AnyTask, BaseException | None]]:
    """The simplest driver: one after the other. A task that fails does not stop the others."""
    for task in tasks:
        try:
            task.run(place, quiet)
            yield task, None
        except Exception as error:
            yield task, error


def finish(drive: Driver, title: str, tasks: Sequence[Task], place: Place) -> None:
    """Run tasks that are all needed; raises what the first of them that fails raised."""
    for _, error in drive(title, tasks, place):
        if error is not None:
            raise error
