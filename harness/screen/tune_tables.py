"""Tables of `lafite-bench tune`: one a stage, and the work that was done."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from harness.plan.addresses import address_of
from harness.search.choice import Choice
from harness.search.study import Study
from harness.store.store import Store
from results.reports.numbers import counted, mean_percent

MOST_SETTINGS = 12
"""The settings of a stage that are shown, at most."""


def show_choice(study: Study, choice: Choice, console: Console) -> None:
    """A table a stage, what was chosen and why."""
    for stage in choice.record["stages"]:
        console.print(_why(stage), highlight=False, soft_wrap=True)
        console.print(_stage_table(stage, study.objective))
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


def _stage_table(stage: dict[str, Any], objective: Sequence[str]) -> Table:
    """The settings that a stage tried and that have a value, or the best of them."""
    table = Table(box=SIMPLE)
    measured = [place for place, setting in enumerate(stage["tried"]) if setting["values"]]
    notes = []
    if absent := len(stage["tried"]) - len(measured):
        notes.append(f"{counted(absent, 'setting')} more without a value")
    for name in (*stage["knobs"], f"{' + '.join(objective)}, %"):
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
    every = [dataclasses.asdict(knobs) for knobs in tried]
    differing = [name for name in every[0] if len({knobs[name] for knobs in every}) > 1]
    return differing or ["one setting"]


def words(knobs: Any, names: Sequence[str]) -> str:
    """The named knobs as `t=200, k=5`."""
    return ", ".join(f"{name}={getattr(knobs, name)}" for name in names if hasattr(knobs, name))
