"""Frozen features beside plain timm: the same network, images and machine, in one run."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from harness.options import RaceOptions, Say
from methods.lafite import METHOD, LafitE
from methods.parts import onnx
from methods.parts.backbone import Extractor, find_weights, load_backbone

IMAGES, BATCH, REPEATS = 32, 8, 5
"""A batch is that of `harness.features` on a CPU."""


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """A line for each way to extract the `quick` preset's features: images per second, ratio."""
    view = LafitE.inputs(METHOD.presets["quick"].config)
    path = find_weights(view)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = load_backbone(view, path).to(device)
    ways: dict[str, Callable[[Tensor], object]] = {
        "plain timm, float32": plain,
        "plain timm, bfloat16": _in_bfloat16(plain, device),
        f"ours in PyTorch, {view.format_on(device)}": Extractor(view, path).to(device),
    }
    with tempfile.TemporaryDirectory() as folder:
        if device.type == "cpu" and not onnx.why_not():
            program = Path(folder) / "backbone.onnx"
            onnx.export(plain, view.side, len(view.layers), program)
            in_onnx = onnx.Program(program, view.layers)
            ways["ours in ONNX Runtime, float32"] = Extractor(view, path, in_onnx)
        images = torch.rand(IMAGES, 3, view.side, view.side, device=device)
        speeds = {name: _speed(way, images) for name, way in ways.items()}
    isa, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    yield (
        f"backbone: {view.backbone} at {view.side} px, {isa}, {threads} threads, batches of "
        f"{BATCH}, median of {REPEATS}"
    )
    base = speeds["plain timm, float32"]
    for name, speed in speeds.items():
        yield f"{name:30s} {speed:7.1f} images/s {speed / base:5.2f} x"


def _in_bfloat16(
    network: Callable[[Tensor], object], device: torch.device
) -> Callable[..., object]:
    def run(images: Tensor) -> object:
        with torch.autocast(device.type, torch.bfloat16):
            return network(images)

    return run


@torch.inference_mode()
def _speed(way: Callable[[Tensor], object], images: Tensor) -> float:
    way(images[:BATCH])
    spans = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for batch in images.split(BATCH):
            way(batch)
        if images.is_cuda:
            torch.cuda.synchronize()
        spans.append(time.perf_counter() - started)
    return len(images) / statistics.median(spans)
