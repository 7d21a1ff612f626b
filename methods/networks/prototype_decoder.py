"""INP-Former's network: normal prototypes of the image itself, and a decoder that mixes them.

Luo et al. 2025; official repository, `models/uad.py` and `models/vision_transformer.py`.

Shape legend: B images, T tokens, K prototypes, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.attention import Mlp, joined_heads, mirrored, split_heads, start_small

EPSILON = 1e-8
"""Epsilon of all layer norms."""


class PrototypeDecoder(nn.Module):
    """Tokens to groups of rebuilt tokens, and to how far they are from the image's prototypes."""

    def __init__(
        self, channels: int, groups: int, *, prototypes: int, decoder_layers: int, heads: int
    ) -> None:
        super().__init__()
        self.groups = groups
        self.prototypes = nn.Parameter(torch.randn(prototypes, channels))
        self.extract = Attended(channels, heads, cosine=False)
        self.bottleneck = Mlp(channels)
        layers = (Attended(channels, heads, cosine=True) for _ in range(decoder_layers))
        self.decoder = nn.ModuleList(layers)
        start_small(self)

    def forward(self, tokens_BTC: Tensor) -> tuple[list[Tensor], Tensor]:
        """The mean of all blocks (B, T, C) to the groups' reconstructions, each (B, T, C), and the
        gather loss (B,)."""
        prototypes_BKC = self.extract(self.prototypes.expand(len(tokens_BTC), -1, -1), tokens_BTC)
        gathered_B = gather_loss(tokens_BTC, prototypes_BKC)
        tokens_BTC = self.bottleneck(tokens_BTC)
        return mirrored(self.decoder, tokens_BTC, self.groups, prototypes_BKC), gathered_B


def gather_loss(tokens_BTC: Tensor, prototypes_BKC: Tensor) -> Tensor:
    """The mean over tokens of one minus the cosine with the nearest prototype: (B,).

    In the precision of the training: under autocast cosines are in bfloat16.
    """
    cosines_BTK = F.normalize(tokens_BTC, dim=2) @ F.normalize(prototypes_BKC, dim=2).mT
    return 1 - cosines_BTK.amax(dim=2).mean(dim=1)


class Attended(nn.Module):
    """Tokens attend to others, then an MLP is added.

    Prototypes gather from the image's tokens by a softmax, which is added to them as well. With
    `cosine` tokens become mixes of prototypes, and nothing of them passes around the attention:
    weights are ReLUs of cosines times a learned scale of each head, and need not sum to 1.
    """

    def __init__(self, channels: int, heads: int, *, cosine: bool) -> None:
        super().__init__()
        self.heads, self.cosine = heads, cosine
        # One norm for queries and keys, as officially.
        self.before_attention = nn.LayerNorm(channels, eps=EPSILON)
        if cosine:
            self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.leave = nn.Linear(channels, channels)
        self.before_mlp = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = Mlp(channels)

    def forward(self, x_BTC: Tensor, others_BKC: Tensor) -> Tensor:
        """Tokens (B, T, C) and those that they attend to (B, K, C) to tokens (B, T, C)."""
        query = split_heads(self.query(self.before_attention(x_BTC)), self.heads)
        inner_BKC = self.key_value(self.before_attention(others_BKC)).chunk(2, dim=2)
        key, value = (split_heads(part_BKC, self.heads) for part_BKC in inner_BKC)
        if self.cosine:
            cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
            x_BTC = self.leave(joined_heads(F.relu(cosines * self.scale) @ value))
        else:
            weights = torch.softmax(query @ key.mT * key.shape[-1] ** -0.5, dim=-1)
            x_BTC = x_BTC + self.leave(joined_heads(weights @ value))
        out_BTC: Tensor = x_BTC + self.mlp(self.before_mlp(x_BTC))
        return out_BTC
