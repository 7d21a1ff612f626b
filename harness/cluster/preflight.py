"""What is looked at on every node before anything expensive: code, versions, data, weights, room.

A row says which images, weights and code it is of. On another machine that is true only if it has
the same, so each node tells what it reads, and the driver compares.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from benchmarks.base import DataError
from benchmarks.parts.content import fingerprint
from harness.cell import Cell, Data
from harness.cluster.relay import Home
from harness.features import open_split
from harness.registry import UsageError
from harness.rows import code_sha256
from harness.store.copies import INPUTS, have_input
from methods.parts.backbone import file_sha256

VERSIONS = ("ray", "torch", "timm")
PATIENCE = 600
"""Seconds in which a node has to answer; it hashes all images."""


def what_is_here(
    cells: Sequence[Cell], home: Home | None, inputs: Mapping[Path, str]
) -> dict[str, Any]:
    """What this node has of what the cells read, in words that can be compared."""
    found: dict[str, Any] = {f"version of {name}": version(name) for name in VERSIONS}
    found["version of Python"] = platform.python_version()
    found["code of lafite-bench"] = code_sha256()
    for folder, address in inputs.items():
        found[f"copy of {address}"] = _copied(folder, address)
    for data in {(cell.data, cell.split) for cell in cells}:
        found[f"images of {data[0].label} ({data[1]})"] = _images(*data)
    for weights in {cell.weights for cell in cells if cell.weights}:
        found[f"weights {weights}"] = file_sha256(weights) if weights.is_file() else "no such file"
    found["out"] = home is None or home.seen
    return found


def _copied(folder: Path, address: str) -> str:
    try:
        have_input(folder, address)
    except (UsageError, OSError) as error:
        return str(error).splitlines()[0]
    return "had"


def _images(data: Data, split: Any) -> str:
    try:
        train = data.open_kept()
        scored, samples = open_split(data, split)
        return fingerprint(train, train.train(data.categories)) + fingerprint(scored, samples)
    except (DataError, UsageError) as error:
        return str(error).splitlines()[0]


def preflight(cells: Sequence[Cell], home: Home) -> list[str]:
    """Look at every other node; returns the names of those that don't see the driver's folder.

    UsageError, a line for each fault and naming the node, for other code, versions, images or
    weights than this command has.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return []
    remote = ray.remote(num_cpus=0, max_retries=2)(what_is_here)
    asked = {
        node["NodeManagerAddress"]: remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(cells, home, dict(INPUTS))
        for node in others
    }
    mine, faults, apart = what_is_here(cells, home, INPUTS), [], []
    for name, answer in asked.items():
        try:
            theirs = ray.get(answer, timeout=PATIENCE)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            why = _first_line(error)
            faults.append(f"node {name}: does not answer ({why}); is this package there?")
            continue
        if not theirs.pop("out"):
            apart.append(name)
        faults += [
            f"node {name}: {what}: {_short(theirs.get(what, 'missing'))}, here {_short(value)}; "
            "make both the same"
            for what, value in mine.items()
            if what != "out" and theirs.get(what) != value
        ]
    if faults:
        raise UsageError("\n".join(faults))
    return apart


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _short(value: Any) -> str:
    text = str(value)
    return text[:12] if len(text) in (32, 40, 64) and text.isalnum() else text
