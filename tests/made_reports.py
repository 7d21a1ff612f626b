"""Folders of made results, with all that a report shows, for tests of the HTML page."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from made_rows import made_row
from PIL import Image
from scipy import ndimage

from results import table
from results.evidence import ALARM, COMMON, FOUND, MISS, Evidence, write_evidence
from results.identity import POOLED
from results.metrics import METRICS

IMAGES, POINTS, SIZE = 60, 240, 128
KINDS = (ALARM, MISS, FOUND, ALARM, MISS, FOUND, ALARM, MISS, COMMON, COMMON, COMMON, COMMON)
"""Of the first images, every third of which is normal."""


def publish(
    out: Path,
    benchmark: str,
    categories: Sequence[str],
    method: str,
    seed: int = 0,
    *,
    evidence: bool = True,
    **changes: Any,
) -> str:
    """A finished cell as a run would leave it; its id."""
    random = np.random.default_rng([seed, *method.encode(), *benchmark.encode()])
    cell_id = f"{random.integers(2**62):016x}"
    write_cell(out, cell_id, {"benchmark": benchmark, "method": method, "seed": seed} | changes, [
        (category, metric, 0.6 + 0.4 * float(random.random()))
        for category in (*categories, POOLED)
        for metric in METRICS
        if category != POOLED or metric.startswith("image_")
    ])  # fmt: skip
    if evidence:
        _write_evidence(out, cell_id, categories, random)
    return cell_id


def write_cell(
    out: Path, cell_id: str, names: Mapping[str, Any], values: Sequence[tuple[str, str, float]]
) -> None:
    """The part of a finished cell with these values of (category, metric)."""
    base = made_row(
        cell_id=cell_id, preset="paper", fit_seconds=100.0,
        images_per_second=5.0 + len(cell_id), peak_memory_bytes=2**31,
        config_json='{"epochs": 1000}', knobs_json='{"t": 200}', data_fingerprint="d" * 32,
        weights_sha256="w" * 64, code_version="0.1.0",
    )  # fmt: skip
    rows = [
        base | names | {"category": category, "metric": metric, "value": value}
        for category, metric, value in values
    ]
    table.write_part(table.part_path(out, cell_id), rows)


def _write_evidence(
    out: Path, cell_id: str, categories: Sequence[str], random: np.random.Generator
) -> None:
    scores, curves, pictures = [], [], []
    for category in categories:
        name = {"cell_id": cell_id, "category": category}
        labels = np.arange(IMAGES) % 3 > 0
        values = random.normal(labels, 0.7).astype(np.float32)
        for number, (label, score) in enumerate(zip(labels, values, strict=True)):
            kind = "crack" if label else "good"
            key = {"key": f"{category}/test/{kind}/{number:03d}.png", "defect": kind}
            scores.append(name | key | {"label": bool(label), "score": float(score)})
            if number < len(KINDS):
                pictures.append(name | key | _pictures(number, bool(label), float(score)))
        x = np.linspace(0, 1, POINTS)
        points = zip(x**3, x**0.5, x, strict=True)
        curves += [name | {"fpr": a, "tpr": b, "pro": c} for a, b, c in points]
    path = table.scores_path(out, cell_id)
    table.write_rows(path, scores, table.SCORES_SCHEMA)
    write_evidence(out, cell_id, Evidence(curves, pictures))


def _pictures(number: int, defective: bool, score: float) -> dict[str, Any]:
    return {
        "kind": KINDS[number],
        "score": score,
        "image": _grain(number),
        "mask": spot(0.3, 0.05) if defective else None,
        "map": spot(0.7 if KINDS[number] == MISS else 0.3, 0.2),
        "low": 0.0,
        "high": 2.0,
        "level": 0.5,
        "licence": "made for tests",
        "source": "tests/made_reports.py",
    }


@cache
def spot(place: float, radius: float) -> bytes:
    """A grey picture that is bright around a point of its diagonal, and fades at its radius."""
    far = np.hypot(*(np.mgrid[:SIZE, :SIZE] / SIZE - place))
    file = io.BytesIO()
    Image.fromarray((255 * (1 - far / radius).clip(0, 1) ** 0.5).astype(np.uint8)).save(
        file, "WEBP"
    )
    return file.getvalue()


@cache
def _grain(number: int) -> bytes:
    """A picture of about 4.5 kB, as much as real ones take."""
    random = np.random.default_rng(number)
    grain = ndimage.gaussian_filter(random.normal(128, 300, (SIZE, SIZE, 3)), (2, 2, 0))
    file = io.BytesIO()
    Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(file, "WEBP", quality=75)
    return file.getvalue()
