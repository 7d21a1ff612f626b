"""UniAD's network: a transformer auto-encoder that may not look at a token's own neighbourhood.

Shape legend: B images, C channels, g grid cells a side, T = g g tokens, W width.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn


class Sizes(Protocol):
    """What of a configuration decides the network."""

    @property
    def feature_size(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def feed_forward(self) -> int: ...
    @property
    def dropout(self) -> float: ...
    @property
    def neighbours(self) -> int: ...
    @property
    def encoder_layers(self) -> int: ...
    @property
    def decoder_layers(self) -> int: ...


def neighbour_mask(grid: int, window: int) -> Tensor:
    """(g g, g g) bool, True where attention is blocked: each token's window, itself too."""
    cells = torch.arange(grid)
    near = (cells[:, None] - cells[None, :]).abs() <= window // 2
    return (near[:, None, :, None] & near[None, :, None, :]).flatten(2).flatten(0, 1)


class Reconstructor(nn.Module):
    """The network: tokens in, tokens out, through encoder and query decoder."""

    blocked: Tensor

    def __init__(self, channels: int, sizes: Sizes) -> None:
        super().__init__()
        grid, width = sizes.feature_size, sizes.width
        self.grid = grid
        self.enter = nn.Linear(channels, width)
        self.leave = nn.Linear(width, channels)
        self.row = nn.Parameter(torch.rand(grid, width // 2))
        self.column = nn.Parameter(torch.rand(grid, width // 2))
        self.encoder = nn.ModuleList(EncoderLayer(sizes) for _ in range(sizes.encoder_layers))
        self.decoder = nn.ModuleList(DecoderLayer(sizes) for _ in range(sizes.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.register_buffer("blocked", neighbour_mask(grid, sizes.neighbours), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        # The official decoder layers are copies of one, so they start from the same queries.
        queries = [layer.get_parameter("queries") for layer in self.decoder]
        for later in queries[1:]:
            later.data.copy_(queries[0].data)

    def position(self) -> Tensor:
        """Learned position of each token, column then row: (g g, width)."""
        columns = self.column[None, :, :].expand(self.grid, -1, -1)
        rows = self.row[:, None, :].expand(-1, self.grid, -1)
        return torch.cat([columns, rows], dim=2).flatten(0, 1)

    def forward(self, features_BCgg: Tensor) -> Tensor:
        """(B, C, g, g) to their reconstruction, same shape."""
        memory = self.enter(features_BCgg.flatten(2).transpose(1, 2))
        position = self.position()
        for layer in self.encoder:
            memory = layer(memory, position, self.blocked)
        out = memory
        for layer in self.decoder:
            out = layer(out, memory, position, self.blocked)
        tokens: Tensor = self.leave(self.norm(out))
        return tokens.transpose(1, 2).reshape(features_BCgg.shape)


def _attention(sizes: Sizes) -> nn.MultiheadAttention:
    return nn.MultiheadAttention(sizes.width, sizes.heads, dropout=sizes.dropout, batch_first=True)


class Tail(nn.Module):
    """Feed-forward with post-norm, the end of every layer."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.feed_forward = nn.Sequential(
            nn.Linear(sizes.width, sizes.feed_forward),
            nn.ReLU(),
            nn.Dropout(sizes.dropout),
            nn.Linear(sizes.feed_forward, sizes.width),
            nn.Dropout(sizes.dropout),
        )
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, x_BTW: Tensor) -> Tensor:
        """(B, tokens, width), unchanged in shape."""
        out: Tensor = self.norm(x_BTW + self.feed_forward(x_BTW))
        return out


class EncoderLayer(nn.Module):
    """Masked self-attention and feed-forward."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.attention = _attention(sizes)
        self.dropout = nn.Dropout(sizes.dropout)
        self.norm = nn.LayerNorm(sizes.width)
        self.tail = Tail(sizes)

    def forward(self, x_BTW: Tensor, position_TW: Tensor, blocked_TT: Tensor) -> Tensor:
        """(B, tokens, width), unchanged in shape."""
        placed = x_BTW + position_TW
        seen, _ = self.attention(placed, placed, x_BTW, attn_mask=blocked_TT, need_weights=False)
        out: Tensor = self.tail(self.norm(x_BTW + self.dropout(seen)))
        return out


class DecoderLayer(nn.Module):
    """Learned queries look at the memory, then at the previous layer's output."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(sizes.feature_size**2, sizes.width))
        self.to_memory, self.to_output = _attention(sizes), _attention(sizes)
        self.memory_dropout = nn.Dropout(sizes.dropout)
        self.output_dropout = nn.Dropout(sizes.dropout)
        self.memory_norm = nn.LayerNorm(sizes.width)
        self.output_norm = nn.LayerNorm(sizes.width)
        self.tail = Tail(sizes)

    def forward(
        self, out_BTW: Tensor, memory_BTW: Tensor, position_TW: Tensor, blocked_TT: Tensor
    ) -> Tensor:
        """(B, tokens, width), unchanged in shape."""
        x = self.queries.expand(len(out_BTW), -1, -1)
        seen, _ = self.to_memory(
            x + position_TW,
            memory_BTW + position_TW,
            memory_BTW,
            attn_mask=blocked_TT,
            need_weights=False,
        )
        x = self.memory_norm(x + self.memory_dropout(seen))
        seen, _ = self.to_output(
            x + position_TW,
            out_BTW + position_TW,
            out_BTW,
            attn_mask=blocked_TT,
            need_weights=False,
        )
        x = self.output_norm(x + self.output_dropout(seen))
        tail: Tensor = self.tail(x)
        return tail
