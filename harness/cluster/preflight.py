"""Every node is looked at before anything expensive: code, versions, data, weights.

A row says which images, weights and code it is of. On another machine that is true only if it has
the same, so each node tells what it reads, and the driver compares. A node that joins later is held
to the same before it works.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
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
from harness.work.copies import have_input
from harness.work.cost import memory_of
from harness.work.features import open_split
from harness.work.memory import machine_memory
from harness.work.rows import code_sha256
from methods.parts.backbone import file_sha256
from methods.parts.progress import quiet
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


class Equipment(NamedTuple):
    """The resources and software of a node."""

    same: dict[str, str]
    """Facts that have to be the same on all, in words that can be compared."""
    gpus: int
    memory: int
    """Bytes of main memory that the machine has in all."""
    sees: bool
    """Whether it sees the folder of results."""


@dataclass(frozen=True)
class Gate:
    """The demands on a node, and those of the nodes that were looked at before work began."""

    cells: tuple[Cell, ...]
    inputs: Mapping[Path, str]
    home: Home
    mine: Mapping[str, str]
    known: frozenset[str]

    def check(self, linger: float) -> None:
        """NodeRefused, after `linger` seconds, where this node has not what the command has.

        It is looked at once a node.
        """
        node = ray.get_runtime_context().get_node_id()
        if node in self.known:
            return
        verdict = own_folder(self.home.mark) / f"gate-{node}"
        with locked(verdict.with_suffix(".lock"), quiet):
            if not verdict.exists():
                theirs = look(self.cells, self.inputs, self.home)
                verdict.write_text("\n".join(_differences(self.mine, theirs.same)))
        if faults := verdict.read_text().splitlines():
            time.sleep(linger)
            raise NodeRefused(f"node {ray.util.get_node_ip_address()}: {faults[0]}", node)


def look(cells: Sequence[Cell], inputs: Mapping[Path, str], home: Home) -> Equipment:
    """This node's equipment, with the data and weights that the cells read."""
    same = {f"version of {name}": version(name) for name in VERSIONS}
    same["version of Python"] = platform.python_version()
    same["code of lafite-bench"] = code_sha256()
    for method in {cell.method for cell in cells}:
        if package := source_of("methods", method):
            same[f"package of {method}"] = package
    for path, address in inputs.items():
        same[f"copy of {address}"] = _told(have_input, path, address)
    for data, split in {(cell.data, cell.role.split) for cell in cells}:
        same[f"images of {data.label} ({split})"] = _told(_images, data, split)
    for weights in {cell.weights for cell in cells if cell.weights}:
        same[f"weights {weights}"] = file_sha256(weights) if weights.is_file() else "no such file"
    return Equipment(same, torch.cuda.device_count(), machine_memory(), home.seen)


def _told(ask: Callable[..., object], *about: object) -> str:
    try:
        return str(ask(*about))
    except (DataError, UsageError, OSError) as error:
        return first_line(error)


def _images(data: Data, split: Any) -> str:
    train = data.open_kept()
    scored, samples = open_split(data, split)
    return fingerprint(train, train.train(data.categories)) + fingerprint(scored, samples)


def preflight(
    cells: Sequence[Cell], inputs: Mapping[Path, str], home: Home, say: Say, *, on_gpu: bool
) -> tuple[list[str], Gate]:
    """Look at every node; the names of those that don't see the driver's folder, and the gate.

    UsageError, a line for each fault and naming the node, for other code, versions, images or
    weights than this command has, a GPU that torch does not see, or a cell that no node can hold.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    remote = ray.remote(num_cpus=0, max_retries=2)(look)
    asked = {
        name: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False),
            num_gpus=min(0.01, node["Resources"].get("GPU", 0)),
        ).remote(cells, inputs, home)
        for name, node in nodes.items()
        if name != here
    }
    mine = look(cells, inputs, home)
    faults, apart, memory = list[str](), list[str](), mine.memory
    for name, answer in asked.items():
        address = nodes[name]["NodeManagerAddress"]
        try:
            theirs = ray.get(answer, timeout=PATIENCE)
        except ray.exceptions.RayError as error:
            why = (str(error).strip() or type(error).__name__).splitlines()[-1]
            faults.append(f"node {address}: does not answer ({why}); is this package there?")
            continue
        apart += [] if theirs.sees else [address]
        memory = max(memory, theirs.memory)
        lacks = _differences(mine.same, theirs.same)
        if nodes[name]["Resources"].get("GPU") and not theirs.gpus:
            lacks.append("Ray counts a GPU there that torch does not see; install torch for it")
        faults += [f"node {address}: {lack}" for lack in lacks]
    given = max(node["Resources"].get("memory", 0) for node in nodes.values())
    faults += _too_large(cells, memory, int(given), say, on_gpu=on_gpu)
    if faults:
        raise UsageError("\n".join(faults))
    return apart, Gate(tuple(cells), inputs, home, mine.same, frozenset(nodes))


def _too_large(
    cells: Sequence[Cell], most: int, given: int, say: Say, *, on_gpu: bool
) -> list[str]:
    """The largest cell, if no machine can hold it; told if it needs more than Ray gives a task."""
    needs = {cell: memory_of(cell, on_gpu=on_gpu) for cell in cells}
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


def _differences(mine: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    return [
        f"{what}: {_short(theirs.get(what, 'missing'))}, here {_short(value)}; make both the same"
        for what, value in mine.items()
        if theirs.get(what) != value
    ]


def _short(text: str) -> str:
    return text[:12] if len(text) in (32, 40, 64) and text.isalnum() else text
