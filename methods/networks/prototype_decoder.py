"""INP-Former's network: normal prototypes of the image itself, and a decoder that mixes them.

Luo et al. 2025; official repository, `models/uad.py` and `models/vision_transformer.py`.

Shape legend: B images, T tokens, K prototypes, C channels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.attention import Mlp, grouped, joined_heads, split_heads, start_small

EPSILON = 1e-8
"""Epsilon of all layer norms."""


class PrototypeDecoder(nn.Module):
    """Tokens to groups of rebuilt tokens, and to how far they are from the image's prototypes."""

    def __init__(
        self, channels: int, groups: int, *, prototypes: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        self.groups = groups
        self.prototypes = nn.Parameter(torch.randn(prototypes, channels))
        self.extract = Extraction(channels, heads)
        self.bottleneck = Mlp(channels)
        self.decoder = nn.ModuleList(Reconstruction(channels, heads) for _ in range(layers))
        start_small(self)

    def forward(self, tokens_BTC: Tensor) -> tuple[list[Tensor], Tensor]:
        """The mean of all blocks (B, T, C) to the groups' reconstructions, each (B, T, C), and the
        gather loss (B,)."""
        prototypes_BKC = self.extract(self.prototypes.expand(len(tokens_BTC), -1, -1), tokens_BTC)
        gathered_B = gather_loss(tokens_BTC, prototypes_BKC)
        tokens_BTC = self.bottleneck(tokens_BTC)
        rebuilt_BTC: list[Tensor] = []
        for block in self.decoder:
            tokens_BTC = block(tokens_BTC, prototypes_BKC)
            # The decoder mirrors the encoder: its last layers rebuild the shallowest blocks.
            rebuilt_BTC.insert(0, tokens_BTC)
        return grouped(rebuilt_BTC, self.groups), gathered_B


def gather_loss(tokens_BTC: Tensor, prototypes_BKC: Tensor) -> Tensor:
    """The mean over tokens of one minus the cosine with the nearest prototype: (B,).

    In the precision of the training: under autocast cosines are in bfloat16.
    """
    cosines_BTK = F.normalize(tokens_BTC, dim=2) @ F.normalize(prototypes_BKC, dim=2).mT
    return 1 - cosines_BTK.amax(dim=2).mean(dim=1)


class Extraction(nn.Module):
    """Prototypes attend to the image's tokens, once; attention and MLP are added to their input."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # One norm for queries and keys, as officially.
        self.before_attention = nn.LayerNorm(channels, eps=EPSILON)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.leave = nn.Linear(channels, channels)
        self.before_mlp = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = Mlp(channels)

    def forward(self, prototypes_BKC: Tensor, tokens_BTC: Tensor) -> Tensor:
        """Learned prototypes (B, K, C) and tokens (B, T, C) to the image's prototypes (B, K, C)."""
        query = split_heads(self.query(self.before_attention(prototypes_BKC)), self.heads)
        inner_BTC = self.key_value(self.before_attention(tokens_BTC)).chunk(2, dim=2)
        key, value = (split_heads(part_BTC, self.heads) for part_BTC in inner_BTC)
        weights = torch.softmax(query @ key.mT * key.shape[-1] ** -0.5, dim=-1)
        prototypes_BKC = prototypes_BKC + self.leave(joined_heads(weights @ value))
        out_BKC: Tensor = prototypes_BKC + self.mlp(self.before_mlp(prototypes_BKC))
        return out_BKC


class Reconstruction(nn.Module):
    """Tokens become mixes of prototypes: nothing of them passes around the attention.

    Weights are ReLUs of cosines times a learned scale of each head, and need not sum to 1.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(channels, eps=EPSILON)
        self.scale = nn.Parameter(torch.ones(heads, 1, 1))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.leave = nn.Linear(channels, channels)
        self.before_mlp = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = Mlp(channels)

    def forward(self, tokens_BTC: Tensor, prototypes_BKC: Tensor) -> Tensor:
        """Tokens (B, T, C) and prototypes (B, K, C) to tokens (B, T, C)."""
        query = split_heads(self.query(self.before_attention(tokens_BTC)), self.heads)
        inner_BKC = self.key_value(self.before_attention(prototypes_BKC)).chunk(2, dim=2)
        key, value = (split_heads(part_BKC, self.heads) for part_BKC in inner_BKC)
        cosines = F.normalize(query, dim=-1) @ F.normalize(key, dim=-1).mT
        mixed_BTC = self.leave(joined_heads(F.relu(cosines * self.scale) @ value))
        out_BTC: Tensor = mixed_BTC + self.mlp(self.before_mlp(mixed_BTC))
        return out_BTC
