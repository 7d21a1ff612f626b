"""A Ray cluster: started, joined, measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch

from harness.place import Place
from harness.registry import UsageError
from methods.parts.backbone import SHAPES

RETRIES = 2


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """The cluster at `address` or RAY_ADDRESS, else an embedded one on this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's coming default; without it a FutureWarning stands on every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The store, not Tune, keeps results, and our bars, not Tune's tables, show them.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Tune's own handler ends a session as if it were done: half of it would make a choice.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    address = address or os.environ.get("RAY_ADDRESS")
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **here)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        yield
    finally:
        ray.shutdown()


def check_fits(place: Place) -> None:
    """UsageError if the cluster can never give what one cell asks for."""
    slots = slots_of(place)
    if slots < place.workers:
        why = f"the cluster has room for {slots} of them"
        raise UsageError(place.no_room(ray.cluster_resources(), why))


def slots_of(place: Place) -> int:
    """How many cells, or workers of one, the cluster has room for at once."""
    return place.slots(node["Resources"] for node in ray.nodes() if node["Alive"])


def has_gpus() -> bool:
    """Whether the cluster has any GPU."""
    return bool(ray.cluster_resources().get("GPU", 0) > 0)


def settle(place: Place) -> None:
    """What each worker process begins with."""
    torch.set_num_threads(place.cpus)
    SHAPES.update(place.shapes)


def late(place: Place) -> RuntimeError:
    """Workers did not come in time."""
    why = f"they did not start within {place.patience} s (--patience), this much is free"
    return RuntimeError(place.no_room(ray.available_resources(), why))
