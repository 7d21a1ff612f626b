"""Progress on screen: bars on a terminal, else a line at least once a minute."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from weakref import WeakKeyDictionary

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.status import Status
from rich.table import Column
from rich.text import Text

from harness.plan.addresses import named
from harness.plan.options import Say, first_few
from harness.screen.eta import Clock
from harness.work.task import Show
from methods import base

EVERY, LOOK = 60.0, 1.0
"""Seconds after which a log has another line, and between two looks whether it is time."""
SAID: WeakKeyDictionary[Console, float] = WeakKeyDictionary()
"""When a log had its last line: short pieces of work one after the other make a long silence."""
MOST = 3
"""Tasks that a line of a log names."""
BARS = 12
"""Lines of a terminal that are left to bars where a table stands above them."""


class _Done(ProgressColumn):
    """How many of how many."""

    def render(self, task: Task) -> Text:
        done, total = task.fields.get("done", task.completed), task.fields.get("of", task.total)
        return Text("" if total is None else f"{done:.0f}/{total:.0f}")


class _Left(ProgressColumn):
    """Time that is left, by the clock of the whole or the pace of the stage."""

    max_refresh = 1.0

    def render(self, task: Task) -> Text:
        clock: Clock | None = task.fields.get("clock")
        left = clock.left() if clock else task.time_remaining
        return Text("" if left is None or task.finished else f"{lasting(left)} left")


def lasting(seconds: float) -> str:
    """`0:45`, `12:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> list[ProgressColumn]:
    """Columns of bars that take one line at any width: names and notes are cut first."""

    def cut(ratio: int) -> Column:
        return Column(ratio=ratio, no_wrap=True, overflow="ellipsis")

    return [
        TextColumn("{task.description}", table_column=cut(3), markup=False),
        BarColumn(bar_width=12),
        _Done(),
        TextColumn("{task.fields[note]}", table_column=cut(2), markup=False),
        TimeElapsedColumn(),
        _Left(table_column=Column(no_wrap=True, min_width=9)),
    ]


class _Bars(Progress):
    """Bars, below a table if there is one; all are taken away at the end."""

    above = ""

    def __init__(self, console: Console) -> None:
        super().__init__(
            *_columns(),
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


def shown(what: str) -> Status:
    """A spinner on stderr, for work that takes seconds and has no steps."""
    return Console(stderr=True).status(what)


@contextmanager
def working(console: Console, what: str) -> Iterator[None]:
    """Shows what is done, for work that has no steps."""
    with console.status(what), each_minute(console, lambda: what):
        yield


@contextmanager
def hashing(console: Console) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told of so many more images that were hashed while planning."""
    hashed = 0
    with (
        console.status("planning: reading the data") as status,
        each_minute(console, lambda: f"planning: {hashed:,} images hashed"),
    ):

        def count(more: int) -> None:
            nonlocal hashed
            hashed += more
            status.update(f"planning: {hashed:,} images hashed")

        yield count


@contextmanager
def counter(title: str, total: int, console: Console) -> Iterator[Callable[[], None]]:
    """Yields a function that counts one more of `total` done."""
    with tally(title, console) as show:
        done = 0

        def count() -> None:
            nonlocal done
            done += 1
            show(done, total)

        show(done, total)
        yield count


@contextmanager
def tally(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields `show(done, total)`, for work whose size is known when it begins."""
    with _Bars(console) as progress:
        task = progress.add_task(title, total=None, note="")
        seen = progress.tasks[0]

        def line() -> str:
            return f"{title}: {seen.completed:,.0f}" + (f" of {seen.total:,.0f}" * bool(seen.total))

        with each_minute(console, line):
            yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def bars(
    title: str,
    labels: Sequence[str],
    console: Console,
    clock: Clock,
    counted: Collection[int] = (),
    rows: Callable[[], str] = lambda: "",
) -> Iterator[Show]:
    """Yields `show(number, progress)` for the tasks named by `labels`; None ends a task.

    The time that is left is the clock's, which is told all. Of the tasks those `counted`, or all,
    are what there is to do; the others only make ready for them. On a terminal `rows()`, a table of
    what there is by then, stands above the bars as each of those ends. A log gets a line then, and
    at least once a minute.
    """
    counted = counted or range(len(labels))
    working: dict[int, tuple[str, TaskID, base.Progress]] = {}

    def done() -> int:
        return sum(number in clock.took for number in counted)

    def line() -> str:
        doing = [
            f"{labels[n]}: {how_far(news)}" for n, (_, _, news) in sorted(working.copy().items())
        ]
        head = f"{title}: {done()} of {len(counted)} done, about {lasting(clock.left())} left"
        return "; ".join([head, *(first_few(doing, MOST) or ["nothing runs yet"])])

    with _Bars(console) as progress, each_minute(console, line):
        whole = progress.add_task(title, total=1.0, note="", clock=clock, done=0, of=len(counted))

        def ended(number: int) -> None:
            if console.is_terminal:
                progress.above = rows() if number in counted else progress.above
                return
            left = f"; about {lasting(clock.left())} left" if len(clock.took) < len(labels) else ""
            took = f"{labels[number]} ended, {clock.took[number]:,.0f} s"
            _log(console, f"{took}; {title}: {done()} of {len(counted)} done{left}")

        def show(number: int, news: base.Progress | None) -> None:
            if news is not None and news.note:
                noting(console)(f"{labels[number]}: {news.note}")
                return
            if number in clock.took:
                return  # news of a task that ended, on their way for longer than its end
            clock.heard(number, news)
            progress.update(whole, completed=clock.share(), done=done())
            if number in working and (news is None or working[number][0] != news.stage):
                progress.remove_task(working.pop(number)[1])
            if news is None:
                ended(number)
                return
            if number in working:
                task = working[number][1]
            else:
                task = progress.add_task(f"  {labels[number]}: {news.stage}", total=None, note="")
            working[number] = (news.stage, task, news)
            progress.update(task, completed=news.step, total=news.steps, note=_loss(news))

        yield show


def how_far(news: base.Progress) -> str:
    loss = "" if news.loss is None else f", loss {news.loss:.4f}"
    return f"{news.stage} {news.step:,} of {news.steps:,}{loss}"


def _loss(news: base.Progress) -> str:
    """The loss, and the nearest that a predictor without training comes to it."""
    if news.loss is None:
        return ""
    if not news.yardsticks:
        return f"loss {news.loss:.4f}"
    best = min(news.yardsticks, key=lambda name: news.yardsticks[name])
    return f"loss {news.loss:.4f} ({best} {news.yardsticks[best]:.4f})"
