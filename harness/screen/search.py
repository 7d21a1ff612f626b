"""A study of `tune` on screen: its search, its frozen choice, and what is revealed after."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial
from traceback import format_exception
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.base import DataError
from harness.plan.addresses import address_of, named
from harness.plan.registry import UsageError, first_line
from harness.screen.driver import on_screen
from harness.screen.eta import Clock
from harness.screen.progress import Tasks, noting
from harness.screen.running import watched
from harness.search.choice import Choice, frozen
from harness.search.decision import NothingToChoose, held_images
from harness.search.reveal import reveal
from harness.search.study import Study
from harness.search.tuning import Score, choose, score_on_tune
from harness.store.store import Store
from harness.work.place import Place
from harness.work.task import Show
from results.analysis.cells import METRIC
from results.analysis.selection import ALL, AVERAGE
from results.reports.layout import join_blocks
from results.reports.numbers import counted
from results.reports.tables import agreement, regrets

FEW_IMAGES = 20
"""Held-out normal images of a category, below which the spread of their scores is a guess."""


@dataclass(frozen=True)
class Search:
    """A search on screen; `printed` gets results alone."""

    again: Sequence[str]
    """Options of the command that uses a choice."""
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
                choice = frozen(self.store, study)
                if choice is None and self.place:
                    choice = choose(study, self.place, self._score)
                if choice is None:
                    return False
                self._show(study, choice)
                if revealed and self.place:
                    self._reveal(study, choice, self.place)
            except NothingToChoose as why:
                line = f"{study.label}: undecided: {why}; the default knobs stay, nothing is frozen"
                self._print(line)
                return False
            except (UsageError, DataError):
                raise
            except Exception as error:  # whatever a method raised: other studies go on
                self._failed(study, error)
                return False
        return True

    def _reveal(self, study: Study, choice: Choice, place: Place) -> None:
        found = reveal(study, choice, place, self._score)
        self._print(f"{study.label}, revealed: {METRIC} on pseudo-validation against test")
        brief = [r for r in found.agreement if r["family"] == ALL or r["category"] == AVERAGE]
        tables = [regrets(found.regrets), agreement(brief)]
        text = join_blocks(tables, "terminal", self.printed.width)
        self.printed.print(text, markup=False, highlight=False, soft_wrap=True)

    def _show(self, study: Study, choice: Choice) -> None:
        """The choice beside the anchor, why, and how it is used; all knobs come last."""
        first, count = study.first, counted(choice.record["settings"], "setting")
        self._print(
            f"{study.label}: {choice.record['verdict']['why']}; {count} tried; frozen "
            f"{choice.frozen_at:%Y-%m-%d %H:%M:%S} UTC, {address_of(choice.path)}"
        )
        self.printed.print(_table(study, choice))
        for category, images in held_images(study).items():
            if images < FEW_IMAGES:
                few = f"only {counted(images, 'normal image')} of {category} held out"
                self._print(f"caution: {few}: others might choose otherwise (--share, --folds)")
        words = ["run", first.data.benchmark, "-m", first.method, *self.again, "--tuned"]
        self._print(f"use it: {shlex.join(['lafite-bench', *words])}")
        knobs = [f"{name}={value}" for name, value in choice.record["knobs"].items()]
        self._print(f"{study.label}: {', '.join(knobs)}")

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
        every = [asdict(knobs) for knobs in settings]
        varied = [name for name in every[0] if len({knobs[name] for knobs in every}) > 1]
        labels = [", ".join(f"{name}={knobs[name]}" for name in varied) for knobs in every]
        labels = [f"{study.label} {label or 'one setting'}" for label in labels]
        clock = Clock([{("score", study.first.method): 1.0}] * len(labels))
        tasks = Tasks(f"{study.label} {', '.join(varied) or 'one setting'}", labels, clock)
        return watched(tasks, self.console, self.store.out)


def _table(study: Study, choice: Choice) -> Table:
    """The searched knobs before and after, the expected gain and the cost of scoring an image."""
    verdict, table = choice.record["verdict"], Table(box=SIMPLE)
    names = list(dict.fromkeys(name for stage in study.stages for name in stage.grid))
    header = ("", *names, "expected gain, d'", "GFLOPs an image")
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left")
    gain = "–" if verdict["gain"] is None else f"{verdict['gain']:+.2f}"
    if verdict["bound"]:
        gain += f", at least {verdict['bound']:+.2f}"
    before, after = choice.record["before"], choice.record["knobs"]
    for what, knobs, won, flops in (
        ("before", before, "", verdict["flops_before"]),
        ("chosen", after, gain, verdict["flops"]),
    ):
        table.add_row(what, *(str(knobs[name]) for name in names), won, f"{flops / 1e9:.3g}")
    return table
