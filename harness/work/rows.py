"""Rows of the result table: what every one of them says about where it comes from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.base import Sample
from harness.plan.cell import Cell
from harness.plan.registry import first_line
from harness.store.store import Row
from harness.work.place import Place
from methods.base import Diverged
from results.metrics import Measured
from results.table import DONE, SCHEMA

PACKAGES = ("benchmarks", "harness", "kernels", "methods", "results")


def finished_rows(
    cell: Cell,
    place: Place,
    facts: Mapping[str, Any],
    metrics: Mapping[str, Mapping[str, Measured]],
) -> list[Row]:
    """One row for each category and metric of a finished cell."""
    common = {
        **_provenance(cell, place),
        **facts,
        "status": DONE,
        "error": None,
        "finished_at": datetime.now(UTC),
    }
    return [
        {
            **common,
            "category": category,
            "metric": metric,
            "value": measured.value,
            "reason": measured.reason or None,
        }
        for category, of_category in metrics.items()
        for metric, measured in of_category.items()
    ]


def failure_row(cell: Cell, place: Place, error: BaseException) -> Row:
    """The row of a cell that failed; what was not measured is null."""
    return {
        **dict.fromkeys(SCHEMA.names),
        **_provenance(cell, place),
        "status": "diverged" if isinstance(error, Diverged) else "error",
        "reason": first_line(error, kind=True),
        "error": f"{type(error).__name__}: {error}",
        "finished_at": datetime.now(UTC),
    }


def score_row(cell: Cell, sample: Sample, label: bool, score: float) -> Row:
    """One test image's score, and whether it was taken for anomalous."""
    return {
        "cell_id": cell.cell_id,
        "key": sample.key,
        "category": sample.category,
        "defect": sample.defect,
        "label": bool(label),
        "score": float(score),
    }


def code_version() -> str:
    """The package's version, and the commit where it runs from a checkout."""
    try:
        package = version("lafite-bench")
    except PackageNotFoundError:
        package = "0"
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return f"{package}+{git.stdout.strip()}" if git.returncode == 0 else package


@cache
def code_sha256() -> str:
    """Identity of this code by its content, wherever it lies and whatever its version says."""
    home, sha = Path(__file__).parents[2], hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((home / package).rglob("*.py")):
            sha.update(str(path.relative_to(home)).encode() + b"\0" + path.read_bytes())
    return sha.hexdigest()


def _provenance(cell: Cell, place: Place) -> Row:
    return {
        "cell_id": cell.cell_id,
        "mode": cell.mode,
        "preset": cell.preset,
        "profile": cell.profile,
        "benchmark": cell.data.name,
        "location": cell.data.location,
        "published_categories": cell.data.published_categories,
        "method": cell.method,
        "variant": cell.variant,
        "seed": cell.seed,
        "split": cell.role.label,
        "config_json": json.dumps(dataclasses.asdict(cell.config)),
        "knobs_json": json.dumps(dataclasses.asdict(cell.knobs)),
        "config_hash": cell.config_hash,
        "data_fingerprint": cell.data.train_fingerprint + cell.data.test_fingerprint,
        "images_fingerprint": cell.data.images_fingerprint,
        "weights_sha256": cell.weights_sha256,
        "device": _device_name(place.device),
        "python_version": platform.python_version(),
        "torch_version": torch.__version__,
        "ray_version": version("ray"),
        "timm_version": version("timm"),
        "code_version": place.code_version,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    isa = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()} cpu ({isa}), {torch.get_num_threads()} threads"
