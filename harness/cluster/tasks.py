"""Tasks as Ray tasks. The result store is the truth; Ray's own state is disposable."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray

from harness.cluster import reach
from harness.cluster.preflight import NodeRefused
from harness.cluster.scoring import scoring_workers
from harness.cluster.session import RETRIES, demand, free, largest_memory, room, settle
from harness.cluster.telling import Telling
from harness.store.store import Store
from harness.work.execute import AWAITED
from harness.work.place import Place
from harness.work.task import Outcome, Show, Task
from methods.base import Progress

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
        self.places = room(self.resources)
        self.counted = time.monotonic()
        """When places were looked at."""
        self.rest = list(range(len(tasks)))
        """Numbers of tasks not handed out yet; the first that is ready comes next."""
        self.over: set[int] = set()
        self.waiting: dict[Any, int] = {}
        self.where: dict[int, str] = {}
        """The address of the node that a task runs on, as it told."""
        self.losses: Counter[int] = Counter()
        self.avoided: set[str] = set()
        """Ray's ids of the nodes that may not work, or are gone."""
        self.nodes = Nodes()

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
        for number in list(self.rest):
            if not self.over.issuperset(self.tasks[number].after):
                continue
            taken = sum(map(self._size, self.waiting.values()))
            # Fits of several workers that could not all be placed would take them from one another.
            if self.waiting and taken + self._size(number) > self._places(taken):
                return
            self.rest.remove(number)
            self._start(number)

    def _places(self, taken: int) -> int:
        """How many workers the cluster holds; more where places stay free, since what was handed
        out waits for memory: a smaller task may pass."""
        if time.monotonic() - self.counted >= NODES_SECONDS:
            self.counted, self.places = time.monotonic(), room(self.resources)
            if self.resources.workers == 1:
                self.places = max(self.places, taken + free(self.resources))
        return self.places

    def _size(self, number: int) -> int:
        """How many workers a task takes."""
        return self.resources.workers if self.tasks[number].fits else 1

    def _needs(self, number: int) -> dict[str, Any]:
        """Ray's options for a task; one that fits with many workers only waits for them."""
        if self._size(number) > 1:
            return {"num_cpus": 0, "num_gpus": 0}
        needs, memory = demand(self.resources), self.tasks[number].memory
        return {
            "num_cpus": needs.get("CPU", 0),
            "num_gpus": needs.get("GPU", 0),
            "memory": min(self.largest, memory),
        }

    def _start(self, number: int) -> None:
        self.where.pop(number, None)
        options = self._needs(number)
        if self.avoided:
            # Unless it spreads tasks, Ray asks the node first that has what a task reads. And tasks
            # with the same options share a request, unanswered for minutes after a pulled cable.
            elsewhere = {"ray.io/node-id": f"!in({','.join(sorted(self.avoided))})"}
            options |= {"label_selector": elsewhere, "scheduling_strategy": "SPREAD"}
        remote = self.remote.options(**options).remote
        reference = remote(self.tasks[number], self.shared, self.telling, number)
        self.waiting[reference] = number

    def _ended(self) -> list[Any]:
        """References of tasks that finished, or whose node was lost, since the last poll."""
        if gone := self.nodes.gone():
            self.avoided |= gone
            self._start_unheard()
        ended, _ = ray.wait(list(self.waiting), timeout=POLL_SECONDS)
        self._show_all()
        lost = self.nodes.lost(self.where.get(number) for number in self.waiting.values())
        with_node = [r for r, number in self.waiting.items() if self.where.get(number) in lost]
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

    def _show_all(self) -> None:
        for number, progress in self.telling.heard():
            self.where[number] = progress.where
            self.show(number, progress)


class Nodes:
    """Which nodes are gone.

    Ray says so within a minute, but lets who waits for a task there wait on: where a cable was
    pulled, nobody tells it that the connection is no more.
    """

    def __init__(self) -> None:
        self.looked = 0.0
        self.alive: dict[str, str] = {}
        """Addresses, by the name that Ray has for each."""

    def gone(self) -> set[str]:
        """Ray's names of those that are gone since the last look."""
        if time.monotonic() - self.looked < NODES_SECONDS:
            return set()
        before = self.alive
        self.alive = {n["NodeID"]: n["NodeManagerAddress"] for n in ray.nodes() if n["Alive"]}
        self.looked = time.monotonic()
        return before.keys() - self.alive.keys()

    def lost(self, addresses: Iterable[str | None]) -> set[str]:
        """The addresses, of these, where no node is any more."""
        return {a for a in addresses if a and a not in self.alive.values()}


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
        from harness.cluster.fitting import fit_on_workers  # a second's import that few need

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
