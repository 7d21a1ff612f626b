"""The driver of `run` and `tune`: tasks on Ray, with bars and, if asked, logs of their losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from harness.commands._estimate import flops_per_second, known_seconds, seconds_here
from harness.commands._eta import Expected
from harness.commands._live import live
from harness.commands._progress import bars
from harness.commands._running import running
from harness.place import Place
from harness.task import Driver, Outcome, Task

START_SECONDS = 5.0
"""Of a process, its imports and a method without work."""


def on_screen(console: Console, logs: Sequence[str] = ()) -> Driver:
    """A driver that shows its tasks."""

    def drive(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
        from harness.cluster.tasks import on_ray  # Ray takes seconds that few tasks need

        if not tasks:
            return
        labels = [task.label for task in tasks]
        expected = _expected(title, tasks, place)
        with (
            bars(title, labels, console, expected) as show,
            running(place.store.out, title, labels, show) as kept,
            live(logs, place.store.out, labels, kept) as listener,
        ):
            yield from on_ray(tasks, place, listener)

    return drive


def _expected(title: str, tasks: Sequence[Task], place: Place) -> list[Expected]:
    """What like cells in the store took, else counted FLOPs at this machine's rate."""
    seen = known_seconds(place.store) if any(task.fits for task in tasks) else {}
    rate = flops_per_second()
    expected = []
    for task in tasks:
        seconds, known = task.flops / rate, False
        if cell := task.fits:
            seconds, known = seconds_here(cell, seen, rate)
        kind = cell.method if cell else title
        expected.append(Expected(kind, seconds if known else START_SECONDS + seconds))
    return expected
