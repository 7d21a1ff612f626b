"""`lafite-bench run`: methods on data sets, seed by seed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from harness.plan.options import (
    DEFAULT_OUT,
    Out,
    Resources,
    Say,
    Selection,
    keeping,
    seldom,
    selecting,
    typed_again,
)
from harness.plan.registry import Stopped, first_line

if TYPE_CHECKING:
    from rich.console import Console

    from harness.plan.cell import Cell
    from harness.store.store import Store
    from harness.work.cache import FeatureCache
    from harness.work.place import Place
    from harness.work.task import Driver


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run beside its selection and its resources."""

    ablation: Annotated[
        bool, seldom("--ablation", help="What each part adds: Table 4 and edit-only.")
    ] = False
    tuned: Annotated[
        bool, selecting("--tuned", help="Add a row with the knobs that `tune` chose.")
    ] = False
    refit: Annotated[
        bool, selecting("--refit", help="As --tuned, trained on all training images again.")
    ] = False
    overwrite: Annotated[bool, keeping("--overwrite", help="Do finished cells again.")] = False
    dry_run: Annotated[bool, keeping("--dry-run", help="Print the cells and their cost only.")] = (
        False
    )
    log: Annotated[list[str], seldom(help="tensorboard, mlflow or wandb: losses as they come.")] = (
        field(default_factory=list)
    )

    @property
    def chosen(self) -> bool:
        """Whether rows with frozen choices are asked for."""
        return self.tuned or self.refit

    def faults(self) -> list[str]:
        """A line for what can't be asked for together."""
        if self.ablation and self.chosen:
            return ["--tuned and --ablation: a choice is made for one row; ask for one of them"]
        return []


def command(
    selection: Selection, options: RunOptions, resources: Resources, *, out: Out = DEFAULT_OUT
) -> bool:
    """Compare methods: data sets x methods x seeds, resumed where they stopped.

    Example: lafite-bench run ./my-parts --preset quick --seeds 2 -m lafite -m patchcore
    """
    from rich.console import Console

    from harness.plan.plan import plan
    from harness.screen.live import check_logs
    from harness.screen.progress import counter, noting
    from results.reports.numbers import counted

    console = Console(stderr=True)
    note, said = noting(console), list[str]()
    with counter("planning: images read", None, console) as count:
        cells = plan(
            selection,
            ablation=options.ablation,
            need_weights=not options.dry_run,
            say=said.append,
            count=count,
            found=[*check_logs(options.log), *options.faults()],
        )
    for line in said:
        note(line)
    with console.status("starting"):  # after planning: a word at fault is told within a second
        from harness.checks.data import check_data
        from harness.screen.driver import on_cluster, on_screen
        from harness.store.store import Store
        from harness.work.cache import FeatureCache

    store = Store(out)
    if options.chosen:
        cells += _tuned(cells, selection, store, options.refit, note)
    if not options.dry_run:
        store.prepare(note)
    todo = [cell for cell in cells if options.overwrite or not store.done(cell)]
    done = f"{counted(len(cells), 'cell')}, {len(cells) - len(todo)} of them done already"
    console.print(done, highlight=False)
    if options.dry_run:
        with FeatureCache.lasting(True, out, note) as cache:
            _show_cost(cells, todo, cache, resources)
        return True
    failed = 0
    with FeatureCache.lasting(resources.cache, out, note) as cache:
        try:
            check_data(todo, cache, console, trust_masks=selection.trust_masks)
            if todo:
                given = console, resources, store, cache, todo, note
                with on_cluster(*given, overwrite=options.overwrite) as place:
                    drive = on_screen(console, options.log, lambda: _table(cells, store, console))
                    failed = _do(todo, place, drive, console)
        except KeyboardInterrupt:
            raise Stopped(_stopped(cells, store, options.overwrite)) from None
        _print(cells, store, cache if resources.cache else None)
    return failed == 0


