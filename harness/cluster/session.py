"""A Ray cluster: joined or started, and what it has room for."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import torch

from harness.features import FeatureCache
from harness.options import Resources
from harness.place import Place
from harness.registry import UsageError
from harness.rows import code_version
from harness.store.store import Store
from methods.parts.backbone import SHAPES

RETRIES = 2


@contextmanager
def session(
    resources: Resources, store: Store, cache: FeatureCache, *, overwrite: bool = False
) -> Iterator[Place]:
    """A cluster that can hold what one cell asks for, and where and with what it works."""
    with cluster(resources.address):
        if resources.gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            resources = dataclasses.replace(resources, gpus=float(has_gpus))
        check_room(resources)
        yield Place(
            store=dataclasses.replace(store, out=store.out.resolve()),
            cache=cache,
            resources=resources,
            overwrite=overwrite,
            code_version=code_version(),
            shapes=dict(SHAPES),
        )


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
    embedded: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **embedded)
    except (ConnectionError, ValueError) as error:
        raise UsageError(f"--address {address}: no Ray cluster answers there ({error})") from None
    try:
        yield
    finally:
        ray.shutdown()


def demand(resources: Resources) -> dict[str, float]:
    """What a worker takes of a node, by Ray's names; what it does not need is left out."""
    needs = {"CPU": float(resources.cpus), "GPU": resources.gpus or 0.0}
    return {kind: need for kind, need in needs.items() if need}


def room(resources: Resources) -> int:
    """How many workers the cluster holds at once; a worker can't be split over two nodes."""
    needs = demand(resources)
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return sum(min(int(node.get(kind, 0) / need) for kind, need in needs.items()) for node in nodes)


def check_room(resources: Resources) -> None:
    """UsageError if the cluster can never give what one cell asks for."""
    if (slots := room(resources)) < resources.workers:
        why = f"the cluster has room for {slots} of them"
        raise UsageError(_no_room(resources, ray.cluster_resources(), why))


def late(resources: Resources) -> RuntimeError:
    """Workers did not come in time."""
    why = f"they did not start within {resources.patience} s (--patience), this much is free"
    return RuntimeError(_no_room(resources, ray.available_resources(), why))


def _no_room(resources: Resources, sizes: dict[str, float], why: str) -> str:
    gpus = f" and {resources.gpus:g} GPU" if resources.gpus else ""
    return (
        f"{resources.workers} workers of {resources.cpus} CPU{gpus}: {why} "
        f"({sizes.get('CPU', 0):g} CPU, {sizes.get('GPU', 0):g} GPU); "
        "use fewer --workers or a larger cluster"
    )


def settle(place: Place) -> None:
    """What each worker process begins with."""
    torch.set_num_threads(place.resources.cpus)
    SHAPES.update(place.shapes)
