"""Progress bars with an ETA: one for the plan, one for each task at work."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
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

from harness.commands._eta import Clock, Expected
from harness.options import Say
from harness.store.addresses import named
from harness.task import Show
from methods import base


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
        return Text("" if left is None else f"{lasting(left)} left")


def lasting(seconds: float) -> str:
    """`0:45`, `12:05`, `1:02:05`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _columns() -> list[ProgressColumn]:
    """Of one line each at any width: names and notes are cut first."""

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


def _progress(console: Console) -> Progress:
    return Progress(*_columns(), console=console, disable=not console.is_terminal, expand=True)


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
def hashing(console: Console) -> Iterator[Callable[[int], None]]:
    """Yields a function that is told of so many more images that were hashed while planning."""
    hashed = 0
    with console.status("planning: reading the data") as status:

        def count(more: int) -> None:
            nonlocal hashed
            hashed += more
            status.update(f"planning: {hashed:,} images hashed")

        yield count


@contextmanager
def counter(title: str, total: int, console: Console) -> Iterator[Callable[[], None]]:
    """Yields a function that counts one more of `total` done."""
    with _progress(console) as progress:
        task = progress.add_task(title, total=total, note="")
        yield lambda: progress.advance(task)


@contextmanager
def tally(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields `show(done, total)`, for work whose size is known when it begins."""
    with _progress(console) as progress:
        task = progress.add_task(title, total=None, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def bars(
    title: str,
    labels: Sequence[str],
    console: Console,
    expected: Sequence[Expected] = (),
    later: float = 0.0,
) -> Iterator[Show]:
    """Yields `show(number, progress)` for the tasks named by `labels`; None ends a task.

    The bar of the whole weighs them by the time that is `expected` of each, and by what they take;
    its time includes what comes `later`, in seconds of one at a time. Where there is no terminal, a
    line with the time is printed as each item ends.
    """
    clock = Clock(expected or [Expected(title, 1.0)] * len(labels), later=later)
    with _progress(console) as progress:
        whole = progress.add_task(title, total=1.0, note="", clock=clock, done=0, of=len(labels))
        working: dict[int, tuple[str, TaskID]] = {}

        def show(number: int, news: base.Progress | None) -> None:
            if news is not None and news.note:
                noting(console)(f"{labels[number]}: {news.note}")
                return
            if number in clock.took:
                return  # news of a task that ended, on their way for longer than its end
            clock.heard(number, news)
            progress.update(whole, completed=clock.share(), done=len(clock.took))
            stage = None if news is None else news.stage
            if number in working and working[number][0] != stage:
                progress.remove_task(working.pop(number)[1])
            if news is None:
                if not console.is_terminal:
                    counts = f"{len(clock.took)}/{len(labels)}"
                    line = _ended(f"{title} {counts}: {labels[number]}", number, clock)
                    console.print(line, soft_wrap=True)
                return
            if number not in working:
                task = progress.add_task(f"  {labels[number]}: {news.stage}", total=None, note="")
                working[number] = (news.stage, task)
            note = _loss(news)
            progress.update(working[number][1], completed=news.step, total=news.steps, note=note)

        yield show


def _ended(what: str, number: int, clock: Clock) -> Text:
    """A line of a log: the time, what ended, and how long the others will take."""
    more = len(clock.took) < len(clock.tasks) or clock.later
    rest = f"; about {lasting(clock.left())} left" if more else ""
    took = f"{clock.took[number]:.0f} s"
    return Text(f"{time.strftime('%H:%M:%S')} {what} ended, {took}{rest}")


def _loss(news: base.Progress) -> str:
    """The loss, and the nearest that a predictor without training comes to it."""
    if news.loss is None:
        return ""
    if not news.yardsticks:
        return f"loss {news.loss:.4f}"
    best = min(news.yardsticks, key=lambda name: news.yardsticks[name])
    return f"loss {news.loss:.4f} ({best} {news.yardsticks[best]:.4f})"
