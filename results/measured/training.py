"""Training and scoring with each means of speed alone and all together, beside plain PyTorch.

`python -m results.measured.training [PRESET]`, on random features: what a preset costs does not
depend on what it learns.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from harness.plan.registry import load
from harness.work.features import this_device
from harness.work.memory import peak_memory, reset_peak_memory
from kernels._formats import native_bfloat16
from methods.parts.accelerating import compile_in_place, why_not
from methods.parts.batches import Batches
from methods.parts.shapes import feature_channels
from methods.parts.training import Recipe, optimise

NETWORKS = {"lafite": "unet", "uniad": "network"}
"""Methods that are trained by gradients, and the name of what is trained in each."""
ROUNDS, IMAGES = 5, 128
"""Timed rounds after one that warms up, whose median counts; images of a round, or one batch."""
CPU = frozenset({"bfloat16", "fused"})
GPU = CPU | {"channels-last", "compiled"}
WAYS: dict[str, frozenset[str]] = {
    "plain float32, eager": frozenset(),
    "channels-last": frozenset({"channels-last"}),
    "bfloat16 autocast": frozenset({"bfloat16"}),
    "fused AdamW": frozenset({"fused"}),
    "torch.compile": frozenset({"compiled"}),
    "all that a CPU uses": CPU,
    "all that a GPU uses": GPU,
    # Where this differs from the first, the machine was busy and no ratio counts.
    "plain, once more": frozenset(),
}


def main(preset: str) -> None:
    """Print images per second and peak memory of every way, and ratios to the first."""
    os.environ["LAFITE_ACCELERATE"] = "0"  # each way says itself what it uses
    device = this_device()
    print(f"preset {preset}, {device.type}, {torch.get_num_threads()} threads; scoring: k = 0")
    for name, network in NETWORKS.items():
        plain: tuple[float, float] | None = None
        for way, means in WAYS.items():
            declared = load("methods", name)
            config, knobs = declared.presets[preset]
            config = replace(config, precision="bfloat16" if "bfloat16" in means else "float32")
            method = declared.method(config).to(device)
            if reason := left_out(means, device):
                print(f"{way:22s} skipped: {reason}")
                continue
            reset_peak_memory()
            # Searches are timed as kernels.
            knobs = replace(knobs, k=0)
            train, score = speeds(method, getattr(method, network), config, knobs, means)
            if plain is None:
                plain = train, score
                size = sum(p.numel() for p in getattr(method, network).parameters())
                print(f"{name}: {size / 1e6:.1f} million parameters, batch {config.batch_size}")
            print(
                f"{way:22s} training {train:8.2f} /s {train / plain[0]:5.2f} x   scoring "
                f"{score:8.2f} /s {score / plain[1]:5.2f} x   {peak_memory() / 2**30:5.1f} GiB",
                flush=True,
            )


def left_out(means: frozenset[str], device: torch.device) -> str:
    """Why a way is not timed; empty if it is."""
    if means == {"bfloat16"} and not native_bfloat16(device):
        return "no fast products of bfloat16 here: they are done in float32"
    return why_not() if "compiled" in means else ""


def speeds(
    method: Any, network: Any, config: Any, knobs: Any, means: frozenset[str]
) -> tuple[float, float]:
    """Images per second of the gradient loop, and of scoring one batch."""
    batch = config.batch_size
    if "channels-last" in means:
        network.to(memory_format=torch.channels_last)
    if "compiled" in means:
        compile_in_place(network)
    recipe = Recipe(
        epochs=1 + ROUNDS,
        batch_size=batch,
        learning_rate=1e-4,
        optimiser="adamw",
        weight_decay=0.01,
        fused="fused" in means,
        precision=config.precision,
    )
    channels, grid = feature_channels(method.inputs(config)), config.feature_size
    features = torch.randn(-(-IMAGES // batch) * batch, channels, grid, grid)
    ends = list[float]()
    batches = Batches(len(features), lambda indices: features[list(indices)])
    optimise(
        network, method.losses, batches, recipe, seed=0, on_progress=lambda _: ends.append(now())
    )
    train = len(features) / statistics.median(b - a for a, b in pairwise(ends))
    ends = [now()]
    for _ in range(1 + ROUNDS):
        method.score(features[:batch], knobs).images.cpu()
        ends.append(now())
    return train, batch / statistics.median(b - a for a, b in pairwise(ends[1:]))


def now() -> float:
    """Seconds, once the device is through with what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["quick"])
