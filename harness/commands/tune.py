"""`lafite-bench tune`: knobs chosen without one anomaly."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from harness.plan.options import (
    DEFAULT_OUT,
    Out,
    Resources,
    SearchOptions,
    Seeds,
    Selection,
    searching,
    seldom,
    typed_again,
)

if TYPE_CHECKING:
    from rich.console import Console

    from harness.search.study import Study
    from harness.store.store import Store


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
    withdraw: Annotated[
        bool, seldom("--withdraw", help="Take a frozen choice back; it leaves a trace.")
    ] = False,
    out: Out = DEFAULT_OUT,
) -> bool:
    """Choose knobs without one anomaly and freeze the choice; the test split stays sealed.

    Example: lafite-bench tune ./my-parts --preset quick -m lafite
    """
    from rich.console import Console

    from harness.plan.plan import check_words

    check_words(selection)
    console = Console(stderr=True)
    with console.status("starting"):
        from benchmarks.base import sealed
        from harness.checks.data import check_data
        from harness.plan.addresses import address_of
        from harness.plan.plan import plan
        from harness.screen.driver import on_cluster
        from harness.screen.progress import counter, noting
        from harness.screen.search import Search
        from harness.search.choice import frozen
        from harness.search.study import Study, by_row, checked, grids_of, held_by
        from harness.store.store import Store
        from harness.work.cache import FeatureCache

    store, printed, note = Store(out), Console(), noting(console)
    with counter("planning: images read", None, console) as count, sealed():
        cells = plan(selection, held=held_by(search), say=note, count=count)
        grids = grids_of(cells, search)
        studies = [
            Study(cells=seeds, options=search, grids=grids[seeds[0].method])
            for seeds in by_row(cells)
        ]
        studies = checked(studies, note)
    store.prepare(note)
    if withdraw:
        return all([_withdrawn(store, study, printed) for study in studies])
    work = [study for study in studies if reveal or frozen(store, study) is None]
    with FeatureCache.lasting(resources.cache, out, note) as cache:
        with sealed():
            check_data([study.first for study in work], cache, console, trust_masks=True)
        needed = [cell for study in work for cell in study.every]
        given = console, resources, store, cache, needed, note
        with on_cluster(*given) if work else nullcontext() as place:
            again = [*typed_again(selection), "--out", address_of(out)]
            search_on_screen = Search(again, store, place, console, printed)
            return all([search_on_screen.finish(study, revealed=reveal) for study in studies])


def _withdrawn(store: Store, study: Study, printed: Console) -> bool:
    from harness.search.choice import withdraw

    kept = withdraw(store, study)
    said = f"withdrawn, kept as {kept}" if kept else "no choice is frozen"
    printed.print(f"{study.label}: {said}", highlight=False, soft_wrap=True)
    return kept is not None
