"""What `lafite-bench tune` does around the search: plan, check, freeze, reveal, show."""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.base import sealed
from harness.choices import Choice, freeze, frozen
from harness.commands import TABLE_WIDTH, Request, check_data, feature_cache, started
from harness.curves import CurveTask, curve_path, draw_curve
from harness.execute import make_features
from harness.features import missing_features
from harness.journal import entries
from harness.place import Place
from harness.plan import plan
from harness.progress import bars
from harness.registry import UsageError, did_you_mean, load
from harness.reveal import METRIC, picture_path, reveal, revealed_study
from harness.spec import Cell, Held, field_types
from harness.store import Store
from harness.study import Study, plan_studies
from harness.trials import Preparation, prepare
from harness.tune import How, Trials, known, search, shared_work

SEARCHERS = ("optuna",)


@dataclass(frozen=True, kw_only=True)
class TuneRequest(Request):
    """The options of `lafite-bench tune`, as typed: those of `run`, and how to search."""

    space: list[str]
    objective: str
    share: float
    joint: bool
    early_stop: bool
    searcher: str | None
    reveal: bool
    curve: int | None


def tune_command(request: TuneRequest) -> bool:
    """Search, freeze and print each choice; False if one could not be made."""
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    _check_searcher(request.searcher)
    if request.curve:
        _check_epochs(request.methods)
    with console.status("planning: reading and hashing the training images"), sealed():
        studies = _planned(request)
    store = Store(request.out)
    store.prepare()
    todo = [
        study
        for study in studies
        if request.reveal or request.curve or frozen(store, study) is None
    ]
    complete = True
    with feature_cache(request) as cache:
        with sealed():
            check_data([study.first for study in todo], cache, console)
        with started(request, store, cache) if todo else nullcontext() as place:
            for study in studies:
                if request.curve and place is not None:
                    complete &= _curves(study, request.curve, place, console)
                choice = frozen(store, study)
                if choice is None and place is not None:
                    choice = _tune(study, request, place, console)
                if choice is None:
                    complete = False
                    continue
                _show(study, choice, console)
                if request.reveal and place is not None:
                    complete &= _reveal(study, choice, request, place, console)
    return complete


def _planned(request: TuneRequest) -> list[Study]:
    cells = plan(
        request.benchmarks,
        request.methods,
        seeds=request.seeds,
        preset=request.preset,
        overrides=request.overrides,
        mode=request.mode,
        categories=request.categories,
        root=request.root,
        held=Held(request.share),
    )
    joint = request.joint or request.searcher is not None
    return plan_studies(
        cells, request.space, request.objective, joint=joint, named=bool(request.methods)
    )


def _check_epochs(methods: Sequence[str]) -> None:
    for name in methods:
        if "epochs" not in field_types(load("methods", name).Config):
            raise UsageError(f"--curve: {name} is not trained in epochs; leave one of them out")


def _check_searcher(name: str | None) -> None:
    if name is None:
        return
    if name not in SEARCHERS:
        raise UsageError(f"--searcher {name}: {did_you_mean(name, [*SEARCHERS])}")
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"--searcher {name}: it is not installed; pip install {name}")


def _tune(study: Study, request: TuneRequest, place: Place, console: Console) -> Choice | None:
    """Search and freeze; None, said in one line, where trials failed."""
    before = len(list(entries(place.store.out / "work.jsonl")))
    try:
        _features(list(study.cells), place, console)
        knobs, searched = search(study, place, _on_ray(request, console))
    except (RuntimeError, OSError) as error:
        _failed(study, error, console)
        return None
    choice = freeze(place.store, study, knobs, searched, place.code_version)
    console.print(f"this command: {work_done(study, place.store, before)}", highlight=False)
    return choice


def _reveal(
    study: Study, choice: Choice, request: TuneRequest, place: Place, console: Console
) -> bool:
    """Score what was tried on the test split, print and draw; False where trials failed."""
    try:
        _features(revealed_study(study, choice).cells, place, console)
        found = reveal(study, choice, place, _on_ray(request, console))
    except (RuntimeError, OSError) as error:
        return _failed(study, error, console)
    console.print(
        f"{study.label}, revealed: {METRIC} on pseudo-validation against test; regret in points",
        highlight=False,
    )
    table = Table(box=SIMPLE)
    for name in ("category", "spearman", "kendall", "best %", "chosen %", "regret", "rank"):
        table.add_column(name, justify="left" if name == "category" else "right")
    for row in found.to_dicts():
        table.add_row(
            row["category"],
            *("constant" if row[c] is None else f"{row[c]:.2f}" for c in ("spearman", "kendall")),
            *(f"{100 * row[c]:.1f}" for c in ("best", "chosen")),
            f"{row['regret']:.1f}",
            str(row["rank"]),
        )
    console.print(table)
    console.print(f"figure    {picture_path(choice)}", highlight=False, soft_wrap=True)
    return True


