"""Shapes of a view's layers, and faults of a view, found without any weights.

Shape legend: C channels, h and w a layer's own cells, g grid cells a side, P tokens before a
transformer's patches.
"""

from __future__ import annotations

import math

import torch

from methods.parts import vit
from methods.parts.aggregate import Shape
from methods.parts.backbone import Features, Tokens


def check_features(features: Features) -> None:
    """Raise ValueError for a backbone, layers or sizes that can't give these features."""
    _check_known(features.backbone)
    if isinstance(features, Tokens):
        _check_tokens(features)
    else:
        count = layer_count(features.backbone)
        if not features.layers or not all(0 <= layer < count for layer in features.layers):
            raise ValueError(
                f"layers={features.layers}: {features.backbone} has layers 0..{count - 1}"
            )
    if list(features.layers) != sorted(set(features.layers)):
        raise ValueError(
            f"layers={features.layers}: name each layer once, the shallowest first, e.g. 1,3"
        )
    if isinstance(features, Tokens):
        return
    gridless = features.aggregate != "pyramid" and features.grid < 1
    if gridless or features.resize < 32 or not 0 < features.side <= features.resize:
        raise ValueError(
            f"grid {features.grid} on a view of {features.side} from {features.resize} pixels: "
            "take a grid of at least 1, 32 pixels or more, and a crop within them"
        )
    try:
        layer_shapes(features)
    except Exception as error:  # a network that takes one size alone says so in its own way
        why = " ".join(str(error).split())
        raise ValueError(f"{features.backbone} at {features.side} pixels: {why}") from None


def layer_count(backbone: str) -> int:
    """The number of a backbone's layers, with those that timm gives only when asked for them."""
    import timm

    with torch.device("meta"):
        pyramid = timm.create_model(backbone, features_only=True, pretrained=False)
    return len(pyramid.feature_info)


def _check_known(backbone: str) -> None:
    import timm

    if not timm.is_model(backbone.split(".")[0]):
        raise ValueError(f"backbone={backbone}: timm knows no such model; see timm.list_models()")


def _check_tokens(features: Tokens) -> None:
    """Raise ValueError for tokens that can't be had."""
    if not 0 < features.side <= features.resize:
        raise ValueError(
            f"a view of {features.side} from {features.resize} pixels: take a crop within them"
        )
    with torch.device("meta"):
        model = vit.transformer(features.backbone, features.side)
    vit.check_blocks(model, features.backbone, features.layers, features.prefix, features.norm)
    if len(features.layers) % features.parts:
        raise ValueError(
            f"layers={features.layers}: {len(features.layers)} blocks can't be averaged to "
            f"{features.parts} groups of as many each"
        )


SHAPES: dict[Features, tuple[Shape, ...]] = {}
"""Shapes of layers, by their view. A process that receives them need not import timm, which takes
seconds."""


def layer_shapes(features: Features) -> tuple[Shape, ...]:
    """(C, h, w) of each layer; of tokens (C, P, 1) and (C, g, g) of each part, the former only
    where tokens before the patches are kept."""
    if features not in SHAPES:
        SHAPES[features] = _timm_shapes(features)
    return SHAPES[features]


def _timm_shapes(features: Features) -> tuple[Shape, ...]:
    """Shapes that timm gives on the meta device, without any weights."""
    import timm

    _check_known(features.backbone)
    if isinstance(features, Tokens):
        with torch.device("meta"):
            model = vit.transformer(features.backbone, features.side)
        before, side = vit.prefix_tokens(model, features.prefix), vit.cells(model)
        part = ((model.embed_dim, before, 1),) if before else ()
        return (*part, (model.embed_dim, side, side)) * features.parts
    with torch.device("meta"):
        pyramid = timm.create_model(
            features.backbone, features_only=True, out_indices=features.layers, pretrained=False
        )
        layers_1Chw = pyramid.eval()(torch.zeros(1, 3, features.side, features.side))
    shapes = tuple((layer.shape[1], layer.shape[2], layer.shape[3]) for layer in layers_1Chw)
    if [channels for channels, _, _ in shapes] != pyramid.feature_info.channels():
        raise ValueError("its layers do not have their channels first")
    return shapes


def feature_channels(features: Features) -> int:
    """C, of all layers together where they are not pooled to a number of channels."""
    if features.aggregate == "patches" and features.channels is not None:
        return features.channels
    return sum(channels for channels, _, _ in layer_shapes(features))


def feature_numbers(features: Features) -> int:
    """The number of values that the features of an image have."""
    if features.aggregate == "pyramid":
        return sum(math.prod(shape) for shape in layer_shapes(features))
    return feature_channels(features) * features.grid**2
