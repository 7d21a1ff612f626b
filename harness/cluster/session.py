"""A Ray cluster: joined or started, and what it has room for."""

from __future__ import annotations

import dataclasses
import os
import secrets
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ray
import torch

from harness.cluster.preflight import REFUSED_SECONDS, preflight
from harness.cluster.reach import check_address, check_answers, let_go, watched
from harness.cluster.relay import at_node, home
from harness.plan.addresses import COPIES, address_of
from harness.plan.cell import Cell
from harness.plan.folders import at_home
from harness.plan.options import Resources, Say
from harness.plan.registry import UsageError, files_in_use
from harness.store.folder import folder_at
from harness.store.store import Store
from harness.work.cache import FeatureCache
from harness.work.copies import have_input
from harness.work.ending import deferred
from harness.work.place import Place
from harness.work.rows import code_version
from methods.parts.progress import quiet
from methods.parts.shapes import SHAPES

RETRIES = 2
OURS = "local"
"""Ray's word for a cluster that lives and ends with this command."""
LONGEST_REASON = 300
LONGEST_TMPDIR = 24
"""Characters of the longest TMPDIR below which the names of Ray's sockets are not too long."""
HOME = Path(__file__).parents[2]
"""The folder that holds our packages."""


@contextmanager
def session(
    resources: Resources,
    store: Store,
    cache: FeatureCache,
    cells: Sequence[Cell],
    say: Say = quiet,
    *,
    overwrite: bool = False,
) -> Iterator[Place]:
    """A cluster that can hold what one cell asks for, and where and with what it works.

    Its nodes have what the cells read, which is looked at first; `say` is told which of them don't
    see the folder of results. UsageError, a line for each fault, where that is not so.
    """
    with cluster(resources.address):
        if resources.gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            resources = dataclasses.replace(resources, gpus=float(has_gpus))
        check_room(resources)
        store = Store(folder_at(store.out.resolve()).patient())
        inputs = {path: uri for path, uri in COPIES.items() if path != store.out}
        with home(store.folder, cache) if named(resources.address) else nullcontext() as reach:
            gate = None
            if reach:
                on_gpu = bool(resources.gpus)
                apart, gate = preflight(cells, inputs, reach, say, on_gpu=on_gpu)
                if apart:
                    nodes, out = ", ".join(apart), address_of(store.out)
                    say(f"{out} is not seen from {nodes}: results are handed over from there")
            yield Place(
                store=store,
                cache=cache,
                resources=resources,
                overwrite=overwrite,
                code_version=code_version(),
                home=reach,
                gate=gate,
                shapes=dict(SHAPES),
                inputs=inputs,
            )


def named(address: str | None) -> str | None:
    """The address of a cluster that the user named, be it by RAY_ADDRESS."""
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address == OURS else address or None


@contextmanager
def cluster(address: str | None) -> Iterator[None]:
    """The cluster at `address` or RAY_ADDRESS, else an embedded one on this machine.

    Nobody is joined who was not named, also where somebody started Ray on this machine. UsageError
    for an address where no cluster, or one of other versions, answers.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's coming default; without it a FutureWarning stands on every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # The store, not Tune, keeps results, and our bars, not Tune's tables, show them.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # Ray Train gives a silent worker half a minute to say goodbye. Processes of our own Ray see it.
    os.environ.setdefault("TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S", "5")
    # Tune's own handler ends a session as if it were done: half of it would make a choice.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    address = named(address) or OURS
    with ExitStack() as folders:
        try:
            _join(address, folders)
        except UsageError:
            raise
        except Exception as error:  # Ray raises its base, too, for a node that is slow to start
            where = "Ray can't start here" if address == OURS else f"--address {address}"
            advice = "; set RAY_TMPDIR to a short path of your own" if address == OURS else ""
            why = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__
            raise UsageError(f"{where}: {why}{advice}") from None
        with watched(ray.get_runtime_context().gcs_address):
            yield


def _join(address: str, folders: ExitStack) -> None:
    embedded: dict[str, Any] = {}
    if address == OURS:
        # Ray's own folder is open to all users of the machine, and whoever writes there can have
        # its processes run code: ours is in one that is closed, and goes with the command.
        temporary = tempfile.TemporaryDirectory(
            prefix="lafite-", dir=_room_for_sockets(), ignore_cleanup_errors=True
        )
        embedded = {"include_dashboard": False, "_temp_dir": folders.enter_context(temporary)}
        if at_home("~") == "~":  # Ray Train asks for a home
            os.environ["HOME"] = tempfile.gettempdir()
        if not any(name.startswith("RAY_AUTH_") for name in os.environ):
            # Else Ray keeps one in the home folder, which may be missing or closed to writing.
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    else:
        check_address(address)
        check_answers(address)
    # Ray puts the current folder before all others on the paths of its workers: there they
    # shall find this package, not a kernels.py or a clone of timm where the user happens to be.
    folders.callback(let_go)
    files = [str(folder) for folder in files_in_use()]
    with chdir(HOME), deferred():
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"py_modules": files} if files else None,
            **embedded,
        )


def _room_for_sockets() -> str:
    """Ray's temporary folder: TMPDIR, or /tmp where socket paths would get too long."""
    usual = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
    return usual if len(usual) <= LONGEST_TMPDIR else "/tmp"


def demand(resources: Resources) -> dict[str, float]:
    """A worker's demand on a node, by Ray's names; what it does not need is left out."""
    needs = {"CPU": float(resources.cpus), "GPU": resources.gpus or 0.0}
    return {kind: need for kind, need in needs.items() if need}


def largest_memory() -> int:
    """Bytes of the largest node; who wants more has it alone."""
    nodes = (node["Resources"] for node in ray.nodes() if node["Alive"])
    return int(max((node.get("memory", 0.0) for node in nodes), default=0.0))


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


def settle(place: Place, linger: float = REFUSED_SECONDS) -> Place:
    """The place as this worker's node sees it; threads and shapes of the process are set to it.

    NodeRefused, after `linger` seconds, where its node may not work.
    """
    torch.set_num_threads(place.resources.cpus)
    SHAPES.update(place.shapes)
    if place.gate is not None:
        place.gate.check(linger)
    for folder, address in place.inputs.items():
        have_input(folder, address)
    return at_node(place)
