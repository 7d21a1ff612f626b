"""Gaussian diffusion as functions over a noise predictor.

A corruption step t runs from 0 (clean) to T; `alpha_bar[t]` is the share of signal left, with
`alpha_bar[0] = 1`. The predictor maps noisy samples and their steps, int64, to the noise.

Shape legend: B samples, X the axes of a sample, N = T + 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Predictor = Callable[[Tensor, Tensor], Tensor]


def cosine_schedule(steps: int) -> Tensor:
    """alpha_bar (T + 1,) float64 of Nichol and Dhariwal 2021: s = 0.008, beta at most 0.999."""
    time_N = torch.arange(steps + 1, dtype=torch.float64) / steps
    level_N = torch.cos((time_N + 0.008) / 1.008 * math.pi / 2) ** 2
    beta_T = (1 - level_N[1:] / level_N[:-1]).clamp(max=0.999)
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta_T, dim=0)])


def min_snr_weights(alpha_bar_N: Tensor) -> Tensor:
    """The weights (N,) of a loss of predicted noise: min(SNR, 5) / SNR (Hang et al. 2023, arXiv
    2303.09556)."""
    snr_N = alpha_bar_N / (1 - alpha_bar_N)
    return snr_N.clamp(max=5) / snr_N


def corrupt(clean_BX: Tensor, steps_B: Tensor, noise_BX: Tensor, alpha_bar_N: Tensor) -> Tensor:
    """Eq. 8: the state after t steps, sqrt(alpha_bar_t) clean + sqrt(1 - alpha_bar_t) noise."""
    level_B1 = alpha_bar_N[steps_B].to(clean_BX).view(-1, *[1] * (clean_BX.dim() - 1))
    return level_B1.sqrt() * clean_BX + (1 - level_B1).sqrt() * noise_BX


def ddim_steps(t: int, steps: int) -> list[int]:
    """`steps` + 1 evenly spaced corruption steps from t down to 0."""
    return [round(t * i / steps) for i in range(steps, -1, -1)]


def ddim_denoise(
    noisy_BX: Tensor, predict: Predictor, t: int, steps: int, alpha_bar: Sequence[float]
) -> Tensor:
    """Eq. 7 with eta = 0: from the state at step t back to a clean sample, in `steps` steps."""
    for step, next_step in pairwise(ddim_steps(t, steps)):
        level, next_level = alpha_bar[step], alpha_bar[next_step]
        noise_BX = predict(noisy_BX, torch.full((len(noisy_BX),), step, device=noisy_BX.device))
        clean_BX = (noisy_BX - math.sqrt(1 - level) * noise_BX) / math.sqrt(level)
        noisy_BX = math.sqrt(next_level) * clean_BX + math.sqrt(1 - next_level) * noise_BX
    return noisy_BX
