"""What `lafite-bench tune` does around the search: plan, check, freeze, reveal, show."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.base import sealed
from harness.cell import Cell, Held
from harness.commands._data_check import check_data
from harness.commands._progress import bars
from harness.commands._tune_tables import (
    agreement_table,
    show_choice,
    varied,
    words,
    work_done,
)
from harness.commands.run import TABLE_WIDTH, Request, feature_cache, started
from harness.execute import make_features
from harness.features import missing_features
from harness.overrides import field_types
from harness.place import Place, Show
from harness.plan import plan
from harness.registry import UsageError, did_you_mean, load
from harness.search.choice import Choice, freeze, frozen
from harness.search.curves import CurveTask, curve_path, draw_curve
from harness.search.reveal import METRIC, picture_path, reveal, revealed_study
from harness.search.stages import How, Trials, known, search, unsearched, untrained
from harness.search.study import Study, plan_studies
from harness.search.trials import Shared, find_neighbours, train
from harness.store.journal import entries
from harness.store.store import Store

SEARCHERS = ("optuna",)


@dataclass(frozen=True, kw_only=True)
class TuneRequest(Request):
    """The options of `lafite-bench tune`, as typed: those of `run`, and how to search."""

    space: list[str]
    objective: str
    share: float
    anomalies: int
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
                show_choice(study, choice, console)
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
        held=Held(request.share, anomalies=request.anomalies),
    )
    joint = request.joint or request.searcher is not None
    return plan_studies(
        cells, request.space, request.objective, joint=joint, named=bool(request.methods)
    )


def _check_epochs(methods: Sequence[str]) -> None:
    for name in methods:
        if "epochs" not in field_types(load("methods", name).Config):
            raise UsageError(f"--curve: {name} is not trained in epochs; leave one of them out")
        if not load("methods", name).scores_while_training:
            raise UsageError(f"--curve: {name} scores after its last epoch only; leave one out")


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
    console.print(agreement_table(found))
    console.print(f"figure    {picture_path(choice)}", highlight=False, soft_wrap=True)
    return True


def _curves(study: Study, every: int, place: Place, console: Console) -> bool:
    """Train while watching, each seed's curve once; False where a training failed."""
    tasks = [
        CurveTask(cell, every)
        for cell in study.cells
        if hasattr(cell.config, "epochs") and not curve_path(place, cell).exists()
    ]
    labels = [task.cell.label for task in tasks]
    try:
        if tasks:
            _features(study.cells, place, console)
        _all_done("watched trainings", draw_curve, tasks, labels, place, console)
    except Exception as error:  # whatever a training raised
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
    tasks = missing_features(cells, place.cache)
    _all_done("features", make_features, tasks, [task.label for task in tasks], place, console)


def _prepare(study: Study, place: Place, console: Console) -> None:
    """Trainings first, then the searches in their banks, all of them side by side."""
    cells = untrained(study, place.store)
    items = [Shared(cell, study.most_k) for cell in cells]
    _all_done("training", train, items, [cell.label for cell in cells], place, console)
    cells = unsearched(study, place.store)
    items = [Shared(cell, study.most_k) for cell in cells]
    labels = [f"{cell.label} {words(cell.knobs, ['coreset'])}" for cell in cells]
    _all_done("searching", find_neighbours, items, labels, place, console)


def _all_done(
    title: str,
    function: Callable[..., None],
    items: Sequence[Any],
    labels: Sequence[str],
    place: Place,
    console: Console,
) -> None:
    """Each item on Ray, with bars; raises what the first that fails raised."""
    from harness.cluster.tasks import cluster_map

    if not items:
        return
    with bars(title, labels, console) as show:
        for _, error in cluster_map(function, items, place, show=show):
            if error is not None:
                raise error


def _on_ray(request: TuneRequest, console: Console) -> Trials:
    """Trials by Ray Tune, after the trainings and searches that they share."""
    from harness.cluster.trials import tune_trials

    def trials(study: Study, stages: Iterator[Sequence[Any]], place: Place) -> None:
        _prepare(study, place, console)
        choosing = study.first.purpose == "tune"
        how = How(early_stop=request.early_stop and choosing)
        if request.searcher and choosing:
            found = known(study, place.store)
            draws = max(0, study.budget - len(found))
            how = replace(how, searcher=request.searcher, draws=draws, known=found)
        if how.searcher or how.early_stop:
            stages = islice(stages, 1)
        with closing(_shown(study, stages, how, console)) as shown:
            tune_trials(study, shown, place, how)

    return trials


def _shown(
    study: Study, stages: Iterator[Sequence[Any]], how: How, console: Console
) -> Generator[tuple[Sequence[Any], Show]]:
    """Each stage with the bars of its trials, which close when the next one is taken."""
    for tried in stages:
        names = varied(tried)
        labels = [f"{study.label} {words(one, names)}" for one in tried]
        if how.searcher:
            labels = [f"{study.label} draw {number + 1}" for number in range(how.draws)]
        with bars(f"{study.label} {', '.join(names)}", labels, console) as show:
            yield tried, show
