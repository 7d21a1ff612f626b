"""The one gradient loop that all trained methods use.

Shape legend: B this rank's samples of a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from methods.base import Diverged, Keeper
from methods.parts.accelerating import accelerated, autocast
from methods.parts.batches import Batches, Draws
from methods.parts.dist import rank, total, world_size, wrap
from methods.parts.progress import OnProgress, Progress
from methods.parts.seeds import derive
from methods.parts.stable_adamw import StableAdamW


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of an optimisation; `batch_size` is that of all workers together.

    The schedule `step` multiplies the rate by `drop_to` after each share of the training in
    `drops`. `warm_cosine` rises from 0 in `warmup` steps, then falls to `drop_to` along a cosine.
    `iterations` end the training within an epoch.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    iterations: int | None = None
    optimiser: Literal["adam", "adamw", "stable_adamw"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    fused: bool = True
    schedule: Literal["step", "one_cycle", "constant", "warm_cosine"] = "step"
    drops: tuple[float, ...] = (0.8,)
    drop_to: float = 0.1
    warmup: int = 100
    clip: float | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def build(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of a network's parameters."""
        settings: dict[str, Any] = {
            "lr": self.learning_rate,
            "betas": self.betas,
            "eps": self.eps,
            "weight_decay": self.weight_decay,
        }
        if self.optimiser == "stable_adamw":
            return StableAdamW(network.parameters(), **settings)
        optimiser = torch.optim.Adam if self.optimiser == "adam" else torch.optim.AdamW
        return optimiser(network.parameters(), **settings, fused=self.fused)

    def steps(self, batches: int) -> int:
        """Steps of the whole training, of so many batches an epoch."""
        every = self.epochs * batches
        return every if self.iterations is None else min(every, self.iterations)

    def rate(self, done: float, steps: int = 1) -> float:
        """The factor on the learning rate when this share (0 to 1) of so many steps is done."""
        if self.schedule == "warm_cosine":
            return self._warm_cosine(round(done * steps), steps)
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "step":
            return self.drop_to ** sum(done >= share for share in self.drops)
        warm = 0.1
        if done < warm:
            return 0.04 + 0.96 * done / warm
        return 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))

    def _warm_cosine(self, step: int, steps: int) -> float:
        """Dinomaly's `WarmCosineScheduler`: 0 at the first step, 1 at the last of the warm-up."""
        warm = min(self.warmup, steps)
        if step < warm:
            return step / max(1, warm - 1)
        cosine = math.cos(math.pi * (step - warm) / (steps - warm))
        return self.drop_to + 0.5 * (1 - self.drop_to) * (1 + cosine)


def duration(config: Any, samples: int) -> dict[str, int | None]:
    """`epochs` and `iterations` of a Recipe for so many samples, of a Config that has both.

    Its iterations count where its epochs are None.
    """
    if config.epochs is not None:
        return {"epochs": config.epochs, "iterations": None}
    batches = -(-samples // config.batch_size)
    return {"epochs": -(-config.iterations // batches), "iterations": config.iterations}


def samples_seen(config: Any, samples: int) -> int:
    """The samples of all steps of a training on so many, as `duration`."""
    if config.epochs is not None:
        return int(config.epochs * samples)
    return int(config.iterations * samples // -(-samples // config.batch_size))


Losses = Callable[[nn.Module, Tensor, Draws], Tensor]


def optimise(
    network: nn.Module,
    losses_of: Losses,
    train: Batches,
    recipe: Recipe,
    seed: int,
    on_progress: OnProgress,
    keeper: Keeper | None = None,
) -> None:
    """Train `network` in place, to the end of the last epoch.

    `losses_of(network, inputs, draws)` returns one loss per sample (B,). Every draw derives from
    (seed, epoch, batch). A training that `keeper` resumes therefore equals a straight one; so does
    one on another number of ranks, but for rounding and dropout. Raises Diverged at the end of an
    epoch whose loss is not finite, ValueError where a batch has fewer samples than ranks.
    """
    batches = -(-len(train) // recipe.batch_size)
    if len(train) // batches < world_size():
        # A rank without a sample would leave the others waiting for its gradients.
        raise ValueError(
            f"batch_size={recipe.batch_size}: too small to give each of {world_size()} workers a "
            "sample of every batch; use fewer workers or a larger batch"
        )
    keeper = keeper or Keeper()
    device = next(network.parameters()).device
    wrapped = wrap(accelerated(network)).train()
    optimiser = recipe.build(network)
    steps = recipe.steps(batches)
    done = keeper.resume(optimiser)
    on_progress(Progress(stage="train", step=done, steps=recipe.epochs))
    for epoch in range(done, recipe.epochs):
        # Dropout draws from the global state: derived anew each epoch.
        torch.manual_seed(derive(seed, "dropout", epoch, rank()))
        running, seen = torch.zeros((), dtype=torch.float64, device=device), 0
        of_epoch = islice(train.epoch(epoch, recipe.batch_size), steps - epoch * batches)
        for index, batch in enumerate(of_epoch):
            factor = recipe.rate((epoch + index / batches) / (steps / batches), steps)
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * factor
            step_seed = derive(seed, "training draws", epoch, index)
            draws = Draws(batch, device, step_seed, step=epoch * batches + index)
            with autocast(device, recipe.precision):
                losses_B = losses_of(wrapped, batch.inputs.to(device), draws)
            # DDP averages over ranks; this way each sample weighs the same on uneven ranks too.
            loss = losses_B.float().sum() * world_size() / batch.size
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            if recipe.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), recipe.clip)
            optimiser.step()
            running += losses_B.detach().double().sum()
            seen += batch.size
        mean = float(total(running)) / seen
        if not math.isfinite(mean):
            raise Diverged(f"loss is {mean} in epoch {epoch + 1} of {recipe.epochs}")
        on_progress(Progress(stage="train", step=epoch + 1, steps=recipe.epochs, loss=mean))
        if rank() == 0:
            keeper.keep(epoch + 1, optimiser)
    network.eval()