def _stopped(cells: Sequence[Cell], store: Store, overwrite: bool) -> str:
    """The line at an early end: cells that are done, and how to go on."""
    from harness.plan.addresses import address_of

    out, done = address_of(store.out), sum(map(store.done, cells))
    if overwrite:
        return f"stopped; {out} has what was done again; the same command begins anew"
    return (
        f"stopped; {done} of {len(cells)} cells are done and kept in {out}: run the same command "
        "again to go on"
    )


def _show_cost(
    cells: Sequence[Cell], todo: Sequence[Cell], cache: FeatureCache, resources: Resources
) -> None:
    """Shows the plan's cost, and the cautions to read before it runs."""
    from rich.console import Console

    from harness.screen.estimate import cautions, estimate, totals

    console = Console()
    console.print(estimate(cells, todo))
    for line in [*totals(todo, cache, resources), *cautions(cells)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _do(todo: Sequence[Cell], place: Place, drive: Driver, console: Console) -> int:
    """Do the cells; returns how many failed."""
    from rich.markup import escape

    from harness.plan.addresses import named
    from harness.work.execute import run

    if place.overwrite:
        for cell in todo:
            place.store.forget_model(cell)
    failed = 0
    for cells, error in run(todo, place, drive):
        if error is not None:
            failed += len(cells)
            line = f"{cells[0].label}: {first_line(error, kind=True)}"
            where = named(str(place.store.traceback(cells[0])))
            console.print(f"[red]failed[/red] {escape(line)}", soft_wrap=True, highlight=False)
            console.print(f"       traceback in {where}", soft_wrap=True, highlight=False)
    return failed


def _tuned(
    cells: Sequence[Cell], selection: Selection, store: Store, refit: bool, note: Say
) -> list[Cell]:
    """The cells with frozen choices that stand beside these; a note where one is no other."""
    from harness.plan.addresses import address_of
    from harness.search.choice import tuned

    options = [*typed_again(selection), "--out", address_of(store.out)]
    plain = {cell.cell_id for cell in cells}
    rows = tuned(cells, store, refit=refit, options=options)
    for row in rows:
        if row.cell_id in plain:
            note(f"{row.label}: the choice is the default; one row")
    return [row for row in rows if row.cell_id not in plain]


def _table(cells: Sequence[Cell], store: Store, console: Console) -> str:
    """The main table of the cells that are done or failed; empty where there is none."""
    from results.files import ResultsError
    from results.reports.text import render
    from results.table import read

    with suppress(ResultsError, OSError):
        for kind in ("parts", "failures"):
            store.folder.local(kind)
        frame = read(store.out, only={cell.cell_id for cell in cells})
        styled = console.color_system is not None
        return render(frame, "terminal", console.width, brief=True, styled=styled)
    return ""


def _print(cells: Sequence[Cell], store: Store, cache: FeatureCache | None) -> None:
    """The main table of the cells, and where everything lies."""
    from rich.console import Console

    from harness.plan.addresses import address_of

    console = Console()
    # Not by the console, which takes the codes of bold letters out.
    print(_table(cells, store, console))
    out = address_of(store.out)
    for what, where in (
        ("rows as Parquet", f"{out}/parts/"),
        ("trained models", f"{out}/models/"),
        ("cached features", cache and cache.root),
        ("all tables", f"lafite-bench report {out}"),
        ("pictures, in a browser", f"lafite-bench report {out} --format html"),
        ("score an image", _example(cells, store)),
    ):
        if where:
            console.print(f"{what:23} {where}", highlight=False, markup=False, soft_wrap=True)


def _example(cells: Sequence[Cell], store: Store) -> str:
    """The command that scores an image with the first model that there is; empty without one."""
    from harness.plan.addresses import address_of
    from harness.plan.options import is_address

    for cell in filter(store.done, cells):
        model = store.model(cell)
        if is_address(address_of(model)) or not model.is_dir():
            continue
        data, benchmark = cell.data, cell.data.open()
        split = benchmark.test if data.test_images else benchmark.train
        path = split(data.categories)[0].path
        image = "IMAGE" if path is None else str(path)
        return shlex.join(["lafite-bench", "predict", str(model), image])
    return ""
