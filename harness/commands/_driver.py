"""The driver of `run` and `tune`: tasks on Ray, with bars and, if asked, logs of their losses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console

from harness.commands._live import live
from harness.commands._progress import bars
from harness.commands._running import running
from harness.place import Place
from harness.task import Driver, Outcome, Task


def on_screen(console: Console, logs: Sequence[str] = ()) -> Driver:
    """A driver that shows its tasks."""

    def drive(title: str, tasks: Sequence[Task], place: Place) -> Iterator[Outcome]:
        from harness.cluster.tasks import on_ray  # Ray takes seconds that few tasks need

        if not tasks:
            return
        labels = [task.label for task in tasks]
        with (
            bars(title, labels, console) as show,
            running(place.store.out, title, labels, show) as kept,
            live(logs, place.store.out, labels, kept) as listener,
        ):
            yield from on_ray(tasks, place, listener)

    return drive
