"""A study of `tune` on screen: from its trainings to its frozen choice, and what is asked after."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from traceback import format_exception
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.base import DataError
from harness.cluster.trials import Draws, tune_trials
from harness.commands._driver import on_screen
from harness.commands._eta import Clock
from harness.commands._progress import bars
from harness.commands._running import running
from harness.commands._tune_tables import agreement_table, varied, words, work_done
from harness.jobs import feature_tasks
from harness.options import SearchOptions
from harness.place import Place
from harness.registry import UsageError
from harness.search.choice import Choice, freeze, undecided
from harness.search.curves import curve_path, draw_curve, last_loss
from harness.search.reveal import METRIC, picture_path, reveal, revealed_study
from harness.search.stages import search, search_tasks, training_tasks, tried_before
from harness.search.study import Study
from harness.store.addresses import named
from harness.task import Driver, Show, Task, finish


@dataclass(frozen=True)
class Search:
    """Where studies are searched, how, and on which screen; `printed` is of results alone."""

    place: Place
    options: SearchOptions
    console: Console
    printed: Console

    def choose(self, study: Study) -> Choice | None:
        """Search, freeze and print; None, said in one line, where trials failed or tell nothing."""
        store = self.place.store
        before = len(store.entries("work.jsonl"))
        try:
            finish(self._drive, "features", feature_tasks(study.every, self.place), self.place)
            knobs, results = search(study, self.place, self._trials)
        except Exception as error:  # whatever a method raised: other studies go on
            self._failed(study, error)
            return None
        if why := undecided(study, results):
            self.printed.print(
                f"{study.label}: undecided: {why}; the default knobs stay, nothing is frozen",
                highlight=False,
                soft_wrap=True,
            )
            return None
        choice = freeze(store, study, knobs, results, self.place.code_version)
        done = f"this command: {work_done(study, store, before)}"
        self.console.print(done, highlight=False, soft_wrap=True)
        return choice

    def reveal(self, study: Study, choice: Choice) -> bool:
        """Score what was tried on the test split, print and draw; False where trials failed."""
        try:
            cells = revealed_study(study, choice).cells
            finish(self._drive, "features", feature_tasks(cells, self.place), self.place)
            table = reveal(study, choice, self.place, self._trials)
        except Exception as error:
            self._failed(study, error)
            return False
        self.printed.print(
            f"{study.label}, revealed: {METRIC} on pseudo-validation against test; regret in "
            "points",
            highlight=False,
            soft_wrap=True,
        )
        self.printed.print(agreement_table(table))
        self.printed.print(f"figure    {picture_path(choice)}", highlight=False, soft_wrap=True)
        return True

    def curves(self, study: Study, every: int) -> bool:
        """Train while watching, each seed's curve once; False where a training failed."""
        paths = {cell: curve_path(self.place, cell) for cell in study.cells}
        tasks = [
            Task(cell.label, partial(draw_curve, cell, every))
            for cell, path in paths.items()
            if not path.exists()
        ]
        try:
            if tasks:
                finish(self._drive, "features", feature_tasks(study.cells, self.place), self.place)
            finish(self._drive, "watched trainings", tasks, self.place)
            lines = [
                f"{path.with_suffix('.png')}; loss {last_loss(path)}" for path in paths.values()
            ]
        except Exception as error:
            self._failed(study, error)
            return False
        for line in lines:
            self.printed.print(f"curve     {line}", highlight=False, soft_wrap=True)
        return True

    @property
    def _drive(self) -> Driver:
        return on_screen(self.console)

    def _failed(self, study: Study, error: Exception) -> None:
        """Say it in one line, and keep its traceback; bad input is raised again."""
        if isinstance(error, (UsageError, DataError)):
            raise error
        store, name = self.place.store, f"failures/tune-{study.key}.txt"
        store.folder.put(name, "".join(format_exception(error)).encode(), replace=True)
        line = f"{study.label}: {type(error).__name__}: {error}".splitlines()[0]
        self.console.print(
            f"[red]failed[/red] {escape(line)}; the same command goes on from here", soft_wrap=True
        )
        where = named(str(store.out / name))
        self.console.print(f"       traceback in {where}", soft_wrap=True, highlight=False)

    def _trials(self, study: Study, stages: Iterator[Sequence[Any]], place: Place) -> None:
        """Trials by Ray Tune, after the trainings and the searches in banks that they share."""
        finish(self._drive, "training", training_tasks(study, place), place)
        finish(self._drive, "searching", search_tasks(study, place.store), place)
        choosing = study.first.purpose == "tune"
        early_stop, draws = self.options.early_stop and choosing, None
        if self.options.searcher and choosing:
            known = tried_before(study, place.store)
            count = max(0, study.budget - len(known))
            draws = Draws(count=count, known=known)
        if draws or early_stop:
            stages = islice(stages, 1)
        with closing(self._with_bars(study, stages, draws)) as shown:
            tune_trials(study, shown, place, early_stop=early_stop, draws=draws)

    def _with_bars(
        self, study: Study, stages: Iterator[Sequence[Any]], draws: Draws | None
    ) -> Generator[tuple[Sequence[Any], Show]]:
        """Each stage with the bars of its trials, which close when the next one is taken."""
        for settings in stages:
            names = varied(settings)
            labels = [f"{study.label} {words(knobs, names)}" for knobs in settings]
            if draws:
                labels = [f"{study.label} draw {number + 1}" for number in range(draws.count)]
            title, out = f"{study.label} {', '.join(names)}", self.place.store.out
            clock = Clock([{("score", study.first.method): 1.0}] * len(labels))
            with (
                bars(title, labels, self.console, clock) as shown,
                running(out, title, labels, shown, clock) as show,
            ):
                yield settings, show
