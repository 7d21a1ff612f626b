"""What a thousand tiny cells cost beside their work: handing out tasks, reading rows, reporting."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from harness.cache import FeatureCache
from harness.cluster.session import session
from harness.cluster.tasks import on_ray
from harness.execute import run_job
from harness.memory import peak_memory
from harness.options import RaceOptions, Resources, Say, Selection
from harness.place import Place
from harness.plan import plan
from harness.store.store import Store
from harness.task import Task
from methods.base import OnProgress, Progress, quiet
from results.reports.text import render
from results.table import part_path, read, read_part, write_part

TASKS, QUICK_TASKS = 1000, 20
PARTS, QUICK_PARTS = (1000, 10_000), (10, 100)
METHODS = 8
"""Under whose names the made parts are spread."""


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """Lines as they are measured: seconds a task that does nothing, and seconds to read parts."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(
            store=Store(Path(folder) / "runs").prepare(),
            cache=FeatureCache(root=Path(folder) / "c"),
        )
        yield _tasks(place, QUICK_TASKS if options.quick else TASKS)
        for count in QUICK_PARTS if options.quick else PARTS:
            yield _reading(place, Path(folder) / str(count), count)


def _tasks(place: Place, count: int) -> str:
    tasks = [Task(f"nothing {number}", nothing) for number in range(count)]
    with session(Resources(), place.store, place.cache, []) as there:
        for _ in on_ray(tasks[:2], there, _unseen):
            pass  # processes that have imported everything
        started = time.perf_counter()
        errors = [error for _, error in on_ray(tasks, there, _unseen) if error]
        seconds = time.perf_counter() - started
    return (
        f"{count:6,d} tasks that do nothing: {seconds:6.1f} s, {1000 * seconds / count:6.1f} ms "
        f"each, {len(errors)} failed; driver at most {peak_memory() / 2**30:.2f} GiB"
    )


def nothing(place: Place, tell: OnProgress) -> None:
    """A task."""
    tell(Progress(stage="nothing", step=1, steps=1))


def _unseen(number: int, progress: Progress | None) -> None:
    return


def _reading(place: Place, out: Path, count: int) -> str:
    """Parts as one real cell left it, under other names."""
    [cell] = plan(Selection(benchmarks=["shapes"], methods=["patchcore"], seeds=1, preset="smoke"))
    if not place.store.done(cell):
        run_job([cell], place, quiet)
    rows = read_part(place.store.part(cell)).to_dicts()
    for number in range(count):
        name = uuid.uuid4().hex[:16]
        changed = {
            "cell_id": name,
            "seed": number // METHODS,
            "method": f"method{number % METHODS}",
        }
        write_part(part_path(out, name), [row | changed for row in rows])
    reading, frame = _timed(lambda: read(out))
    telling, _ = _timed(lambda: render(frame, "terminal", 120))
    return (
        f"{count:6,d} parts, {len(frame):9,d} rows: read in {reading:6.2f} s, "
        f"{1000 * reading / count:5.2f} ms each; reported in {telling:6.2f} s"
    )


def _timed(work: Callable[[], pl.DataFrame | str]) -> tuple[float, pl.DataFrame]:
    started = time.perf_counter()
    result = work()
    frame = result if isinstance(result, pl.DataFrame) else pl.DataFrame()
    return time.perf_counter() - started, frame
