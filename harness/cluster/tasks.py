"""Tasks as Ray tasks. The result store is the truth; Ray's own state is disposable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import ray
from ray.util.queue import Empty, Queue

from harness.cluster.preflight import NodeRefused
from harness.cluster.reach import gone
from harness.cluster.scoring import scoring_workers
from harness.cluster.session import RETRIES, demand, memory_asked, room, settle
from harness.execute import AWAITED
from harness.place import Place
from harness.task import Outcome, Show, Task
from methods.base import Progress
from results.files import locked

POLL_SECONDS = 0.5
REFUSED = Progress(stage="another node", step=0, steps=1)


class ProcessLost(RuntimeError):
    """The process of a task is gone, or its node; nothing is wrong with the task."""


def on_ray(tasks: Sequence[Task], place: Place, show: Show) -> Iterator[Outcome]:
    """Each task in a process of its own; yields them as they end.

    What a task raises is its error. One whose process or node is lost is tried again elsewhere,
    RETRIES times.
    """
    if not tasks:
        return
    queue = Queue(actor_options={"num_cpus": 0})
    shared = ray.put(place)
    together = place.resources.workers > 1 and any(task.fits for task in tasks)
    # A task that fits with many workers only waits for them; they hold the resources.
    needs = {} if together else demand(place.resources)
    remote = ray.remote(num_cpus=needs.get("CPU", 0), num_gpus=needs.get("GPU", 0), max_retries=0)(
        _in_worker
    )
    rest = iter(range(len(tasks)))
    waiting: dict[Any, int] = {}
    losses: Counter[int] = Counter()

    def start(number: int) -> None:
        asked = remote.options(memory=0 if together else memory_asked(tasks[number].memory))
        waiting[asked.remote(tasks[number], shared, queue, number)] = number

    # Fits that could not all be placed would take workers from one another.
    at_once = max(1, room(place.resources) // place.resources.workers)
    for number in islice(rest, at_once if together else len(tasks)):
        start(number)
    while waiting:
        ended, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
        _show_all(queue, show)
        for reference in ended:
            number = waiting.pop(reference)
            error = _error(reference)
            if isinstance(error, ProcessLost) and losses[number] < RETRIES:
                losses[number] += 1
                start(number)
                continue
            if isinstance(error, NodeRefused):  # not the task's fault, nor that of a node we know
                show(number, replace(REFUSED, note=str(error)))
                start(number)
                continue
            show(number, None)
            yield number, error
            for following in islice(rest, 1):
                start(following)
    queue.shutdown(force=True)


def _in_worker(task: Task, place: Place, queue: Queue, number: int) -> None:
    """What the process of a task runs."""
    place, where = settle(place), ray.util.get_node_ip_address()

    def tell(progress: Progress) -> None:
        progress = replace(progress, where=where)
        # Not `queue.put`: it waits for the answer, and Ray lends a waiting task's CPU to the next
        # task, so that more of them would run than there are cores.
        queue.actor.put_nowait.remote((number, progress))

    if place.resources.workers > 1 and task.fits:
        from harness.cluster.fitting import fit_on_workers  # a second's import that few need

        with locked(place.store.lock(task.fits.fit_id), partial(tell, AWAITED)):
            fit_on_workers(task.fits, place, queue, number)
        place = replace(place, scorers=scoring_workers)
    task.run(place, tell)


def _show_all(queue: Queue, show: Show) -> None:
    try:
        for number, progress in queue.get_nowait_batch(queue.qsize()):
            show(number, progress)
    except (Empty, ray.exceptions.RayActorError):
        # Without the process of the queue the bars stand still; what counts is how tasks end.
        return


def _error(reference: Any) -> BaseException | None:
    try:
        ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return error.cause if isinstance(error.cause, BaseException) else Exception(str(error))
    except ray.exceptions.RayError as error:
        if gone(ray.get_runtime_context().gcs_address):
            raise  # not the fault of the task: nothing goes on
        return ProcessLost(f"{type(error).__name__}: {error}")
    return None
