"""Parts of Dinomaly and INP-Former beside independent computations of the same: linear attention,
mining, StableAdamW, the schedule."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from made_training import COUNT, PlainSteps, drawn, features, made, numbers, regress, served, small
from torch import Tensor, nn

from harness.plan.registry import load
from methods.dinomaly import Dinomaly
from methods.parts.attention import Mlp, linear_attention, start_small
from methods.parts.backbone import Extractor
from methods.parts.batches import Draws
from methods.parts.mining import easy_share, softly_mined
from methods.parts.progress import Progress
from methods.parts.stable_adamw import StableAdamW
from methods.parts.training import Recipe, duration, optimise, samples_seen


def test_linear_attention_is_the_quadratic_form() -> None:
    query, key, value = (2 * numbers(2, 3, 11, 5, seed=seed) for seed in range(3))
    scores = (F.elu(query) + 1) @ (F.elu(key) + 1).transpose(2, 3)
    wanted = scores / scores.sum(dim=3, keepdim=True) @ value
    torch.testing.assert_close(linear_attention(query, key, value), wanted)


def test_linear_attention_stays_finite_where_officially_it_does_not() -> None:
    query, key, value = numbers(1, 1, 4, 3), numbers(1, 1, 4, 3, seed=1), numbers(1, 1, 4, 3)
    query[0, 0, 2] = -200.0
    out = linear_attention(query, key, value)
    assert out.isfinite().all() and (out[0, 0, 2] == 0).all()


def test_linear_layers_start_small() -> None:
    mlp = Mlp(64)
    start_small(mlp)
    weight = mlp[1].weight.detach()
    # A normal that is cut at three deviations keeps 0.9866 of its deviation.
    assert float(weight.std()) == pytest.approx(0.00987, rel=0.03)
    assert float(weight.abs().max()) <= 0.03 and not mlp[1].bias.any()


def test_what_is_rebuilt_exactly_is_mined_without_nan() -> None:
    target = numbers(2, 5, 4)
    rebuilt = target.clone().requires_grad_()
    softly_mined(target, rebuilt, 3.0, drawn(2)).sum().backward()
    assert rebuilt.grad.isfinite().all()


def test_the_easy_share_rises_with_the_steps() -> None:
    assert [easy_share(step, 0.9, 1000) for step in (0, 500, 1000, 9000)] == [0, 0.45, 0.9, 0.9]
    assert easy_share(0, 0.9, 0) == 0.9


class Plain:
    """StableAdamW number by number, in Python."""

    def __init__(self, size: int) -> None:
        self.first, self.second, self.largest = [0.0] * size, [0.0] * size, [0.0] * size
        self.steps = 0

    def step(self, weights: list[float], gradient: list[float], rate: float) -> list[float]:
        self.steps += 1
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, gradient, strict=True)]
        self.second = [
            0.999 * v + 0.001 * g * g for v, g in zip(self.second, gradient, strict=True)
        ]
        self.largest = [max(a, b) for a, b in zip(self.largest, self.second, strict=True)]
        below = [math.sqrt(v) / math.sqrt(1 - 0.999**self.steps) + 1e-10 for v in self.largest]
        ratios = [g / d for g, d in zip(gradient, below, strict=True)]
        rms = math.sqrt(sum(r * r for r in ratios) / len(ratios))
        size = rate / (1 - 0.9**self.steps) / max(1.0, rms)
        return [
            w * (1 - rate * 0.01) - size * m / d
            for w, m, d in zip(weights, self.first, below, strict=True)
        ]


def test_stable_adamw_is_the_plain_steps() -> None:
    parameter = nn.Parameter(numbers(6).double())
    optimiser = StableAdamW([parameter], lr=0.1, betas=(0.9, 0.999), eps=1e-10, weight_decay=0.01)
    plain, weights = Plain(6), parameter.tolist()
    for step in range(12):
        # Small at first, then large: the surprise shortens the step; then small again: the largest
        # second moment stays.
        gradient = numbers(6, seed=step + 1).double() * (100.0 if step == 4 else 0.1)
        rate = 0.0 if step == 0 else 0.1 / step
        parameter.grad = gradient
        optimiser.param_groups[0]["lr"] = rate
        optimiser.step()
        weights = plain.step(weights, gradient.tolist(), rate)
        assert parameter.tolist() == pytest.approx(weights, rel=1e-9)


def official_rates(base: float, final: float, total: int, warm: int) -> np.ndarray:
    """`WarmCosineScheduler` of Dinomaly's repository, as its formula reads."""
    rise = np.linspace(0, base, warm)
    at = np.arange(total - warm)
    fall = final + 0.5 * (base - final) * (1 + np.cos(np.pi * at / len(at)))
    return np.concatenate([rise, fall])


