"""Frozen features beside plain timm: the same network, images and machine, in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.options import RaceOptions, Say
from methods.lafite import METHOD, LafitE
from methods.parts.backbone import Extractor, find_weights, load_backbone

IMAGES, REPEATS = 32, 5


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """A line for each way to extract the `quick` preset's features: images per second, ratio."""
    features = LafitE.inputs(METHOD.presets["quick"].config)
    path = find_weights(features)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images = torch.rand(IMAGES, 3, features.side, features.side, device=device)
    plain = load_backbone(features, path).to(device)
    full = Extractor(replace(features, precision="float32"), path).to(device)
    low = Extractor(features, path).to(device)
    ways: dict[str, Callable[[Tensor], object]] = {
        "plain timm, float32": plain,
        "ours, float32": full,
        "ours, bfloat16": low,
    }
    speeds = {name: _speed(way, images) for name, way in ways.items()}
    base = speeds["plain timm, float32"]
    where = f"{features.backbone} at {features.side} px, {torch.get_num_threads()} threads"
    yield f"backbone: {where}, batches of {IMAGES}, median of {REPEATS}"
    for name, speed in speeds.items():
        yield f"{name:24s} {speed:7.1f} images/s {speed / base:5.2f} x"


@torch.inference_mode()
def _speed(way: Callable[[Tensor], object], images: Tensor) -> float:
    way(images)
    spans = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        way(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        spans.append(time.perf_counter() - started)
    return len(images) / statistics.median(spans)
