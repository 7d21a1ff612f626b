"""UniAD's network: a transformer auto-encoder that may not look at a token's own neighbourhood.

Shape legend: B images, C channels, g grid cells a side, T = g g tokens, W width, V half of it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def neighbour_mask(grid: int, window: int) -> Tensor:
    """A mask (T, T) bool: True where attention is blocked, in each token's window with itself."""
    cells_g = torch.arange(grid)
    near_gg = (cells_g[:, None] - cells_g[None, :]).abs() <= window // 2
    return (near_gg[:, None, :, None] & near_gg[None, :, None, :]).flatten(2).flatten(0, 1)


class Reconstructor(nn.Module):
    """The network: features to their reconstruction, through encoder and query decoder."""

    blocked: Tensor

    def __init__(
        self,
        channels: int,
        *,
        grid: int,
        width: int,
        heads: int,
        feed_forward: int,
        dropout: float,
        neighbours: int,
        encoder_layers: int,
        decoder_layers: int,
    ) -> None:
        super().__init__()
        sizes = width, heads, feed_forward, dropout
        self.grid = grid
        self.enter = nn.Linear(channels, width)
        self.leave = nn.Linear(width, channels)
        self.row = nn.Parameter(torch.rand(grid, width // 2))
        self.column = nn.Parameter(torch.rand(grid, width // 2))
        self.encoder = nn.ModuleList(EncoderLayer(*sizes) for _ in range(encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(grid**2, *sizes) for _ in range(decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("blocked", neighbour_mask(grid, neighbours), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # The official decoder layers are copies of one, so they start from the same queries.
        queries = [layer.get_parameter("queries") for layer in self.decoder]
        for later in queries[1:]:
            later.data.copy_(queries[0].data)

    def position(self) -> Tensor:
        """Learned position of each token, column then row: (T, W)."""
        columns_ggV = self.column[None, :, :].expand(self.grid, -1, -1)
        rows_ggV = self.row[:, None, :].expand(-1, self.grid, -1)
        return torch.cat([columns_ggV, rows_ggV], dim=2).flatten(0, 1)

    def forward(self, features_BCgg: Tensor) -> Tensor:
        """The reconstruction of the features, (B, C, g, g)."""
        memory_BTW = self.enter(features_BCgg.flatten(2).transpose(1, 2))
        position_TW = self.position()
        for layer in self.encoder:
            memory_BTW = layer(memory_BTW, position_TW, self.blocked)
        out_BTW = memory_BTW
        for layer in self.decoder:
            out_BTW = layer(out_BTW, memory_BTW, position_TW, self.blocked)
        tokens_BTC: Tensor = self.leave(self.norm(out_BTW))
        return tokens_BTC.transpose(1, 2).reshape(features_BCgg.shape)


def _attention(width: int, heads: int, dropout: float) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)


class Tail(nn.Module):
    """Feed-forward with post-norm, the end of every layer."""

    def __init__(self, width: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feed_forward, width),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """The normalised sum of tokens and feed-forward, (B, T, W)."""
        out_BTW: Tensor = self.norm(x_BTW + self.feed_forward(x_BTW))
        return out_BTW


class EncoderLayer(nn.Module):
    """Masked self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.attention = _attention(width, heads, dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)
        self.tail = Tail(width, feed_forward, dropout)

    def forward(self, x_BTW: Tensor, position_TW: Tensor, blocked_TT: Tensor) -> Tensor:
        """Tokens (B, T, W) to tokens of the same shape."""
        key_BTW = x_BTW + position_TW
        mixed_BTW, _ = self.attention(
            key_BTW, key_BTW, x_BTW, attn_mask=blocked_TT, need_weights=False
        )
        out_BTW: Tensor = self.tail(self.norm(x_BTW + self.dropout(mixed_BTW)))
        return out_BTW


class DecoderLayer(nn.Module):
    """Learned queries attend to the memory, then to the previous layer's output."""

    def __init__(
        self, tokens: int, width: int, heads: int, feed_forward: int, dropout: float
    ) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(tokens, width))
        self.to_memory = _attention(width, heads, dropout)
        self.to_output = _attention(width, heads, dropout)
        self.memory_dropout = nn.Dropout(dropout)
        self.output_dropout = nn.Dropout(dropout)
        self.memory_norm = nn.LayerNorm(width)
        self.output_norm = nn.LayerNorm(width)
        self.tail = Tail(width, feed_forward, dropout)

    def forward(
        self, out_BTW: Tensor, memory_BTW: Tensor, position_TW: Tensor, blocked_TT: Tensor
    ) -> Tensor:
        """The previous layer's output and the memory to this layer's output, each (B, T, W)."""

        def attend(attention: nn.Module, queries_BTW: Tensor, values_BTW: Tensor) -> Tensor:
            query_BTW, key_BTW = queries_BTW + position_TW, values_BTW + position_TW
            mixed_BTW: Tensor = attention(
                query_BTW, key_BTW, values_BTW, attn_mask=blocked_TT, need_weights=False
            )[0]
            return mixed_BTW

        x_BTW = self.queries.expand(len(out_BTW), -1, -1)
        mixed_BTW = attend(self.to_memory, x_BTW, memory_BTW)
        x_BTW = self.memory_norm(x_BTW + self.memory_dropout(mixed_BTW))
        mixed_BTW = attend(self.to_output, x_BTW, out_BTW)
        x_BTW = self.output_norm(x_BTW + self.output_dropout(mixed_BTW))
        tail_BTW: Tensor = self.tail(x_BTW)
        return tail_BTW
