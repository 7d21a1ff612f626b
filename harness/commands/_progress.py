"""Progress bars with an ETA: one for the plan, one for each task at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from harness.options import Say
from harness.store.addresses import named
from harness.task import Show
from methods import base


def _columns() -> list[ProgressColumn]:
    return [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    ]


def noting(console: Console) -> Say:
    """Prints a line that is worth knowing and no fault; never wrapped, never taken for markup."""
    return lambda line: console.print(
        f"note: {named(line)}", markup=False, highlight=False, soft_wrap=True
    )


@contextmanager
def counter(title: str, total: int, console: Console) -> Iterator[Callable[[], None]]:
    """Yields a function that counts one more of `total` done."""
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=total, note="")
        yield lambda: progress.advance(task)


@contextmanager
def tally(title: str, console: Console) -> Iterator[Callable[[int, int], None]]:
    """Yields `show(done, total)`, for work whose size is known when it begins."""
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None, note="")
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def bars(title: str, labels: Sequence[str], console: Console) -> Iterator[Show]:
    """Yields `show(number, progress)` for the tasks named by `labels`; None ends a task.

    Where there is no terminal, a line is printed as each item ends.
    """
    with Progress(*_columns(), console=console, disable=not console.is_terminal) as progress:
        whole = progress.add_task(title, total=len(labels), note="")
        working: dict[int, tuple[str, TaskID]] = {}

        def show(number: int, news: base.Progress | None) -> None:
            if news is not None and news.note:
                noting(console)(f"{labels[number]}: {news.note}")
                return
            stage = None if news is None else news.stage
            if number in working and working[number][0] != stage:
                progress.remove_task(working.pop(number)[1])
            if news is None:
                progress.advance(whole)
                if not console.is_terminal:
                    console.print(f"{title}: {labels[number]} ended", highlight=False)
                return
            if number not in working:
                task = progress.add_task(f"  {labels[number]}: {news.stage}", total=None, note="")
                working[number] = (news.stage, task)
            note = _loss(news)
            progress.update(working[number][1], completed=news.step, total=news.steps, note=note)

        yield show


def _loss(news: base.Progress) -> str:
    """The loss, and the nearest that a predictor without training comes to it."""
    if news.loss is None:
        return ""
    if not news.yardsticks:
        return f"loss {news.loss:.4f}"
    best = min(news.yardsticks, key=lambda name: news.yardsticks[name])
    return f"loss {news.loss:.4f} ({best} {news.yardsticks[best]:.4f})"
