"""Sources of the textures of synthetic defects: a folder of images, or the data themselves.

Shape legend: B images, S side in pixels, of the textures that are asked for or of a whole image, N
images of a folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from methods.painting import perlin
from methods.parts.batches import Batches, Draws
from methods.parts.progress import OnProgress, Progress
from methods.parts.windows import moved

OWN = "own"
"""The word for textures of which half are training images, half are procedural."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
Source = Callable[[Draws, int], Tensor]
"""Function (draws, side) that gives textures (B, 3, S, S) in [0, 1] for the samples of draws."""


def texture_files(folder: Path) -> list[Path]:
    """The images below a folder, sorted; ValueError, in one line, where there is none.

    Hidden files are passed over, such as the ._NAME.jpg that a Mac leaves beside NAME.jpg.
    """
    if not folder.is_dir():
        raise ValueError(f"textures={folder}: no such folder; give one of images, or '{OWN}'")
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not any(part.startswith((".", "__MACOSX")) for part in path.relative_to(folder).parts)
    )
    if not files:
        raise ValueError(f"textures={folder}: holds no images ({', '.join(SUFFIXES)})")
    return files


def textures_sha256(folder: Path) -> str:
    """Identity of a folder's images, by relative path and bytes; ValueError where one is no image.

    Headers alone are checked; pixels are decoded when they are needed.
    """
    digest = hashlib.sha256()
    for path in texture_files(folder):
        try:
            with Image.open(path) as image:
                image.verify()
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
            raise ValueError(f"textures: {path} is no image; replace or remove it") from None
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def own_textures(train: Batches) -> Source:
    """A random training image, moved cyclically so that equal products differ, or noise."""

    def draw(draws: Draws, side: int) -> Tensor:
        images_B3SS = train.fetch(draws.integers(0, len(train)).tolist()).to(draws.device)
        moved_B3SS, procedural_B3SS = moved(images_B3SS, draws, side), perlin.textures(draws, side)
        return torch.where(draws.uniform(1, 1, 1) < 0.5, moved_B3SS, procedural_B3SS)

    return draw


def folder_textures(folder: Path, side: int, on_progress: OnProgress) -> Source:
    """A random image of the folder, resized to `side`; all are decoded now, once."""
    files = texture_files(folder)
    textures_N3SS = torch.empty(len(files), 3, side, side, dtype=torch.uint8)
    for index, path in enumerate(files):
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
        textures_N3SS[index] = torch.from_numpy(np.array(resized)).permute(2, 0, 1)
        on_progress(Progress(stage="textures", step=index + 1, steps=len(files)))

    def draw(draws: Draws, side: int) -> Tensor:
        textures_B3SS = textures_N3SS[draws.integers(0, len(files)).cpu()].to(draws.device)
        return moved(textures_B3SS.float() / 255, draws, side)

    return draw
