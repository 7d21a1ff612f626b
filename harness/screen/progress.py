"""Progress on screen: bars on a terminal, else a line at least once a minute."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import rich.progress
from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column
from rich.text import Text

from harness.plan.addresses import named
from harness.plan.options import Say, first_few
from harness.screen.eta import Clock
from methods.parts.progress import Progress

if TYPE_CHECKING:
    from harness.work.task import Show

EVERY, LOOK = 60.0, 1.0
"""Seconds after which a log has another line, and between two looks whether it is time."""
SAID: WeakKeyDictionary[Console, float] = WeakKeyDictionary()
"""When a log had its last line: short pieces of work one after the other make a long silence."""
MOST = 3
"""Tasks that a line of a log names."""
BARS = 12
"""Lines of a terminal that are left to bars where a table stands above them."""


class Tasks:
    """The tasks under a title while they run: how far each is, and how long all will take.

    Of the tasks those `counted`, or all, are what there is to do; the others make ready for them.
    """

    def __init__(
        self, title: str, labels: Sequence[str], clock: Clock, counted: Collection[int] = ()
    ) -> None:
        self.title, self.labels, self.clock = title, labels, clock
        self.counted = counted or range(len(labels))
        self.news: dict[int, Progress] = {}
        """The last news of each that runs."""

    def heard(self, number: int, news: Progress | None) -> None:
        """Takes news of a task, None as it ends, as a `harness.work.task.Show`."""
        self.clock.heard(number, news)
        if news is None:
            self.news.pop(number, None)
        else:
            self.news[number] = news

    @property
    def done(self) -> int:
        """How many of those that count have ended."""
        return sum(number in self.clock.took for number in self.counted)

    def summary(self) -> str:
        """All of them in one line: `cells: 1 of 4 done, about 0:45 left`."""
        left = self.clock.left()
        rest = f", about {lasting(left)} left" if left else ""
        return f"{self.title}: {self.done} of {len(self.counted)} done{rest}"

    def doing(self) -> list[str]:
        """A line for each that runs."""
        return [
            f"{self.labels[number]}: {news.stage} {news.step:,} of {news.steps:,}"
            + ("" if news.loss is None else f", loss {news.loss:.4f}")
            + (f" on {news.where}" if news.where else "")
            for number, news in sorted(self.news.copy().items())
        ]


class _Left(ProgressColumn):
    """Time that is left, by the clock of the whole or the pace of the stage."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        clock: Clock | None = task.fields.get("clock")
        left = clock.left() if clock else task.time_remaining
        return Text("" if left is None or task.finished else f"{lasting(left)} left")


class _Bars(rich.progress.Progress):
    """Bars of one line at any width, below a table if there is one; names and notes are cut first.

    All are taken away at the end.
    """

    above = ""

    def __init__(self, console: Console) -> None:
        def cut(ratio: int) -> Column:
            return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")

        super().__init__(
            TextColumn("{task.description}", table_column=cut(3), markup=False),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", table_column=cut(2), markup=False),
            TimeElapsedColumn(),
            _Left(table_column=Column(no_wrap=True, min_width=9)),
            console=console,
            disable=not console.is_terminal,
            expand=True,
            transient=True,
        )

    def get_renderables(self) -> Iterable[RenderableType]:
        if self.above:
            room = max(0, self.console.height - BARS)
            yield Text.from_ansi("\n".join(self.above.splitlines()[:room]) + "\n")
        yield from super().get_renderables()


def lasting(seconds: float) -> str:
    """`0:45`, `12:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def each_minute(console: Console, line: Callable[[], str]) -> Iterator[None]:
    """A block in which a log gets a line a minute after the last; a terminal has bars instead."""
    ended = Event()
    SAID.setdefault(console, time.monotonic())

    def tell() -> None:
        while not ended.wait(LOOK):
            if time.monotonic() - SAID[console] >= EVERY:
                _log(console, line())

    if not console.is_terminal:
        Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _log(console: Console, line: str) -> None:
    SAID[console] = time.monotonic()
    text = f"{time.strftime('%H:%M:%S')} {line}"
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def noting(console: Console) -> Say:
    """Prints a line that is worth knowing and no fault; never wrapped, never taken for markup."""
    return lambda line: console.print(
        f"note: {named(line)}", markup=False, highlight=False, soft_wrap=True
    )


def columns() -> int:
    """How wide tables may be: as the terminal, or 120 where there is none."""
    return shutil.get_terminal_size((120, 24)).columns


@contextmanager
def working(what: str, console: Console | None = None) -> Iterator[None]:
    """Shows on stderr what is done, for work that takes seconds and has no steps."""
    console = console or Console(stderr=True)
    with console.status(what), each_minute(console, lambda: what):
        yield


@contextmanager
def tally(
    title: str, console: Console, total: int | None = None
) -> Iterator[Callable[[int, int | None], None]]:
    """Yields `show(done, total)`, for work whose size may be known only when it begins."""
    with _Bars(console) as progress:
        task = progress.add_task(title, total=total, note="")
        seen = progress.tasks[0]

        def line() -> str:
            of = f" of {seen.total:,.0f}" if seen.total else ""
            return f"{title}: {seen.completed:,.0f}{of}"

        with each_minute(console, line):
            yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def counter(title: str, total: int | None, console: Console) -> Iterator[Callable[..., None]]:
    """Yields a function that counts one more, or so many, of `total` done; None: not known."""
    done = 0
    with tally(title, console, total) as show:

        def count(more: int = 1) -> None:
            nonlocal done
            done += more
            show(done, total)

        yield count


@contextmanager
def bars(tasks: Tasks, console: Console, rows: Callable[[], str]) -> Iterator[Show]:
    """Yields `show(number, progress)`, which tells the tasks all; None ends one.

    On a terminal `rows()`, a table of what there is by then, stands above the bars as each of those
    that count ends. A log gets a line then, and at least once a minute.
    """
    drawn: dict[int, TaskID] = {}

    def line() -> str:
        doing = first_few(tasks.doing(), MOST) or ["nothing runs yet"]
        return "; ".join([tasks.summary(), *doing])

    with _Bars(console) as progress, each_minute(console, line):
        whole = progress.add_task(tasks.title, total=len(tasks.counted), note="", clock=tasks.clock)

        def show(number: int, news: Progress | None) -> None:
            label = tasks.labels[number]
            if news is not None and news.note:
                noting(console)(f"{label}: {news.note}")
                return
            if number in tasks.clock.took:
                return  # news of a task that ended, on their way for longer than its end
            tasks.heard(number, news)
            progress.update(whole, completed=tasks.done)
            if news is not None:
                if number not in drawn:
                    drawn[number] = progress.add_task(label, note="")
                loss = "" if news.loss is None else f"loss {news.loss:.4f}"
                progress.update(
                    drawn[number],
                    description=f"  {label}: {news.stage}",
                    completed=news.step,
                    total=news.steps,
                    note=loss,
                )
                return
            if number in drawn:
                progress.remove_task(drawn.pop(number))
            if console.is_terminal:
                progress.above = rows() if number in tasks.counted else progress.above
            else:
                took = f"{label} ended, {tasks.clock.took[number]:,.0f} s"
                _log(console, f"{took}; {tasks.summary()}")

        yield show
