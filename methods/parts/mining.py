"""Cosine losses between a transformer's tokens and their reconstruction that mine what is hard.

The loss of an image is one minus the cosine of all its tokens laid out flat as one vector. Mining
changes no loss: it scales the gradient that reaches each reconstructed token, by how far it is from
its target among the tokens of the whole batch, all ranks together.

Shape legend: B this rank's images, T tokens, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.parts.batches import Draws


def distances(target_BTC: Tensor, rebuilt_BTC: Tensor) -> Tensor:
    """One minus the cosine of each token with its reconstruction: (B, T) float32."""
    return 1 - F.cosine_similarity(target_BTC.float(), rebuilt_BTC.float(), dim=2)


def flat_loss(target_BTC: Tensor, rebuilt_BTC: Tensor) -> Tensor:
    """One minus the cosine of all tokens of an image as one vector: (B,) float32."""
    flat_BN = target_BTC.float().flatten(1), rebuilt_BTC.float().flatten(1)
    return 1 - F.cosine_similarity(*flat_BN, dim=1)


def easy_share(step: int, final: float, rise: int) -> float:
    """The share of tokens that count as easy: from 0 to `final` in `rise` steps, then constant."""
    return min(final * step / rise, final) if rise else final


def hard_mined(
    target_BTC: Tensor, rebuilt_BTC: Tensor, easy: float, factor: float, draws: Draws
) -> Tensor:
    """The flat loss (B,), with the gradient of the easier tokens times `factor`.

    Those are the ones below the k-th largest distance of the N in the batch, k = N (1 - easy)
    (Dinomaly, Guo et al. 2025; official repository, `global_cosine_hm_percent`).
    """
    with torch.no_grad():
        own_BT = distances(target_BTC, rebuilt_BTC)
        every_N = draws.whole(own_BT).flatten()
        hard = max(1, int(every_N.numel() * (1 - easy)))
        least = every_N.topk(hard, sorted=True).values[-1]
        factors_BT = torch.where(own_BT < least, factor, 1.0)
    return flat_loss(target_BTC, _scaled(rebuilt_BTC, factors_BT))


def softly_mined(target_BTC: Tensor, rebuilt_BTC: Tensor, power: float, draws: Draws) -> Tensor:
    """The flat loss (B,), with each token's gradient times (its distance / the mean)^power.

    The mean is that of the batch (INP-Former, Luo et al. 2025; official repository,
    `global_cosine_hm_adaptive`).
    """
    with torch.no_grad():
        own_BT = distances(target_BTC, rebuilt_BTC)
        # Cosines round: a token that is rebuilt exactly may lie just below 0.
        mean = draws.whole(own_BT).mean().clamp(min=torch.finfo(own_BT.dtype).eps)
        factors_BT = (own_BT.clamp(min=0) / mean) ** power
    return flat_loss(target_BTC, _scaled(rebuilt_BTC, factors_BT))


def _scaled(rebuilt_BTC: Tensor, factors_BT: Tensor) -> Tensor:
    """The tokens, with their gradients multiplied on the way back."""
    same_BTC = rebuilt_BTC.float()
    if same_BTC.requires_grad:
        # A view of its own, so that a second loss on the same tokens is not scaled with this one.
        same_BTC = same_BTC.view_as(same_BTC)
        same_BTC.register_hook(lambda gradient_BTC: gradient_BTC * factors_BT[..., None])
    return same_BTC
