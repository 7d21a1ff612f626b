"""A study of `tune` on screen: its search, its frozen choice, and what is revealed after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from traceback import format_exception
from typing import Any

import polars as pl
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.base import DataError
from harness.plan.addresses import address_of, named
from harness.plan.registry import UsageError, first_line
from harness.screen.driver import on_screen
from harness.screen.eta import Clock
from harness.screen.progress import bars, noting
from harness.screen.running import running
from harness.search.choice import Choice, frozen
from harness.search.reveal import reveal
from harness.search.study import Study
from harness.search.tuning import Score, choose, score_on_tune
from harness.store.store import Store
from harness.work.place import Place
from harness.work.task import Show
from results.analysis.selection import ALL, AVERAGE, METRIC
from results.reports.layout import join_blocks
from results.reports.numbers import counted, mean_percent
from results.reports.tables import agreement

MOST_SETTINGS = 12
"""The settings of a stage that are shown, at most."""


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

    @contextmanager
    def _bars(self, study: Study, settings: Sequence[Any]) -> Iterator[Show]:
        names = varied(settings)
        labels = [f"{study.label} {words(knobs, names)}" for knobs in settings]
        title = f"{study.label} {', '.join(names)}"
        clock = Clock([{("score", study.first.method): 1.0}] * len(labels))
        with (
            bars(title, labels, self.console, clock) as shown,
            running(self.store.out, title, labels, shown, clock) as show,
        ):
            yield show


def show_choice(study: Study, choice: Choice, console: Console) -> None:
    """A table a stage, what was chosen and why."""
    for stage in choice.record["stages"]:
        console.print(_why(stage), highlight=False, soft_wrap=True)
        console.print(_stage_table(stage))
    changed = {
        name: value
        for name, value in choice.record["knobs"].items()
        if getattr(study.first.knobs, name) != value
    }
    chosen = ", ".join(f"{name}={value}" for name, value in changed.items())
    console.print(
        f"{study.label}: {chosen or 'the default knobs'}; "
        f"{counted(choice.record['settings'], 'setting')} on "
        f"{counted(study.first.data.test_images, 'pseudo-validation image')}, "
        f"{counted(len(study.cells), 'seed')}; frozen {choice.frozen_at:%Y-%m-%d %H:%M:%S} UTC",
        highlight=False,
        soft_wrap=True,
    )
    console.print(f"choice    {address_of(choice.path)}", highlight=False, soft_wrap=True)


def _why(stage: dict[str, Any]) -> str:
    fixed = "".join(f" with {name}={value}" for name, value in stage["fixed"].items())
    what = f"{', '.join(stage['knobs'])}{fixed}"
    if not (votes := stage.get("votes")):
        return f"{what}: the highest wins, of equal ones the cheaper"
    count, lost = len(votes["weights"]), [one for one in votes["weights"] if not one["weight"]]
    why = (
        f"{what}: ranked by {counted(count, 'group')} of anomalies (family and category); of "
        "settings within a standard error of the highest count the cheapest wins"
    )
    if lost:
        names = ", ".join(f"{one['family']} on {one['category']}" for one in lost)
        why += f"; without {names}, against the other families there"
    return why


def _stage_table(stage: dict[str, Any]) -> Table:
    """The settings that a stage tried and that have a value, or the best of them."""
    table = Table(box=SIMPLE)
    measured = [place for place, setting in enumerate(stage["tried"]) if setting["values"]]
    notes = []
    if absent := len(stage["tried"]) - len(measured):
        notes.append(f"{counted(absent, 'setting')} more without a value")
    for name in (*stage["knobs"], f"{METRIC}, %"):
        table.add_column(name, justify="right")
    votes, counts = stage.get("votes"), {}
    if votes:
        table.add_column("Borda count, %", justify="right")
        each = zip(measured, votes["borda"], votes["error"], strict=True)
        counts = {place: (100 * score, 100 * error) for place, score, error in each}
    table.add_column("")
    shown = measured
    if len(measured) > MOST_SETTINGS and votes:
        ranked = sorted(measured, key=lambda place: -counts[place][0])[:MOST_SETTINGS]
        shown = [place for place in measured if place in {*ranked, stage["best"]}]
        notes.append(f"the best {len(shown)} of {counted(len(measured), 'setting')}")
    for place in shown:
        setting = stage["tried"][place]
        cells = [f"{setting['knobs'][name]}" for name in stage["knobs"]]
        cells.append(mean_percent(setting["values"]))
        mark = "◄ chosen" if place == stage["best"] else ""
        if votes:
            cells.append("{:.1f} ± {:.1f}".format(*counts[place]))
            mark = mark or ("within one error" if place in votes["tied"] else "")
        table.add_row(*cells, mark)
    table.caption = "; ".join(notes) or None
    return table


def work_done(study: Study, store: Store, after: int = 0) -> str:
    """Trainings, searches, settings and network passes of a study that the log of work counts."""
    fits = {cell.fit_id for cell in study.every}
    log = [e for e in store.entries("work.jsonl")[after:] if e["fit"] in fits]
    counts = Counter(entry["what"] for entry in log)
    passes = sum(entry.get("passes", 0) for entry in log)
    return (
        f"{counted(counts['training'], 'training')}, "
        f"{counted(counts['search'], 'neighbour search', 'es')}, "
        f"{counted(counts['setting'], 'setting')} scored, "
        f"{passes:,} passes of the network over an image"
    )


def varied(tried: Sequence[Any]) -> list[str]:
    """The knobs that differ between settings."""
    every = [asdict(knobs) for knobs in tried]
    differing = [name for name in every[0] if len({knobs[name] for knobs in every}) > 1]
    return differing or ["one setting"]


def words(knobs: Any, names: Sequence[str]) -> str:
    """The named knobs as `t=200, k=5`."""
    return ", ".join(f"{name}={getattr(knobs, name)}" for name in names if hasattr(knobs, name))
