"""A study of `tune` on screen: its search, its frozen choice, and what is revealed after."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from traceback import format_exception
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape

from benchmarks.base import DataError
from harness.plan.addresses import named
from harness.plan.registry import UsageError, first_line
from harness.screen.driver import on_screen
from harness.screen.eta import Clock
from harness.screen.progress import Tasks, noting
from harness.screen.running import watched
from harness.screen.tune_tables import show_choice, varied, words, work_done
from harness.search.choice import Choice, frozen
from harness.search.reveal import METRIC, reveal
from harness.search.study import Study
from harness.search.tuning import Score, choose, score_on_tune
from harness.store.store import Store
from harness.work.place import Place
from harness.work.task import Show
from results.analysis.selection import ALL, AVERAGE
from results.reports.layout import join_blocks
from results.reports.tables import agreement


@dataclass(frozen=True)
class Search:
    """A search on screen; `printed` gets results alone."""

    store: Store
    place: Place | None
    """None where nothing is to be scored: each choice is frozen, and none is revealed."""
    console: Console
    printed: Console

    def finish(self, study: Study, *, revealed: bool) -> bool:
        """Search unless a choice is frozen, print the choice, and reveal it if asked.

        False, said in one line, where trials failed or tell nothing.
        """
        waiting = partial(noting(self.console), f"{study.label}: another command is at it; wait")
        with self.store.lock(study.key, waiting):
            try:
                choice = frozen(self.store, study) or self._choose(study)
                if choice is None:
                    return False
                show_choice(study, choice, self.printed)
                if revealed and self.place:
                    self._reveal(study, choice, self.place)
            except (UsageError, DataError):
                raise
            except Exception as error:  # whatever a method raised: other studies go on
                self._failed(study, error)
                return False
        return True

    def _choose(self, study: Study) -> Choice | None:
        if self.place is None:
            return None
        before = len(self.store.entries("work.jsonl"))
        choice = choose(study, self.place, self._score)
        if isinstance(choice, str):
            self._print(
                f"{study.label}: undecided: {choice}; the default knobs stay, nothing is frozen"
            )
            return None
        done = f"this command: {work_done(study, self.store, before)}"
        self.console.print(done, highlight=False, soft_wrap=True)
        return choice

    def _reveal(self, study: Study, choice: Choice, place: Place) -> None:
        table = reveal(study, choice, place, self._score)
        self._print(
            f"{study.label}, revealed: {METRIC} on pseudo-validation against test; regret in points"
        )
        brief = table.filter((pl.col("family") == ALL) | (pl.col("category") == AVERAGE))
        text = join_blocks([agreement(brief.to_dicts())], "terminal", self.printed.width)
        self.printed.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print(self, line: str) -> None:
        self.printed.print(line, highlight=False, soft_wrap=True)

    def _failed(self, study: Study, error: Exception) -> None:
        """Say it in one line, and keep its traceback."""
        store, name = self.store, f"failures/tune-{study.key}.txt"
        store.folder.put(name, "".join(format_exception(error)).encode(), replace=True)
        line = f"{study.label}: {first_line(error, kind=True)}"
        self.console.print(
            f"[red]failed[/red] {escape(line)}; the same command goes on from here", soft_wrap=True
        )
        where = named(str(self.store.out / name))
        self.console.print(f"       traceback in {where}", soft_wrap=True, highlight=False)

    @property
    def _score(self) -> Score:
        return partial(score_on_tune, drive=on_screen(self.console), shown=self._bars)

    def _bars(self, study: Study, settings: Sequence[Any]) -> AbstractContextManager[Show]:
        names = varied(settings)
        labels = [f"{study.label} {words(knobs, names)}" for knobs in settings]
        clock = Clock([{("score", study.first.method): 1.0}] * len(labels))
        tasks = Tasks(f"{study.label} {', '.join(names)}", labels, clock)
        return watched(tasks, self.console, self.store.out)
