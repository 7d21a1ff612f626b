"""Pieces of transformers that several decoders share.

Shape legend: B images, T tokens, C channels, H heads, N tokens and D channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(tokens_BTC: Tensor, heads: int) -> Tensor:
    """(B, H, T, C / H)."""
    split_BTHD: Tensor = tokens_BTC.unflatten(2, (heads, -1))
    return split_BTHD.transpose(1, 2)


def joined_heads(heads_BHTD: Tensor) -> Tensor:
    """(B, T, H D): the inverse of `split_heads`."""
    return heads_BHTD.transpose(1, 2).flatten(2)


def linear_attention(query_BHND: Tensor, key_BHND: Tensor, value_BHND: Tensor) -> Tensor:
    """phi(q) (phi(k)^T v) / (phi(q) . sum of phi(k)) with phi = elu + 1, no scale: (B, H, N, D).

    Katharopoulos et al. 2020, as Dinomaly has it (`LinearAttention2`), in float32. Where phi
    underflows to 0 for all of a token, which officially gives NaN, the result is 0.
    """
    # Where costs are counted, on the meta device, there is no autocast to leave.
    kind = "cpu" if query_BHND.is_meta else query_BHND.device.type
    with torch.autocast(kind, enabled=False):
        query_BHND, key_BHND = F.elu(query_BHND.float()) + 1, F.elu(key_BHND.float()) + 1
        mixed_BHDD = key_BHND.transpose(2, 3) @ value_BHND.float()
        sums_BHD1 = key_BHND.sum(dim=2)[..., None]
        weight_BHN1 = (query_BHND @ sums_BHD1).clamp(min=torch.finfo(torch.float32).tiny)
        out_BHND: Tensor = (query_BHND @ mixed_BHDD) / weight_BHN1
    return out_BHND


class Mlp(nn.Sequential):
    """Linear, GELU and linear, four times as wide between; dropout before, between and after."""

    def __init__(self, channels: int, *, dropout: float = 0.0, bias: bool = True) -> None:
        super().__init__(
            nn.Dropout(dropout),
            nn.Linear(channels, 4 * channels, bias=bias),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(4 * channels, channels, bias=bias),
            nn.Dropout(dropout),
        )


def start_small(network: nn.Module) -> None:
    """Linear layers start from a normal of deviation 0.01, cut at 0.03, with biases of 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.01, a=-0.03, b=0.03)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def mirrored(
    decoder: nn.ModuleList, tokens_BTC: Tensor, groups: int, *others: Tensor
) -> list[Tensor]:
    """The means (B, T, C) of so many runs of equally many of the decoder's layers, the last first.

    A decoder mirrors the encoder: its last layers rebuild the shallowest blocks.
    """
    outputs_BTC: list[Tensor] = []
    for layer in decoder:
        tokens_BTC = layer(tokens_BTC, *others)
        outputs_BTC.insert(0, tokens_BTC)
    return [run.mean(dim=0) for run in torch.stack(outputs_BTC).unflatten(0, (groups, -1))]
