"""Vision transformers of timm: built for one size of view, and their tokens after several blocks.

Position embeddings are resampled as DINOv2 does it and Dinomaly and INP-Former with it: bicubic,
without antialiasing, by a factor of (cells + 0.1) / cells before. timm's own way is another.

Shape legend: B images, C channels, S view side in pixels, g patches a side, P tokens before the
patches (class, registers), T = P + g g tokens, N position embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Prefix = Literal["none", "class", "all"]
"""The tokens before the patches that are wanted."""
OFFSET = 0.1
"""Added to the number of cells in the factor of the resampling (DINOv2, `interpolate_offset`)."""


def transformer(backbone: str, side: int) -> Any:
    """A timm model without weights for views of `side` pixels.

    ValueError for a model of another kind, and for a side that is no multiple of its patch.
    """
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    with torch.device("meta"):
        usual = timm.create_model(backbone, pretrained=False)
    if not isinstance(usual, (VisionTransformer, Eva)):
        raise ValueError(
            f"backbone={backbone}: is no vision transformer of timm, whose tokens are asked for; "
            "take one, e.g. vit_base_patch14_reg4_dinov2.lvd142m, or say with grid=14 that its "
            "layers are to be aligned to 14 x 14 tokens"
        )
    patch = usual.patch_embed.patch_size[0]
    if side % patch or side < 2 * patch:
        raise ValueError(
            f"a view of {side} pixels: {backbone} takes multiples of its patch, {patch}, from "
            f"{2 * patch} on; {max(2, round(side / patch)) * patch} is one"
        )
    return timm.create_model(backbone, pretrained=False, img_size=side, num_classes=0)


def check_blocks(
    model: Any, backbone: str, layers: Sequence[int], prefix: Prefix, norm: bool
) -> None:
    """ValueError for blocks, tokens or a final norm that the transformer does not have."""
    blocks = len(model.blocks)
    if not layers or not all(0 <= layer < blocks for layer in layers):
        raise ValueError(f"layers={tuple(layers)}: {backbone} has blocks 0..{blocks - 1}")
    if prefix == "class" and model.cls_token is None:
        raise ValueError(f"backbone={backbone}: has no class token, by which images are compared")
    if norm and isinstance(model.norm, nn.Identity):
        # Such models average their patches first: that norm does not fit single tokens.
        raise ValueError(
            f"backbone={backbone}: has no final norm of its tokens, through which blocks are read; "
            "take one that has, e.g. vit_base_patch14_reg4_dinov2.lvd142m"
        )


def cells(model: Any) -> int:
    """g, the patches a side."""
    return int(model.patch_embed.grid_size[0])


def prefix_tokens(model: Any, prefix: Prefix) -> int:
    """P, the tokens before the patches that are kept."""
    return {"none": 0, "class": 1, "all": int(model.num_prefix_tokens)}[prefix]


def blocks(model: Any, images_B3SS: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """The tokens (B, T, C) after each of these blocks, in the order of the blocks."""
    found = model.forward_intermediates(
        images_B3SS,
        indices=list(layers),
        return_prefix_tokens=True,
        stop_early=True,
        output_fmt="NLC",
        intermediates_only=True,
    )
    return [
        block if isinstance(block, Tensor) else torch.cat([block[1], block[0]], dim=1)
        for block in found
    ]


def kept(model: Any, block_BTC: Tensor, prefix: Prefix, norm: bool) -> Tensor:
    """A block's tokens without those before the patches that are not wanted, (B, T, C).

    With `norm` through the final norm.
    """
    every = model.num_prefix_tokens
    if norm:
        block_BTC = model.norm(block_BTC)
    count = prefix_tokens(model, prefix)
    return torch.cat([block_BTC[:, :count], block_BTC[:, every:]], dim=1)


def fitted_state(model: Any, file: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors by timm's names, with position embeddings for the model's size.

    Files of DINOv2's and DINOv3's authors name some tensors otherwise than timm does, which has
    the former as `VisionTransformer` and the latter as `Eva`.
    """
    from timm.models import vision_transformer
    from timm.models.eva import Eva

    state = dict(file)
    if "storage_tokens" in state and isinstance(model, Eva):
        state = _of_dinov3s_authors(model, state)
    elif "mask_token" in state and "reg_token" not in state and not isinstance(model, Eva):
        state = vision_transformer._convert_dinov2(state, model)
    before, wanted = state.get("pos_embed"), getattr(model, "pos_embed", None)
    if before is not None and wanted is not None and before.ndim == wanted.ndim:
        first = wanted.shape[1] - cells(model) ** 2
        side = math.isqrt(max(0, before.shape[1] - first))
        if side and side**2 + first == before.shape[1]:
            state["pos_embed"] = resampled_positions(before, first, cells(model))
    return state


def _of_dinov3s_authors(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A file's tensors as timm renames them; ValueError for biases that the model has no place for.

    timm has models with biases of queries and values (`_qkvb`) and without: those of most files
    are 0. It would leave out the others as well, and print each.
    """
    from timm.models.eva import checkpoint_filter_fn

    places = {name for name, _ in model.named_parameters()}
    for name in [name for name in state if name.endswith("qkv.bias")]:
        if name.replace("qkv.bias", "q_bias") not in places:
            query, _, value = state.pop(name).chunk(3)
            if query.any() or value.any():
                raise ValueError(
                    f"weights with {name}: it is not 0, and the backbone has no such bias; "
                    "take its namesake with _qkvb"
                )
    renamed: dict[str, Tensor] = checkpoint_filter_fn(state, model)
    return renamed


def resampled_positions(positions_1NC: Tensor, first: int, side: int) -> Tensor:
    """Position embeddings (1, N, C) for side x side patches; the first ones stay as they are."""
    grid_1NC = positions_1NC[:, first:]
    before = math.isqrt(grid_1NC.shape[1])
    if before == side:
        return positions_1NC
    grid_1Cgg = grid_1NC.transpose(1, 2).unflatten(2, (before, before)).float()
    factor = (side + OFFSET) / before
    # The factor is given, not the size: the offset shifts where the embeddings are read.
    grid_1Cgg = F.interpolate(grid_1Cgg, scale_factor=(factor, factor), mode="bicubic")
    grid_1NC = grid_1Cgg.flatten(2).transpose(1, 2).to(positions_1NC.dtype)
    return torch.cat([positions_1NC[:, :first], grid_1NC], dim=1)
