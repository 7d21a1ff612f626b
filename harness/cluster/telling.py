"""Progress of tasks, on its way from their processes to the driver."""

from __future__ import annotations

from dataclasses import asdict

import ray
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from methods.parts.progress import Progress


class Telling:
    """A queue of the driver's node, which all tasks write and the driver alone reads."""

    def __init__(self) -> None:
        # Here, as nobody could tell where tasks are that told it to a queue on a lost node.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def tell(self, number: int, progress: Progress) -> None:
        """From any process: what the task of this number does."""
        # As plain values: to know the class, the queue's process would import torch, for seconds.
        plain = asdict(progress)
        # Not `queue.put`: it waits for the answer, and Ray lends a waiting task's CPU to the next
        # task, so that more of them would run than there are cores.
        self.queue.actor.put_nowait.remote((number, plain))

    def heard(self) -> list[tuple[int, Progress]]:
        """The news since the last call."""
        try:
            told = self.queue.get_nowait_batch(self.queue.qsize())
        except (Empty, ray.exceptions.RayActorError):
            # Without the process of the queue the bars stand still; what counts is how tasks end.
            return []
        return [(number, Progress(**plain)) for number, plain in told]

    def end(self) -> None:
        self.queue.shutdown(force=True)
