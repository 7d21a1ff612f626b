"""The driver of `run` and `tune`: tasks on Ray, with bars and, if asked, logs of their losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from harness.cell import Cell
from harness.commands._estimate import flops_per_second, known_seconds, seconds_here
from harness.commands._eta import Expected
from harness.commands._live import live
from harness.commands._progress import bars
from harness.commands._running import running
from harness.execute import jobs
from harness.place import Place
from harness.task import Driver, Outcome, Task

START_SECONDS = 5.0
"""Of a process, its imports and a method without work."""


def on_screen(console: Console, logs: Sequence[str] = (), cells: Sequence[Cell] = ()) -> Driver:
    """A driver that shows its tasks; while features are made, with the time that `cells` take."""

    def drive(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
        from harness.cluster.tasks import on_ray  # Ray takes seconds that few tasks need

        if not tasks:
            return
        labels = [task.label for task in tasks]
        coming = [] if any(task.fits for task in tasks) else [group[0] for group in jobs(cells)]
        expected, later = _expected(title, tasks, coming, place)
        with (
            bars(title, labels, console, expected, later) as show,
            running(place.store.out, title, labels, show) as kept,
            live(logs, place.store.out, labels, kept) as listener,
        ):
            yield from on_ray(tasks, place, listener)

    return drive


def _expected(
    title: str, tasks: Sequence[Task], coming: Sequence[Cell], place: Place
) -> tuple[list[Expected], float]:
    """What the tasks take, and the seconds of the cells that come after them: as like cells in the
    store took, else counted FLOPs at this machine's rate."""
    fits = [task.fits for task in tasks if task.fits]
    seen = known_seconds(place.store) if fits or coming else {}
    rate = flops_per_second()

    def of(cell: Cell | None, flops: float = 0.0) -> Expected:
        if cell is None:
            return Expected(title, START_SECONDS + flops / rate)
        seconds, known = seconds_here(cell, seen, rate)
        return Expected(cell.method, seconds if known else START_SECONDS + seconds)

    later = sum(of(cell).seconds for cell in coming)
    return [of(task.fits, task.flops) for task in tasks], later