def _curves(study: Study, every: int, place: Place, console: Console) -> bool:
    """Train while watching, each seed's curve once; False where a training failed."""
    from harness.cluster import cluster_map

    tasks = [
        CurveTask(cell, every)
        for cell in study.cells
        if hasattr(cell.config, "epochs") and not curve_path(place, cell).exists()
    ]
    if tasks:
        _features(study.cells, place, console)
        with bars("watched trainings", [task.cell.label for task in tasks], console) as show:
            for _, error in cluster_map(draw_curve, tasks, place, show=show):
                if error is not None:
                    return _failed(study, error, console)
    for cell in study.cells:
        if curve_path(place, cell).exists():
            path = curve_path(place, cell).with_suffix(".png")
            console.print(f"curve     {path}", highlight=False, soft_wrap=True)
    return True


def _failed(study: Study, error: BaseException, console: Console) -> bool:
    line = f"{study.label}: {type(error).__name__}: {error}".splitlines()[0]
    console.print(f"[red]failed[/red] {escape(line)}; the same command goes on from here")
    return False


def _features(cells: Sequence[Cell], place: Place, console: Console) -> None:
    from harness.cluster import cluster_map

    tasks = missing_features(cells, place.cache)
    if not tasks:
        return
    with bars("features", [task.label for task in tasks], console) as show:
        for _, error in cluster_map(make_features, tasks, place, show=show):
            if error is not None:
                raise error


def _on_ray(request: TuneRequest, console: Console) -> Trials:
    """Trials by Ray Tune, after the trainings and searches that they share."""
    from harness.cluster import cluster_map, tune_trials

    def trials(study: Study, tried: Sequence[Any], place: Place) -> None:
        shared = [Preparation(cell, study.most_k) for cell in shared_work(study, tried, place)]
        if shared:
            with bars("training and searching", [_shared(one) for one in shared], console) as show:
                for _, error in cluster_map(prepare, shared, place, show=show):
                    if error is not None:
                        raise error
        choosing = study.first.purpose == "tune"
        searcher = request.searcher if choosing else None
        how = How(
            early_stop=request.early_stop and choosing,
            searcher=searcher,
            budget=study.budget,
            known=known(study, place.store) if searcher else (),
        )
        names = _varied(tried)
        labels = [f"{study.label} {_words(one, names)}" for one in tried]
        with bars(f"{study.label} {', '.join(names)}", labels, console) as show:
            tune_trials(study, tried, place, how, show)

    return trials


def work_done(study: Study, store: Store, after: int = 0) -> str:
    """Trainings, searches, settings and network passes of a study that the log of work counts."""
    fits = {cell.fit_id for cell in study.cells}
    log = [one for one in list(entries(store.out / "work.jsonl"))[after:] if one["fit"] in fits]
    counts = Counter(one["what"] for one in log)
    passes = sum(one.get("passes", 0) for one in log)
    return (
        f"{counts['training']} trainings, {counts['search']} neighbour searches, "
        f"{counts['setting']} settings scored, {passes:,} passes of the network over an image"
    )


def _shared(one: Preparation) -> str:
    coreset = f", coreset {one.cell.knobs.coreset:g}" if getattr(one.cell.knobs, "k", 0) else ""
    return f"{one.cell.label}{coreset}"


def _varied(tried: Sequence[Any]) -> list[str]:
    """The knobs that differ between settings."""
    every = [dataclasses.asdict(knobs) for knobs in tried]
    return [name for name in every[0] if len({one[name] for one in every}) > 1] or ["one setting"]


def _words(knobs: Any, names: Sequence[str]) -> str:
    return ", ".join(f"{name}={getattr(knobs, name)}" for name in names if hasattr(knobs, name))


def _show(study: Study, choice: Choice, console: Console) -> None:
    """A table a stage, what was chosen and why."""
    for stage in choice.record["stages"]:
        console.print(_why(stage), highlight=False)
        console.print(_stage_table(stage, study.objective))
    changed = {
        name: value
        for name, value in choice.record["knobs"].items()
        if getattr(study.first.knobs, name) != value
    }
    words = ", ".join(f"{name}={value}" for name, value in changed.items())
    console.print(
        f"{study.label}: {words or 'the default knobs'}; {choice.record['settings']} settings "
        f"on {study.first.data.test_images} pseudo-validation images, {len(study.cells)} seeds; "
        f"frozen {choice.frozen_at:%Y-%m-%d %H:%M:%S} UTC",
        highlight=False,
    )
    console.print(f"choice    {choice.path}", highlight=False, soft_wrap=True)


def _why(stage: dict[str, Any]) -> str:
    fixed = "".join(f" with {name}={value}" for name, value in stage["fixed"].items())
    return f"{', '.join(stage['knobs'])}{fixed}: the highest wins, of equal ones the cheaper"


def _stage_table(stage: dict[str, Any], objective: Sequence[str]) -> Table:
    """What a stage tried."""
    table = Table(box=SIMPLE)
    for name in (*stage["knobs"], f"{' + '.join(objective)}, %", ""):
        table.add_column(name, justify="right")
    for number, one in enumerate(stage["tried"]):
        values = [100 * value for value in one["values"]]
        shown = f"{statistics.fmean(values):.2f}" if values else "stopped or not drawn"
        if len(values) > 1:
            shown += f" ± {statistics.stdev(values):.2f}"
        mark = "◄ chosen" if number == stage["best"] else ""
        table.add_row(*(f"{one['knobs'][name]}" for name in stage["knobs"]), shown, mark)
    return table
