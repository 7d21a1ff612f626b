"""Gaussian diffusion as functions over a noise predictor.

A corruption step t runs from 0 (clean) to T; `alpha_bar[t]` is the share of signal left, with
`alpha_bar[0] = 1`. The predictor gets (noisy (B, ...), steps (B,) int64) and returns the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]


def cosine_schedule(steps: int) -> Tensor:
    """alpha_bar (T + 1,) float64 of Nichol and Dhariwal 2021: s = 0.008, beta at most 0.999."""
    time = torch.arange(steps + 1, dtype=torch.float64) / steps
    level = torch.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2
    beta = (1 - level[1:] / level[:-1]).clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)])


def corrupt(clean: Tensor, t: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """Eq. 8: the state after t steps, sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) noise."""
    level = alpha_bar[t].to(clean).view(-1, *[1] * (clean.dim() - 1))
    return level.sqrt() * clean + (1 - level).sqrt() * noise


def ddim_steps(t: int, steps: int) -> list[int]:
    """Evenly spaced corruption steps from t down to 0, `steps` moves in all."""
    if not 1 <= steps <= t:
        raise ValueError(f"steps={steps}: DDIM needs between 1 and t={t} of them")
    return [round(t * i / steps) for i in range(steps, -1, -1)]


def ddim_denoise(
    noisy: Tensor, predict: Predictor, t: int, steps: int, alpha_bar: Tensor
) -> Tensor:
    """Eq. 7 with eta = 0: from the state at step t back to a clean sample."""
    path = ddim_steps(t, steps)
    for now, then in pairwise(path):
        level, lower = alpha_bar[now].item(), alpha_bar[then].item()
        moment = torch.full((len(noisy),), now, device=noisy.device)
        noise = predict(noisy, moment)
        clean = (noisy - math.sqrt(1 - level) * noise) / math.sqrt(level)
        noisy = math.sqrt(lower) * clean + math.sqrt(1 - lower) * noise
    return noisy
