"""What `lafite-bench run` does around the main path: plan, check, resume, show."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.cell import Cell
from harness.commands._data_check import check_data
from harness.commands._estimate import estimate
from harness.commands._live import check_logs, live
from harness.commands._progress import bars
from harness.execute import run
from harness.features import FeatureCache, missing_features
from harness.place import Place
from harness.plan import jobs, plan
from harness.registry import UsageError
from harness.rows import code_version
from harness.search.choice import tuned
from harness.store.store import Store
from methods.parts.backbone import SHAPES
from results.profiles import DEFAULT_PROFILE
from results.reports.text import render
from results.table import read, read_scores

TABLE_WIDTH = 110
DRY_RUN_WIDTH = 150


@dataclass(frozen=True, kw_only=True)
class Request:
    """The options of `lafite-bench run`, as typed."""

    benchmarks: list[str]
    methods: list[str]
    seeds: int
    preset: str
    mode: str
    categories: list[str]
    overrides: list[str]
    ablation: bool
    root: Path | None
    out: Path
    address: str | None
    workers: int
    cpus: int
    gpus: float | None
    checkpoint_every: int
    patience: int
    overwrite: bool
    cache: bool
    dry_run: bool
    tuned: bool = False
    refit: bool = False
    profile: str = DEFAULT_PROFILE
    log: tuple[str, ...] = ()


def run_command(request: Request) -> bool:
    """Do what is asked and print the table; False if a cell failed."""
    console = Console()
    check_logs(request.log)
    with console.status("planning: reading and hashing the data"):
        cells = plan(
            request.benchmarks,
            request.methods,
            seeds=request.seeds,
            preset=request.preset,
            overrides=request.overrides,
            ablation=request.ablation,
            mode=request.mode,
            categories=request.categories,
            root=request.root,
            need_weights=not request.dry_run,
            profile=request.profile,
        )
    store = Store(request.out)
    if request.tuned or request.refit:
        cells += _tuned(cells, request, store, console)
    todo = [cell for cell in cells if request.overwrite or not store.done(cell)]
    console.print(f"{len(cells)} cells, {len(cells) - len(todo)} of them done already")
    with feature_cache(request) as cache:
        if request.dry_run:
            console.width = max(console.width, DRY_RUN_WIDTH)
            console.print(estimate(cells, store, cache))
            return True
        store.prepare()
        failed = _do(todo, request, store, cache, console) if todo else 0
    wanted = {cell.cell_id for cell in cells}
    frame = read(store.out)
    wide = max(console.width, TABLE_WIDTH)
    mine = frame.filter(frame["cell_id"].is_in(wanted))
    console.out(render(mine, "terminal", wide, read_scores(store.out)))
    _say_where(store, cache if request.cache else None, console)
    return failed == 0


def _do(
    todo: Sequence[Cell], request: Request, store: Store, cache: FeatureCache, console: Console
) -> int:
    """Run the cells that are not done; returns how many failed."""
    from harness.cluster.tasks import cluster_map

    check_data(todo, cache, console)
    failed = 0
    with started(request, store, cache) as place:
        if request.overwrite:
            for cell in todo:
                store.forget_model(cell)
        features = [task.label for task in missing_features(todo, cache)]
        work = jobs(todo)
        stages = [("features", features)] if features else []
        stages.append(("cells", [job[0].label for job in work]))
        shown = iter(stages)

        def mapped(function, items, place):  # type: ignore[no-untyped-def]
            if not items:
                return
            title, labels = next(shown)
            with (
                bars(title, labels, console) as show,
                live(request.log, store.out, labels, show) as heard,
            ):
                yield from cluster_map(function, items, place, show=heard)

        for job, error in run(work, place, mapped):
            if error is not None:
                failed += len(job)
                line = f"{job[0].label}: {type(error).__name__}: {error}".splitlines()[0]
                console.print(f"[red]failed[/red] {escape(line)}")
    return failed


def _tuned(cells: Sequence[Cell], request: Request, store: Store, console: Console) -> list[Cell]:
    """The cells with frozen choices that stand beside these; a note where one is no other."""
    if request.ablation:
        raise UsageError(
            "--tuned and --ablation: a choice is made for one row; ask for one of them"
        )
    options = ["--preset", request.preset, "--mode", request.mode, "--out", str(request.out)]
    options += [part for text in request.overrides for part in ("--set", text)]
    options += [part for name in request.categories for part in ("--category", name)]
    options += ["--data", str(request.root)] if request.root else []
    found = tuned(cells, store, refit=request.refit, options=options)
    plain = {cell.cell_id for cell in cells}
    for cell in found:
        if cell.cell_id in plain:
            console.print(f"note: {cell.label}: the choice is the default; one row", markup=False)
    return [cell for cell in found if cell.cell_id not in plain]


@contextmanager
def started(request: Request, store: Store, cache: FeatureCache) -> Iterator[Place]:
    """A cluster that can hold what one cell asks for, and where and with what it works."""
    from harness.cluster.session import check_fits, cluster, has_gpus

    with cluster(request.address):
        place = Place(
            store=dataclasses.replace(store, out=store.out.resolve()),
            cache=cache,
            workers=request.workers,
            cpus=request.cpus,
            gpus=float(has_gpus()) if request.gpus is None else request.gpus,
            checkpoint_every=request.checkpoint_every,
            patience=request.patience,
            overwrite=request.overwrite,
            code_version=code_version(),
            shapes=dict(SHAPES),
        )
        check_fits(place)
        yield place


@contextmanager
def feature_cache(request: Request) -> Iterator[FeatureCache]:
    """The shared cache, or one that vanishes with the run."""
    cache = FeatureCache.default()
    if request.cache or request.dry_run:
        yield cache
        return
    request.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=request.out.resolve(), prefix="features-") as folder:
        yield dataclasses.replace(cache, root=Path(folder))


def _say_where(store: Store, cache: FeatureCache | None, console: Console) -> None:
    console.print(f"rows      {store.out / 'parts'}/*.parquet", highlight=False)
    console.print(f"scores    {store.out / 'scores'}/*.parquet", highlight=False)
    console.print(f"models    {store.out / 'models'}/", highlight=False)
    if cache is not None:
        console.print(f"features  {cache.root}", highlight=False)
    console.print(f"again     lafite-bench report {store.out}", highlight=False)
    console.print(f"browser   lafite-bench report {store.out} --format html", highlight=False)
