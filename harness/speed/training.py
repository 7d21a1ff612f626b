"""Training and scoring with each means of speed alone and all together, beside plain PyTorch.

One run, one machine, random features: what a preset costs does not depend on what it learns.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException

from harness.memory import peak_memory, reset_peak_memory
from harness.options import RaceOptions, Say
from harness.registry import UsageError, did_you_mean, load
from kernels._formats import native_bfloat16
from methods.parts.accelerating import compile_in_place, why_not
from methods.parts.batches import Batches
from methods.parts.shapes import feature_channels
from methods.parts.training import Recipe, optimise

TIMED = ("paper", "quick", "smoke")
"""Presets that every method has."""
NETWORKS = {"lafite": "unet", "uniad": "network"}
"""The methods that are trained by gradients, and the name of what is trained in each."""
ROUNDS = 5
"""Timed rounds after one that warms up; their median counts."""
IMAGES = 128
"""Images of a round, and at least one batch: few would measure the moment."""
LARGE = 100_000_000
"""Parameters above which a CPU takes minutes a step, so that it gets two images and one round."""
PATIENCE = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How to train and score: plain PyTorch but for what is named."""

    name: str
    channels_last: bool = False
    bfloat16: bool = False
    fused: bool = False
    compiled: bool = False


ON_CPU = Way(name="all that a CPU uses", bfloat16=True, fused=True)
WAYS = (
    Way(name="plain float32, eager"),
    Way(name="channels-last", channels_last=True),
    Way(name="bfloat16 autocast", bfloat16=True),
    Way(name="fused AdamW", fused=True),
    Way(name="torch.compile", compiled=True),
    ON_CPU,
    replace(ON_CPU, name="all that a GPU uses", channels_last=True, compiled=True),
    # The first once more: where the two differ, the machine was busy and no ratio counts.
    Way(name="plain, once more"),
)


class Speed(NamedTuple):
    """Images per second in training and in scoring, and the peak memory of both."""

    train: float
    score: float
    peak: int


def race(options: RaceOptions, say: Say) -> Iterator[str]:
    """Lines as they are measured: every way beside plain PyTorch, then one worker and two."""
    preset = options.preset
    if preset not in TIMED:
        raise UsageError(f"--preset {preset}: {did_you_mean(preset, TIMED)}")
    os.environ["LAFITE_ACCELERATE"] = "0"  # each way says itself what it uses
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    where = torch.cuda.get_device_name(0) if device.type == "cuda" else "CPU"
    yield f"training: preset {preset}, {where}, {torch.get_num_threads()} threads; scoring: k = 0"
    for name in NETWORKS:
        yield from _lines(name, preset, device)


def _lines(name: str, preset: str, device: torch.device) -> Iterator[str]:
    plain: Speed | None = None
    large = False
    for way in WAYS:
        if plain and (reason := _left_out(way, large, device)):
            yield f"{way.name:22s} skipped: {reason}"
            continue
        runner = Runner(name, preset, way, device)
        speed = runner.speed()
        if plain is None:
            plain, large = speed, runner.large
            yield f"{name}: {runner.parameters / 1e6:.1f} million parameters, batch {runner.batch}"
            yield f"{'':22s} {'training':>18s} {'scoring':>20s} {'peak':>9s}"
        yield (
            f"{way.name:22s} {speed.train:8.2f} /s {speed.train / plain.train:5.2f} x "
            f"{speed.score:8.2f} /s {speed.score / plain.score:5.2f} x "
            f"{speed.peak / 2**30:5.1f} GiB"
        )
        del runner  # before the next one is built: each may fill most of the memory
    if device.type == "cpu" and not large:
        presets = load("methods", name).presets
        # Gradients are summed once a batch: how much two workers gain depends on its size.
        for batch in sorted({presets[word].config.batch_size for word in (preset, "paper")}):
            alone, both = workers(name, preset, batch)
            yield f"{f'1 worker, batch {batch}':22s} {alone:8.2f} /s {1:5.2f} x"
            yield f"{f'2 workers, batch {batch}':22s} {both:8.2f} /s {both / alone:5.2f} x"


