"""Tasks as Ray tasks. The result store is the truth; Ray's own state is disposable."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from harness.cluster import reach
from harness.cluster.preflight import NodeRefused
from harness.cluster.session import RETRIES, demand, largest_memory, room, settle
from harness.cluster.telling import Telling
from harness.store.store import Store
from harness.work.execute import AWAITED
from harness.work.place import Place
from harness.work.task import Outcome, Show, Task
from methods.parts.progress import Progress

POLL_SECONDS = 0.5
CANCEL_SECONDS = 3.0
"""How long a task may take to end once it is told to."""
NODES_SECONDS = 4.0
"""Seconds between two polls of `ray.nodes()`."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
STARTED = Progress(stage="start", step=0, steps=1)
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
    telling = Telling()
    dispatch = _Dispatch(tasks, place, show, telling)
    try:
        yield from dispatch.run()
    except BaseException:
        dispatch.cancel()
        raise
    telling.end()


class _Dispatch:
    """Tasks that are handed out, and what became of them."""

    def __init__(self, tasks: Sequence[Task], place: Place, show: Show, telling: Telling) -> None:
        self.tasks, self.telling, self.show = tasks, telling, show
        self.shared, self.resources = ray.put(place), place.resources
        self.remote = ray.remote(max_retries=0)(_in_worker)
        self.largest = largest_memory()
        self.rest = list(range(len(tasks)))
        """Numbers of tasks not handed out yet; the first that is ready comes next."""
        self.over: set[int] = set()
        self.waiting: dict[Any, int] = {}
        self.where: dict[int, str] = {}
        """The address of the node that a task runs on, as it told."""
        self.losses: Counter[int] = Counter()
        self.avoided: set[str] = set()
        """Ray's ids of the nodes that may not work, or are gone."""
        self.alive: dict[str, str] = {}
        """Addresses of the nodes that there are, by Ray's ids."""
        self.looked = 0.0
        """When that was asked."""

    def run(self) -> Iterator[Outcome]:
        self._hand_out()
        while self.waiting:
            outcomes = [(self.waiting.pop(ref), _error(ref)) for ref in self._ended()]
            for number, error in list(outcomes):
                if self._again(number, error):
                    self._start(number)
                    outcomes.remove((number, error))
            self.over.update(number for number, _ in outcomes)
            self._hand_out()
            for number, error in outcomes:
                self.show(number, None)
                yield number, error

    def cancel(self) -> None:
        """End what runs, and let it remove its unfinished files first."""
        with suppress(ray.exceptions.RayError):
            for reference in self.waiting:
                ray.cancel(reference)
            ray.wait(list(self.waiting), num_returns=len(self.waiting), timeout=CANCEL_SECONDS)

    def _hand_out(self) -> None:
        """Start what is ready, in the order of the list, as long as there are places for it.

        Handed to Ray all at once, tasks that need different things would run in any order.
        """
        places = room(self.resources) if self.rest else 0
        for number in list(self.rest):
            if not self.over.issuperset(self.tasks[number].after):
                continue
            taken = sum(map(self._size, self.waiting.values()))
            # Fits of several workers that could not all be placed would take them from one another.
            if self.waiting and taken + self._size(number) > places:
                return
            self.rest.remove(number)
            self._start(number)

    def _size(self, number: int) -> int:
        """How many workers a task takes."""
        return self.resources.workers if self.tasks[number].fits else 1

    def _needs(self, number: int) -> dict[str, Any]:
        """Ray's options for a task; one that fits with many workers only waits for them, on the
        node of the command: lost with another it would take the fit along."""
        if self._size(number) > 1:
            node = ray.get_runtime_context().get_node_id()
            here = NodeAffinitySchedulingStrategy(node, soft=False)
            return {"num_cpus": 0, "num_gpus": 0, "scheduling_strategy": here}
        needs, memory = demand(self.resources), self.tasks[number].memory
        return {
            "num_cpus": needs.get("CPU", 0),
            "num_gpus": needs.get("GPU", 0),
            "memory": min(self.largest, memory),
        }

    def _start(self, number: int) -> None:
        self.where.pop(number, None)
        options = self._needs(number)
        if self.avoided and self._size(number) == 1:
            # Unless it spreads tasks, Ray asks the node first that has what a task reads. And tasks
            # with the same options share a request, unanswered for minutes after a pulled cable.
            elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(self.avoided))})"}
            options |= {"label_selector": elsewhere, "scheduling_strategy": "SPREAD"}
        remote = self.remote.options(**options).remote
        reference = remote(self.tasks[number], self.shared, self.telling, number)
        self.waiting[reference] = number

    def _ended(self) -> list[Any]:
        """References of tasks that finished, or whose node was lost, since the last poll.

        Ray says within a minute which nodes are gone, but lets who waits for a task there wait on:
        where a cable was pulled, nobody tells it that the connection is no more.
        """
        if time.monotonic() - self.looked >= NODES_SECONDS:
            before, self.looked = self.alive, time.monotonic()
            self.alive = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
            if gone := before.keys() - self.alive.keys():
                self.avoided |= gone
                self._start_unheard()
        ended, _ = ray.wait(list(self.waiting), timeout=POLL_SECONDS)
        for number, progress in self.telling.heard():
            self.where[number] = progress.where
            self.show(number, progress)
        there = {None, "", *self.alive.values()}
        with_node = [r for r, number in self.waiting.items() if self.where.get(number) not in there]
        return list(dict.fromkeys([*ended, *with_node]))

    def _start_unheard(self) -> None:
        """Hand out anew what has not told where it is: perhaps it was on its way to a lost node."""
        for reference, number in list(self.waiting.items()):
            if number not in self.where:
                del self.waiting[reference]
                ray.cancel(reference)
                self._start(number)

    def _again(self, number: int, error: BaseException | None) -> bool:
        """Whether it is not the task's fault, and it has been tried seldom enough."""
        if isinstance(error, NodeRefused):
            self.avoided.add(error.node)
            self.show(number, replace(REFUSED, note=str(error)))
            return True
        self.losses[number] += isinstance(error, ProcessLost)
        return isinstance(error, ProcessLost) and self.losses[number] <= RETRIES


def _in_worker(task: Task, place: Place, telling: Telling, number: int) -> None:
    """The function that a task's process runs."""
    place, where = settle(place, linger=0), ray.util.get_node_ip_address()

    def tell(progress: Progress) -> None:
        telling.tell(number, replace(progress, where=where))

    def say(line: str) -> None:
        tell(replace(STARTED, note=line))

    tell(STARTED)
    place = replace(place, store=Store(place.store.folder.patient(say)))
    if place.resources.workers > 1 and task.fits:
        # A second's import that few need.
        from harness.cluster.fitting import fit_on_workers, scoring_workers

        with place.store.lock(task.fits.fit_id, partial(tell, AWAITED)):
            fit_on_workers(task.fits, place, telling, number)
        place = replace(place, scorers=scoring_workers)
    task.run(place, tell)


def _error(reference: Any) -> BaseException | None:
    """How a task ended; one that did not has lost its node."""
    try:
        ray.get(reference, timeout=0)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else Exception(str(error))
        cause.add_note(COLOURS.sub("", str(error)))  # where it was raised, on the worker
        return cause
    except ray.exceptions.GetTimeoutError:
        return ProcessLost("its node is gone")
    except ray.exceptions.RayError as error:
        if reach.gone(ray.get_runtime_context().gcs_address):
            raise  # not the fault of the task: nothing goes on
        return ProcessLost(f"{type(error).__name__}: {error}")
    return None
