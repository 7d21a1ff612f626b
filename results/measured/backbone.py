"""Frozen features of the `quick` preset beside plain timm.

`python -m results.measured.backbone`
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

from harness.work.features import BATCH, this_device
from methods.lafite import METHOD, LafitE
from methods.parts import onnx
from methods.parts.backbone import Extractor, find_weights, load_backbone

SECONDS = 5.0
"""Time that each way is repeated for; its median counts."""


@torch.inference_mode()
def main() -> None:
    """Print images per second of each way, and the ratio to plain timm."""
    view, device = LafitE.inputs(METHOD.presets["quick"].config), this_device()
    path, batch = find_weights(view), BATCH[device.type]
    plain = load_backbone(view, path).to(device)
    ways: dict[str, Callable[[Tensor], object]] = {
        "plain timm, float32": plain,
        "plain timm, bfloat16": torch.autocast(device.type, torch.bfloat16)(plain.forward),
        f"ours in PyTorch, {view.format_on(device)}": Extractor(view, path).to(device),
    }
    if device.type == "cpu" and not onnx.why_not():
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "backbone.onnx"
            onnx.export(plain, view.side, len(view.layers), program)
            in_onnx = onnx.Program(program, view.layers)
        ways["ours in ONNX Runtime, float32"] = Extractor(view, path, in_onnx)
    isa, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    print(f"{view.backbone} at {view.side} px, {isa}, {threads} threads, batches of {batch}")
    images = torch.rand(batch, 3, view.side, view.side, device=device)
    speeds: list[float] = []
    for name, way in ways.items():
        timer = Timer("way(images)", globals={"way": way, "images": images}, num_threads=threads)
        speeds.append(batch / timer.blocked_autorange(min_run_time=SECONDS).median)
        print(f"{name:30s} {speeds[-1]:7.1f} images/s {speeds[-1] / speeds[0]:5.2f} x")


if __name__ == "__main__":
    main()
