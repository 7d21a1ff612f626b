"""Every node is looked at before anything expensive: code, versions, data, weights, room.

A row says which images, weights and code it is of. On another machine that is true only if it has
the same, so each node tells what it reads, and the driver compares. A node that joins later is held
to the same before it works.
"""

from __future__ import annotations

import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.base import DataError
from benchmarks.parts.content import fingerprint
from harness.cluster.relay import Home, own_folder
from harness.plan.cell import Cell, Data
from harness.plan.options import Say
from harness.plan.registry import UsageError, first_line, source_of
from harness.work.cache import HEADROOM, FeatureCache, missing_features
from harness.work.copies import have_input
from harness.work.cost import feature_bytes, memory_of
from harness.work.features import open_split
from harness.work.memory import machine_memory
from harness.work.rows import code_sha256
from methods.base import quiet
from methods.parts.backbone import file_sha256
from results.files import locked

VERSIONS = ("ray", "torch", "timm")
PATIENCE = 600
"""Seconds in which a node has to answer; it hashes all images."""
REFUSED_SECONDS = 20
"""Seconds a refused node waits before it fails, so that Ray does not retry there at once."""


class NodeRefused(RuntimeError):
    """A node that joined later has not what the command has; a task is then tried elsewhere.

    ``node`` is Ray's name for it.
    """

    def __init__(self, why: str, node: str) -> None:
        super().__init__(why, node)  # all of them, or it could not be pickled
        self.node = node

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Wanted:
    """The questions to every node."""

    cells: tuple[Cell, ...]
    cache: FeatureCache
    inputs: Mapping[Path, str]
    on_gpu: bool


class Found(NamedTuple):
    """The answers of a node."""

    same: dict[str, str]
    """Facts that have to be the same on all, in words that can be compared."""
    faults: list[str]
    """A line for each thing that the node lacks."""
    gpus: list[str]
    memory: int
    """Bytes of main memory that the machine has in all."""


@dataclass(frozen=True)
class Gate:
    """The demands on a node that joins later; those that were looked at may work."""

    wanted: Wanted
    mine: Mapping[str, str]
    known: frozenset[str]

    def check(self, mark: str, linger: float) -> None:
        """NodeRefused, after `linger` seconds, where this node has not what the command has.

        It is looked at once a node.
        """
        node = ray.get_runtime_context().get_node_id()
        if node in self.known:
            return
        verdict = own_folder(mark) / f"gate-{node}"
        with locked(verdict.with_suffix(".lock"), quiet):
            if not verdict.exists():
                faults = _differences(self.mine, what_is_here(self.wanted))
                verdict.write_text("\n".join(faults))
        if faults := verdict.read_text().splitlines():
            time.sleep(linger)
            raise NodeRefused(f"node {ray.util.get_node_ip_address()}: {faults[0]}", node)


def what_is_here(wanted: Wanted) -> Found:
    """This node's answers, of the data and weights that the cells read."""
    found = {f"version of {name}": version(name) for name in VERSIONS}
    found["version of Python"] = platform.python_version()
    found["code of lafite-bench"] = code_sha256()
    for method in {cell.method for cell in wanted.cells}:
        if package := source_of("methods", method):
            found[f"package of {method}"] = package
    for folder, address in wanted.inputs.items():
        found[f"copy of {address}"] = _copied(folder, address)
    for data in {(cell.data, cell.role.split) for cell in wanted.cells}:
        found[f"images of {data[0].label} ({data[1]})"] = _images(*data)
    for weights in {cell.weights for cell in wanted.cells if cell.weights}:
        found[f"weights {weights}"] = file_sha256(weights) if weights.is_file() else "no such file"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return Found(found, _no_room(wanted), gpus, machine_memory())


def _no_room(wanted: Wanted) -> list[str]:
    """A line for each disk of this node without room for what the cells will write."""
    root = wanted.cache.root
    there = next(folder for folder in (root, *root.parents) if folder.exists())
    needed = HEADROOM * sum(map(feature_bytes, missing_features(wanted.cells, wanted.cache)))
    if needed <= (free := shutil.disk_usage(there).free):
        return []
    return [
        f"{root}: features need {needed:,.0f} bytes, {free:,} are free; make room or set "
        "LAFITE_BENCH_CACHE to another disk"
    ]


