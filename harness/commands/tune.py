"""`lafite-bench tune`: knobs chosen without one anomaly."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from harness.options import (
    DEFAULT_OUT,
    Out,
    Resources,
    SearchOptions,
    Seeds,
    Selection,
    searching,
)
from harness.registry import UsageError, did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from harness.commands._search import Search
    from harness.search.study import Study
    from harness.store.store import Store

SEARCHERS = ("optuna",)


@dataclass(frozen=True, kw_only=True)
class TuneSelection(Selection):
    """As `run` has it, but one training unless more are asked for."""

    seeds: Seeds = 1


def command(
    selection: TuneSelection,
    search: SearchOptions,
    resources: Resources,
    *,
    reveal: Annotated[
        bool, searching("--reveal", help="After the freeze: how good is the choice on test?")
    ] = False,
    curve: Annotated[
        int | None, searching(min=1, help="Score every so many epochs of the training.")
    ] = None,
    withdraw: Annotated[
        bool, searching("--withdraw", help="Take a frozen choice back; it leaves a trace.")
    ] = False,
    out: Out = DEFAULT_OUT,
) -> bool:
    """Choose knobs without one anomaly and freeze the choice; the test split stays sealed.

    Example: lafite-bench tune ./my-parts --preset quick -m lafite
    """
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("starting"):
        from benchmarks.base import sealed
        from harness.cache import FeatureCache
        from harness.commands._data_check import check_data
        from harness.commands._driver import on_cluster
        from harness.commands._progress import hashing, noting
        from harness.commands._search import Search
        from harness.plan import plan
        from harness.search.choice import frozen
        from harness.search.study import held_by, plan_extra, plan_studies
        from harness.store.store import Store

    store, printed = Store(out), Console()
    _check_searcher(search.searcher)
    if curve:
        _check_epochs(selection.methods)
    with hashing(console) as count, sealed():
        cells = plan(selection, held=held_by(search), say=noting(console), count=count)
        extra = plan_extra(selection, search, cells, noting(console))
        studies = plan_studies(cells, search, named=bool(selection.methods), extra=extra)
    note = noting(console)
    store.prepare(note)
    if withdraw:
        return all([_withdrawn(store, study, printed) for study in studies])
    work = [s for s in studies if reveal or curve or frozen(store, s) is None]
    with FeatureCache.lasting(resources.cache, out, note) as cache:
        with sealed():
            needed = [cell for study in work for cell in study.every]
            check_data([study.first for study in work], cache, console, trust_masks=True)
        given = console, resources, store, cache, needed, note
        with on_cluster(*given) if work else nullcontext() as place:
            on_ray = Search(place, search, console, printed) if place else None
            complete = []
            for study in studies:
                waiting = partial(noting(console), f"{study.label}: another command is at it; wait")
                with store.lock(study.key, waiting):
                    complete.append(_do(study, store, on_ray, reveal, curve, printed))
    return all(complete)


def _withdrawn(store: Store, study: Study, printed: Console) -> bool:
    from harness.search.choice import withdraw

    kept = withdraw(store, study)
    said = f"withdrawn, kept as {kept}" if kept else "no choice is frozen"
    printed.print(f"{study.label}: {said}", highlight=False, soft_wrap=True)
    return kept is not None


def _do(
    study: Study,
    store: Store,
    on_ray: Search | None,
    reveal: bool,
    curve: int | None,
    console: Console,
) -> bool:
    """One study; False if something of it failed. Without Ray its choice is frozen already."""
    from harness.commands._tune_tables import show_choice
    from harness.search.choice import frozen

    drawn = not (on_ray and curve) or on_ray.curves(study, curve)
    choice = frozen(store, study)
    if choice is None and on_ray:
        choice = on_ray.choose(study)
    if choice is None:
        return False
    show_choice(study, choice, console)
    return (not (on_ray and reveal) or on_ray.reveal(study, choice)) and drawn


def _check_epochs(methods: Sequence[str]) -> None:
    from harness.plan import declared

    for name in methods:
        method = declared(name)
        if not hasattr(method.method.Config(), "epochs"):
            raise UsageError(f"--curve: {name} is not trained in epochs; leave one of them out")
        if not method.scores_while_training:
            raise UsageError(f"--curve: {name} scores after its last epoch only; leave one out")


def _check_searcher(name: str | None) -> None:
    if name is None:
        return
    if name not in SEARCHERS:
        raise UsageError(f"--searcher {name}: {did_you_mean(name, SEARCHERS)}")
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"--searcher {name}: it is not installed; pip install {name}")