def _left_out(way: Way, large: bool, device: torch.device) -> str:
    """Why a way is not timed; empty if it is."""
    if way.name == "bfloat16 autocast" and not native_bfloat16(device):
        return "no fast products of bfloat16 here: they are done in float32"
    if large and way not in (ON_CPU, WAYS[-1]):
        return "so large a network takes a CPU minutes"
    return why_not() if way.compiled else ""


class Runner:
    """One method that trains on random features, and scores them, in one way."""

    def __init__(
        self, name: str, preset: str, way: Way, device: torch.device, batch: int | None = None
    ) -> None:
        reset_peak_memory()
        declared = load("methods", name)
        config, knobs = declared.presets[preset]
        config = replace(config, precision="bfloat16" if way.bfloat16 else "float32")
        self.method: Any = declared.method(config).to(device)
        self.knobs = replace(knobs, k=0)  # searches are timed as kernels
        self.network: nn.Module = getattr(self.method, NETWORKS[name])
        self.parameters = sum(p.numel() for p in self.network.parameters())
        self.large = self.parameters > LARGE and device.type == "cpu"
        self.batch = batch or (2 if self.large else config.batch_size)
        self.rounds, steps = (1, 1) if self.large else (ROUNDS, -(-IMAGES // self.batch))
        if way.channels_last:
            self.network.to(memory_format=torch.channels_last)
        if way.compiled:
            compile_in_place(self.network)
        self.recipe = Recipe(
            epochs=1 + self.rounds,
            batch_size=self.batch,
            learning_rate=1e-4,
            optimiser="adamw",
            weight_decay=0.01,
            fused=way.fused,
            precision=config.precision,
        )
        channels, grid = feature_channels(self.method.inputs(config)), config.feature_size
        self.features = torch.randn(steps * self.batch, channels, grid, grid)
        self.keys = [str(i) for i in range(len(self.features))]

    def speed(self) -> Speed:
        """What this way gives."""
        return Speed(self.train(), self.score(), peak_memory())

    def train(self) -> float:
        """Images per second of the gradient loop, both ranks together where there are two."""
        times: list[float] = []
        optimise(
            self.network,
            self.method.losses,
            Batches(self.keys, lambda indices: self.features[list(indices)]),
            self.recipe,
            seed=0,
            on_progress=lambda told: times.append(_now()),
        )
        return len(self.features) / statistics.median(b - a for a, b in pairwise(times))

    def score(self) -> float:
        """Images per second of scoring one batch."""
        batch = self.features[: self.batch], self.keys[: self.batch]
        times = [_now()]
        for _ in range(1 + self.rounds):
            self.method.score(*batch, self.knobs).images.cpu()
            times.append(_now())
        return self.batch / statistics.median(b - a for a, b in pairwise(times[1:]))


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def workers(name: str, preset: str, batch: int) -> tuple[float, float]:
    """Images per second of training on one worker and on two, one thread each (gloo)."""
    with tempfile.TemporaryDirectory() as folder:
        run: Any = torch.multiprocessing.spawn  # type: ignore[attr-defined]
        speeds = Path(folder) / "speeds"
        try:
            run(_worker, (name, preset, batch, Path(folder)), nprocs=2)
        except ProcessExitedException:
            # gloo may abort a process whose peer closed first; then all was measured before.
            if not speeds.exists():
                raise
        alone, both = json.loads(speeds.read_text())
    return alone, both


def _worker(rank: int, name: str, preset: str, batch: int, folder: Path) -> None:
    """The first trains alone, then both together."""
    torch.set_num_threads(1)
    device = torch.device("cpu")
    alone = Runner(name, preset, ON_CPU, device, batch).train() if rank == 0 else 0.0
    meet = f"file://{folder}/meet"
    dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=2, timeout=PATIENCE)
    both = Runner(name, preset, ON_CPU, device, batch).train()
    if rank == 0:
        (folder / "speeds").write_text(json.dumps([alone, both]))
    dist.barrier()  # or the other may still be sending when this process ends
    dist.destroy_process_group()
