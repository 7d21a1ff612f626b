"""Dinomaly's network: a noisy bottleneck and a decoder that can't focus (Guo et al. 2025).

Shape legend: B images, T tokens, C channels.
"""

from __future__ import annotations

from torch import Tensor, nn

from methods.parts.attention import (
    Mlp,
    joined_heads,
    linear_attention,
    mirrored,
    split_heads,
    start_small,
)

EPSILON = 1e-8
"""Epsilon of the decoder's layer norms."""


class NoisyDecoder(nn.Module):
    """Tokens to groups of rebuilt tokens: what the first group of blocks gave comes last."""

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        decoder_layers: int,
        heads: int,
        dropout: float,
        mlp_bias: bool,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.bottleneck = Mlp(channels, dropout=dropout, bias=mlp_bias)
        self.decoder = nn.ModuleList(
            Block(channels, heads, mlp_bias) for _ in range(decoder_layers)
        )
        start_small(self)

    def forward(self, tokens_BTC: Tensor) -> list[Tensor]:
        """The mean of all blocks (B, T, C) to the groups' reconstructions, each (B, T, C)."""
        return mirrored(self.decoder, self.bottleneck(tokens_BTC), self.groups)


class Block(nn.Module):
    """Linear attention and an MLP, each after its norm and added to its input."""

    def __init__(self, channels: int, heads: int, mlp_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(channels, eps=EPSILON)
        self.enter, self.leave = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.before_mlp = nn.LayerNorm(channels, eps=EPSILON)
        self.mlp = Mlp(channels, bias=mlp_bias)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Tokens (B, T, C) to tokens of the same shape."""
        inner_BTC = self.enter(self.before_attention(x_BTC)).chunk(3, dim=2)
        query, key, value = (split_heads(part_BTC, self.heads) for part_BTC in inner_BTC)
        x_BTC = x_BTC + self.leave(joined_heads(linear_attention(query, key, value)))
        out_BTC: Tensor = x_BTC + self.mlp(self.before_mlp(x_BTC))
        return out_BTC