def _copied(folder: Path, address: str) -> str:
    try:
        have_input(folder, address)
    except (UsageError, OSError) as error:
        return first_line(error)
    return "had"


def _images(data: Data, split: Any) -> str:
    try:
        train = data.open_kept()
        scored, samples = open_split(data, split)
        return fingerprint(train, train.train(data.categories)) + fingerprint(scored, samples)
    except (DataError, UsageError) as error:
        return first_line(error)


def preflight(wanted: Wanted, home: Home, say: Say) -> tuple[list[str], Gate]:
    """Look at every node; the names of those that don't see the driver's folder, and the gate.

    UsageError, a line for each fault and naming the node, for other code, versions, images or
    weights than this command has, too little room, or a GPU that torch does not see. `say` is told
    of GPUs that differ.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(num_cpus=0, max_retries=2)(_look)
    asked = {
        name: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            num_gpus=min(0.01, node["Resources"].get("GPU", 0)),
        ).remote(wanted, home)
        for name, node in nodes.items()
        if name != here
    }
    mine = what_is_here(wanted)
    faults = [f"this machine: {fault}" for fault in mine.faults]
    apart: list[str] = []
    cards, machines = {"this machine": mine.gpus}, [mine.memory]
    for name, answer in asked.items():
        address = nodes[name]["NodeManagerAddress"]
        try:
            theirs, sees = ray.get(answer, timeout=PATIENCE)
        except ray.exceptions.RayError as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[
                -1
            ]  # of a traceback there
            faults.append(f"node {address}: does not answer ({why}); is this package there?")
            continue
        apart += [] if sees else [address]
        cards[address] = theirs.gpus
        machines.append(theirs.memory)
        lacks = _differences(mine.same, theirs)
        if nodes[name]["Resources"].get("GPU") and not theirs.gpus:
            lacks.append("Ray counts a GPU there that torch does not see; install torch for it")
        faults += [f"node {address}: {lack}" for lack in lacks]
    given = max(node["Resources"].get("memory", 0) for node in nodes.values())
    faults += _too_large(wanted, max(machines), int(given), say)
    if faults:
        raise UsageError("\n".join(faults))
    if len({card for names in cards.values() for card in names}) > 1:
        say(f"GPUs differ, and so does time: {'; '.join(_cards(cards))}")
    return apart, Gate(wanted, mine.same, frozenset(nodes))


def _too_large(wanted: Wanted, most: int, given: int, say: Say) -> list[str]:
    """The largest cell, if no machine can hold it; told if it needs more than Ray gives a task."""
    needs = {cell: memory_of(cell, on_gpu=wanted.on_gpu) for cell in wanted.cells}
    cell = max(needs, key=needs.__getitem__, default=None)
    if cell is None or (need := needs[cell]) <= given:
        return []
    if need <= most:
        say(f"{cell.label} needs about {need:,} bytes of memory: it runs alone on its node")
        return []
    return [
        f"{cell.label}: needs about {need:,} bytes of memory, the largest machine has {most:,}; "
        "add a larger one, or make the bank or the batch smaller (--preset, --set)"
    ]


def _look(wanted: Wanted, home: Home) -> tuple[Found, bool]:
    return what_is_here(wanted), home.seen


def _differences(mine: Mapping[str, str], theirs: Found) -> list[str]:
    others = [
        f"{what}: {_short(theirs.same.get(what, 'missing'))}, here {_short(value)}; "
        "make both the same"
        for what, value in mine.items()
        if theirs.same.get(what) != value
    ]
    return others + theirs.faults


def _cards(cards: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{where} {', '.join(sorted(set(names)))}" for where, names in cards.items() if names]


def _short(text: str) -> str:
    return text[:12] if len(text) in (32, 40, 64) and text.isalnum() else text
