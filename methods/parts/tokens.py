"""Tokens that transformers learn from: those of a frozen vision transformer, or, where its weights
are not at hand, the cells of any other backbone's layers.

Shape legend: B images, C channels, g grid cells a side, P tokens before the patches, T = P + g g
tokens, L numbers of a pyramid.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods.parts.aggregate import unflatten
from methods.parts.backbone import Features, Tokens
from methods.parts.bank import Standardise
from methods.parts.batches import Batches
from methods.parts.shapes import feature_channels, layer_shapes
from methods.parts.vit import Prefix


def token_view(config: Any, *, prefix: Prefix, groups: int, norm: bool) -> Features:
    """The view of a method that learns from tokens.

    With a grid of 0 the blocks of a vision transformer, averaged to groups; else the layers of
    another backbone, aligned to that grid and side by side: one group, without other tokens.
    """
    if config.grid:
        return Features.of(config, aggregate="aligned")
    return Tokens.of(config, grid=0, prefix=prefix, groups=groups, norm=norm)


class Layout(NamedTuple):
    """The number of tokens of each kind."""

    groups: int
    before: int
    """P."""
    side: int
    """g."""
    channels: int
    """C."""

    @property
    def tokens(self) -> int:
        """T."""
        return self.before + self.side**2

    @classmethod
    def of(cls, view: Features) -> Layout:
        """The layout of a view's tokens."""
        if not isinstance(view, Tokens):
            return cls(1, 0, view.grid, feature_channels(view))
        shapes = layer_shapes(view)
        before = shapes[0][1] if len(shapes) > view.parts else 0
        return cls(view.parts, before, shapes[-1][1], shapes[-1][0])


class TokenReader(nn.Module):
    """Cached features as groups of tokens.

    Layers of a convolutional backbone differ in scale, so that the largest alone would decide a
    cosine: their channels are standardised. A transformer's tokens stay as they are.
    """

    def __init__(self, view: Features) -> None:
        super().__init__()
        self.layout = Layout.of(view)
        self.shapes = layer_shapes(view) if isinstance(view, Tokens) else ()
        self.standardise = nn.Identity() if self.shapes else Standardise(self.layout.channels)

    def fit(self, train: Batches) -> None:
        """Learn the scale of each channel, where it is needed."""
        if isinstance(self.standardise, Standardise):
            self.standardise.fit(train)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        """Features (B, L) or (B, C, g, g) to the groups' tokens (B, T, C)."""
        if not self.shapes:
            return [self.standardise(inputs).flatten(2).transpose(1, 2)]
        parts = [part.flatten(2).transpose(1, 2) for part in unflatten(inputs, self.shapes)]
        if not self.layout.before:
            return parts
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return [torch.cat(pair, dim=1) for pair in pairs]

    def patches(self, tokens: Tensor) -> Tensor:
        """The patches' tokens (B, g g, ...) among all (B, T, ...)."""
        return tokens[:, self.layout.before :]

    def as_map(self, tokens_BT: Tensor) -> Tensor:
        """Numbers of the patches (B, g g) as maps (B, g, g)."""
        side = self.layout.side
        map_Bgg: Tensor = tokens_BT.unflatten(1, (side, side))
        return map_Bgg


def mean_of(groups_BTC: list[Tensor]) -> Tensor:
    """The mean (B, T, C) of all blocks: that of the groups, which are means of equally many."""
    return torch.stack(groups_BTC).mean(dim=0)


def check_decoder(config: Any, layout: Layout) -> None:
    """Raise ValueError unless heads split the channels, and groups the layers of the decoder."""
    if config.groups != layout.groups:
        raise ValueError(
            f"groups={config.groups}: layers on a grid are {layout.groups} group; "
            f"set groups={layout.groups}, or grid=0 for the blocks of a transformer"
        )
    if layout.channels % config.heads:
        raise ValueError(f"heads={config.heads}: must divide the {layout.channels} channels")
    if config.decoder_layers % layout.groups:
        raise ValueError(
            f"decoder_layers={config.decoder_layers}: must be a multiple of groups={layout.groups}"
        )
