"""Work that can run in other processes, and the driver that runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.plan.cell import Cell
from harness.work.place import Place
from methods.parts.progress import OnProgress, Progress, quiet

Show = Callable[[int, Progress | None], None]
"""Told of the progress of the task with this number; None when it ends."""


@dataclass(frozen=True)
class Task:
    """A piece of work that is sent to the process that does it."""

    label: str
    """The task's name on screen, in one line."""
    run: Callable[[Place, OnProgress], None]
    """The work, whose result is in the store or the cache afterwards."""
    fits: Cell | None = None
    """The cell whose model it learns first, which several workers can do together."""
    memory: int = 0
    """Bytes of main memory that it is expected to need; 0: not known."""
    work: Mapping[str, float] = field(default_factory=dict)
    """FLOPs of its parts, in their order."""
    cells: int = 1
    """How many it scores one after the other."""
    after: tuple[int, ...] = ()
    """The numbers of those before it in the list that have to end first, well or not."""


Outcome = tuple[int, BaseException | None]
"""The number of a task that ended, and its error if it failed."""
Driver = Callable[[str, Sequence[Task], Place], Iterable[Outcome]]
"""Runs tasks under a title, the earlier ones of the list first; yields each as it ends."""


def in_this_process(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
    """The simplest driver: one after the other. A task that fails does not stop the others."""
    for number, task in enumerate(tasks):
        try:
            task.run(place, quiet)
            yield number, None
        except Exception as error:
            yield number, error


def finish(drive: Driver, title: str, tasks: Sequence[Task], place: Place) -> None:
    """Run tasks that are all needed; raises what the first of them that fails raised."""
    for _, error in drive(title, tasks, place):
        if error is not None:
            raise error
