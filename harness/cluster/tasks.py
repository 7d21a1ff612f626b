"""Ray: a cluster, a plan mapped over it, one model that many workers score with.

The result store is the truth; Ray's own state is disposable. One fit on many workers is in
`cluster_train`, trials are in `cluster_tune`; no other file says "ray".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import ray
from ray.util.queue import Empty, Queue

from harness.cluster.scoring import scoring_workers
from harness.cluster.session import settle, slots_of
from harness.execute import Outcome, run_job
from harness.place import Place, Show
from harness.search.trials import train
from methods.base import Progress

POLL_SECONDS = 0.5
FITTING = (run_job, train)
"""Work that begins with a fit; its items begin with a cell."""


def cluster_map(
    function: Callable[..., None], items: Sequence[Any], place: Place, *, show: Show
) -> Iterator[Outcome]:
    """`function(item, place, tell)` as a Ray task for each item; outcomes as they end.

    What a task raises, or the loss of its process, is the outcome's error.
    """
    if not items:
        return
    queue = Queue(actor_options={"num_cpus": 0})
    shared = ray.put(place)
    many = place.workers > 1 and function in FITTING
    task = ray.remote(
        # A task that fits with many workers only waits for them; they hold the resources.
        num_cpus=0 if many else place.cpus,
        num_gpus=0 if many else place.gpus,
        max_retries=0,
    )(_task)
    rest = enumerate(items)
    waiting: dict[Any, int] = {}

    def start(count: int) -> None:
        for number, item in islice(rest, count):
            waiting[task.remote(function, item, shared, queue, number)] = number

    # Fits that could not all be placed would take workers from one another.
    start(max(1, slots_of(place) // place.workers) if many else len(items))
    while waiting:
        ended, _ = ray.wait(list(waiting), timeout=POLL_SECONDS)
        _show_all(queue, show)
        for reference in ended:
            number = waiting.pop(reference)
            show(number, None)
            yield items[number], _error(reference)
        start(len(ended))
    queue.shutdown(force=True)


def _task(
    function: Callable[..., None], item: Any, place: Place, queue: Queue, number: int
) -> None:
    """Runs in a worker process."""
    settle(place)

    def tell(progress: Progress) -> None:
        # Not `queue.put`: it waits for the answer, and Ray lends a waiting task's CPU to the next
        # task, so that more of them would run than there are cores.
        queue.actor.put_nowait.remote((number, progress))

    if place.workers > 1 and function in FITTING:
        from harness.cluster.fitting import fit_on_workers  # a second's import that few need

        fit_on_workers(item[0], place, queue, number)
    if place.workers > 1 and function is run_job:
        with scoring_workers(item[0], place) as spread:
            run_job(item, place, tell, spread)
    else:
        function(item, place, tell)


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
        return RuntimeError(f"{type(error).__name__}: {error}")
    return None
