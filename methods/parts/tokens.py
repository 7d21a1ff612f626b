"""Tokens that transformers learn from: those of a frozen vision transformer, or, where its weights
are not at hand, the cells of any other backbone's layers.

Shape legend: B images, C channels, g grid cells a side, P tokens before the patches, T = P + g g
tokens, L numbers of a pyramid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from methods.base import Scores
from methods.parts.aggregate import unflatten
from methods.parts.backbone import Features, Tokens
from methods.parts.bank import Standardise
from methods.parts.batches import Batches
from methods.parts.checks import above_zero, at_least, check_evaluated
from methods.parts.config import of_config
from methods.parts.cost import Cost, training_cost
from methods.parts.maps import evaluated
from methods.parts.mining import distances
from methods.parts.shapes import feature_channels, layer_shapes
from methods.parts.vit import Prefix


def token_view(config: Any, *, prefix: Prefix, norm: bool = False) -> Features:
    """The view of a method that learns from tokens.

    With a grid of 0 the blocks of a vision transformer, averaged to groups where the Config has
    them; else the layers of another backbone, aligned to that grid and side by side: one group,
    without other tokens.
    """
    if config.grid:
        return of_config(Features, config)
    return of_config(Tokens, config, prefix=prefix, norm=norm)


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
        self.view, self.layout = view, Layout.of(view)
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

    def compared(self, groups_BTC: list[Tensor], rebuilt_BTC: list[Tensor], knobs: Any) -> Scores:
        """Scores by one minus the cosine of each patch with what was rebuilt, mean over groups."""
        errors_BT = [distances(*pair) for pair in zip(groups_BTC, rebuilt_BTC, strict=True)]
        error_BT = self.patches(torch.stack(errors_BT).mean(dim=0))
        map_Bgg = error_BT.unflatten(1, (self.layout.side, self.layout.side))
        return evaluated(map_Bgg, self.view.side, knobs, by_way_of=self.view.side)


def mean_of(groups_BTC: list[Tensor]) -> Tensor:
    """The mean (B, T, C) of all blocks: that of the groups, which are means of equally many."""
    return torch.stack(groups_BTC).mean(dim=0)


def decoder_of(kind: Callable[..., nn.Module], config: Any, layout: Layout) -> nn.Module:
    """A decoder for tokens of this layout; in eval mode until it is trained.

    A loaded model must not drop out while it scores.
    """
    return of_config(kind, config, channels=layout.channels, groups=layout.groups).eval()


def decoder_cost(kind: Callable[..., nn.Module], config: Any, view: Features, samples: int) -> Cost:
    """The cost of a decoder that is trained on so many samples."""
    layout = Layout.of(view)
    shape = layout.tokens, layout.channels
    return training_cost(lambda: decoder_of(kind, config, layout), shape, samples=samples)


def check_decoder(config: Any, knobs: Any, view: Features) -> None:
    """ValueError for settings that no decoder of tokens, its training or its scores can have.

    Heads must split the channels, and groups the layers of the decoder.
    """
    check_evaluated(knobs)
    at_least(config, 1, "epochs", "batch_size", "groups", "decoder_layers", "heads")
    at_least(config, 0, "grid", "warmup", "weight_decay")
    above_zero(config, "learning_rate", "clip", "eps")
    layout = Layout.of(view)
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
