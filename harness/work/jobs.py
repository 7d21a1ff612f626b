"""Jobs, cells that share a fit, in the order of their doing; the making of what they read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from harness.plan.cell import Cell
from harness.work.cache import missing_features
from harness.work.cost import feature_flops, memory_of, work_of
from harness.work.features import FeatureSet, feature_sets, in_one_pass
from harness.work.place import Place
from harness.work.task import Task
from methods.parts.progress import OnProgress


def planned(
    cells: Sequence[Cell], place: Place, run_job: Callable[[list[Cell], Place, OnProgress], None]
) -> tuple[list[Task], dict[int, list[Cell]]]:
    """The tasks of a plan, and the cells of those that are jobs, by their number.

    What a job reads and the cache lacks is made just before it, and it waits for nothing else: the
    first row is there while features of other methods are still made.
    """
    tasks: list[Task] = []
    groups: dict[int, list[Cell]] = {}
    passes = in_one_pass(missing_features(cells, place.cache))
    pass_of = {place.cache.path(f): number for number, sets in enumerate(passes) for f in sets}
    makers: dict[int, int] = {}
    on_gpu = bool(place.resources.gpus)
    for group in jobs(cells):
        wanted = {place.cache.path(f) for f in feature_sets(group)}
        read = {pass_of[path] for path in wanted & pass_of.keys()}
        for number in sorted(read - makers.keys()):
            makers[number] = len(tasks)
            tasks.append(feature_task(passes[number]))
        groups[len(tasks)] = group
        tasks.append(
            Task(
                group[0].label,
                partial(run_job, group),
                fits=group[0],
                memory=memory_of(group[0], on_gpu=on_gpu),
                work=work_of(group),
                cells=len(group),
                after=tuple(makers[number] for number in sorted(read)),
            )
        )
    return tasks, groups


def feature_tasks(cells: Sequence[Cell], place: Place) -> list[Task]:
    """The making of what the cells read and the cache lacks."""
    return [feature_task(sets) for sets in in_one_pass(missing_features(cells, place.cache))]


def feature_task(sets: Sequence[FeatureSet]) -> Task:
    """The making of sets that share a pass of a backbone."""
    work = {"features": feature_flops(sets[0])}
    return Task(sets[0].label, partial(_make, sets), work=work)


def _make(sets: Sequence[FeatureSet], place: Place, tell: OnProgress) -> None:
    place.cache.make(sets, place.device, tell)


def jobs(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share a fit, together: of each data set those of its cheapest row, so that there
    is soon something to see, then the longest work first, so that no long tail is left."""
    groups: dict[str, list[Cell]] = {}
    rows: dict[str, dict[str, float]] = {}
    for cell in cells:
        groups.setdefault(cell.fit_id, []).append(cell)
        row, of_data = cell.config_hash, rows.setdefault(cell.data.benchmark, {})
        of_data[row] = of_data.get(row, 0.0) + sum(work_of([cell]).values())
    cheapest = {data: min(of_data, key=of_data.__getitem__) for data, of_data in rows.items()}

    def order(group: list[Cell]) -> tuple[bool, float]:
        early = any(cheapest[cell.data.benchmark] == cell.config_hash for cell in group)
        work = sum(work_of(group).values())
        return not early, work if early else -work

    return sorted(groups.values(), key=order)
