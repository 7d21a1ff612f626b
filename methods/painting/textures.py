"""Where the textures of synthetic defects come from: a folder of images, or the data themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from methods.base import Batches, OnProgress, Progress
from methods.painting import perlin
from methods.parts.training import Draws

OWN = "own"
"""Half of the textures are training images, half are procedural."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
Source = Callable[[Draws, int], Tensor]
"""Textures (B, 3, S, S) in [0, 1] for the samples of some draws."""


def texture_files(folder: Path) -> list[Path]:
    """The images below a folder, sorted; ValueError, in one line, where there is none."""
    if not folder.is_dir():
        raise ValueError(f"textures={folder}: no such folder; give one of images, or '{OWN}'")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"textures={folder}: holds no images ({', '.join(SUFFIXES)})")
    return files


def texture_bytes(folder: Path, side: int) -> int:
    """What a folder's textures take while a training runs: all of them, at this side."""
    return len(texture_files(folder)) * 3 * side**2


def textures_sha256(folder: Path) -> str:
    """Identity of a folder's images, by relative path and bytes; ValueError for one that is none.

    Headers alone are looked at; pixels are decoded when they are needed.
    """
    whole = hashlib.sha256()
    for path in texture_files(folder):
        try:
            with Image.open(path) as image:
                image.verify()
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
            raise ValueError(f"textures: {path} is no image; replace or remove it") from None
        whole.update(path.relative_to(folder).as_posix().encode() + b"\0")
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def own_textures(train: Batches) -> Source:
    """Any training image, moved cyclically so that equal products differ, or a made texture."""

    def drawn(draws: Draws, side: int) -> Tensor:
        others = train.fetch(draws.integers(0, len(train)).tolist()).to(draws.device)
        moved = _window(others, draws, side)
        made = perlin.textures(draws, side)
        return torch.where(draws.uniform(1, 1, 1) < 0.5, moved, made)

    return drawn


def folder_textures(folder: Path, side: int, on_progress: OnProgress) -> Source:
    """A random image of the folder, resized to the side; all are decoded here, once."""
    files = texture_files(folder)
    kept = torch.empty(len(files), 3, side, side, dtype=torch.uint8)
    for number, path in enumerate(files):
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        kept[number] = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        on_progress(Progress(stage="textures", step=number + 1, steps=len(files)))

    def drawn(draws: Draws, side: int) -> Tensor:
        chosen = kept[draws.integers(0, len(files)).cpu()].to(draws.device)
        return _window(chosen.float() / 255, draws, side)

    return drawn


def _window(images_B3SS: Tensor, draws: Draws, side: int) -> Tensor:
    """A square of each image at a drawn place, beyond whose border it starts anew."""
    starts = draws.integers(0, images_B3SS.shape[-1], 2)
    places = (starts[..., None] + torch.arange(side, device=starts.device)) % images_B3SS.shape[-1]
    rows, columns = places[:, 0, :, None], places[:, 1, None, :]
    image = torch.arange(len(starts), device=starts.device)[:, None, None]
    cut: Tensor = images_B3SS.movedim(1, 3)[image, rows, columns]
    return cut.movedim(3, 1)
