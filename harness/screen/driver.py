"""The driver of `run` and `tune`: tasks on Ray, on a screen and, if asked, with logs of losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console

from harness.screen.estimate import flops_per_second
from harness.screen.eta import Clock, Kind
from harness.screen.live import live
from harness.screen.progress import Tasks, working
from harness.screen.running import watched
from harness.work.place import Place
from harness.work.task import Driver, Outcome, Task

START_SECONDS = 5.0
"""Least seconds of a task's part beside its FLOPs: processes, imports, disk."""


@contextmanager
def on_cluster(console: Console, *given: Any, **named: Any) -> Iterator[Place]:
    """`harness.cluster.session.session`, whose start is shown."""
    with ExitStack() as stack:
        with working("starting Ray", console):
            from harness.cluster.session import session

            place = stack.enter_context(session(*given, **named))
        yield place


def on_screen(
    console: Console, logs: Sequence[str] = (), rows: Callable[[], str] = lambda: ""
) -> Driver:
    """A driver that shows its tasks, how long all of them will take, and the `rows` so far."""

    def drive(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
        from harness.cluster.tasks import on_ray  # Ray takes seconds that few tasks need

        if not tasks:
            return
        labels = [task.label for task in tasks]
        counted = {number for number, task in enumerate(tasks) if task.fits}
        rate = flops_per_second()
        clock = Clock([_expected(task, rate) for task in tasks], [task.cells for task in tasks])
        overview = Tasks(title, labels, clock, counted)
        with (
            watched(overview, console, place.store.out, rows) as show,
            live(logs, place.store.out, labels, show) as listener,
        ):
            yield from on_ray(tasks, place, listener)

    return drive


def _expected(task: Task, rate: float) -> dict[Kind, float]:
    """Seconds of a task's parts; what a process is worth beside this machine's best is measured."""
    method = task.fits.method if task.fits else ""
    work = task.work or {"": 0.0}
    return {(part, method): START_SECONDS + flops / rate for part, flops in work.items()}