def test_the_schedule_is_the_official_one_step_by_step() -> None:
    recipe = Recipe(
        epochs=99, batch_size=4, learning_rate=2e-3, schedule="warm_cosine", iterations=700
    )
    steps = recipe.steps(8)
    assert steps == 700
    found = [2e-3 * recipe.rate(step / steps, steps) for step in range(steps)]
    assert found == pytest.approx(official_rates(2e-3, 2e-4, 700, 100).tolist())


def test_iterations_end_the_training_within_an_epoch() -> None:
    """13 samples in three batches an epoch: eight steps are two epochs and two steps."""
    steps: list[int] = []
    told: list[Progress] = []

    def spying(network: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        steps.append(draws.step)
        return regress(network, values, draws)

    config = Dinomaly.Config(iterations=8, batch_size=5)
    lasting = duration(config, COUNT)
    assert lasting == {"epochs": 3, "iterations": 8}
    recipe = PlainSteps(batch_size=5, learning_rate=1e-2, **lasting)  # type: ignore[arg-type]
    optimise(small(), spying, features(), recipe, 0, told.append)
    assert steps == [*range(8)] and [p.step for p in told] == [0, 1, 2, 3]
    sizes = [len(batch.inputs) for epoch in range(3) for batch in made(COUNT).epoch(epoch, 5)]
    assert abs(samples_seen(config, COUNT) - sum(sizes[:8])) <= 1
    config = replace(config, epochs=2)
    assert duration(config, COUNT) == {"epochs": 2, "iterations": None}
    assert samples_seen(config, COUNT) == 26


@pytest.mark.parametrize(
    ("name", "lasting", "moved"),
    [
        # The first of two steps has a rate of 0, as officially.
        ("dinomaly", {"iterations": 2}, {"bottleneck", "decoder"}),
        ("inpformer", {"epochs": 1}, {"prototypes", "extract", "bottleneck", "decoder"}),
    ],
)
def test_a_step_of_the_paper_moves_all_that_is_trained(
    tmp_path: Path, name: str, lasting: dict[str, int], moved: set[str]
) -> None:
    """On the tokens of a small transformer with random weights."""
    declared, file = load("methods", name), tmp_path / "w.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), file)
    small = {"backbone": "vit_tiny_patch16_224", "weights": str(file), "resize": 80, "crop": 64}
    small |= {"heads": 3, "decoder_layers": 4, "batch_size": 2}
    method = declared.method(replace(declared.presets["paper"].config, **small, **lasting))
    before = {key: value.clone() for key, value in method.state_dict().items()}
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    values = Extractor(method.inputs(method.config), file)(pixels).half().float().clone()
    told: list[Progress] = []
    train = served(values)
    method.fit(train, on_progress=told.append)
    assert [p.step for p in told] == [0, 1] and told[1].loss is not None and told[1].loss < 3
    after = method.state_dict()
    assert {
        key.split(".")[1] for key in before if not torch.equal(before[key], after[key])
    } == moved
    scores = method.score(values, declared.presets["paper"].knobs)
    assert scores.maps.shape == (3, 64, 64) and scores.maps.isfinite().all()
