"""Image files to arrays by stated rules; a fault of a file becomes an error of one line."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from benchmarks.base import DataError

ENDINGS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga"),
    *((".avif",) if features.check("avif") else ()),
)
"""Endings of the images that are read."""
with suppress(ImportError):
    import_module("pillow_heif").register_heif_opener()
    ENDINGS = (*ENDINGS, ".heic", ".heif", ".hif")
UNREAD = {
    ".heic .heif .hif": (
        "a HEIC photograph",
        "heif-convert does it; with pillow-heif installed it is read",
    ),
    ".avif": ("an AVIF image", "avifdec does it"),
    ".jxl": ("a JPEG XL image", "djxl does it"),
    ".cr2 .cr3 .crw .nef .nrw .arw .srf .sr2 .dng .orf .rw2 .raf .pef .srw .iiq .3fr .x3f": (
        "the raw file of a camera",
        "darktable-cli or its maker's program does it",
    ),
    ".psd .psb .xcf .kra": ("a file of an image editor", "the editor exports it"),
}
"""Endings of images that are not read, what they are, and how they are converted."""
POINTER = b"version https://git-lfs.github.com/spec/"
# Below Pillow's own limit (89 million, where it warns), so that the user reads our message.
MAX_PIXELS = 80_000_000

DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
SIXTEEN_BITS = 65535.0
DEPTHS = (8, 10, 12, 14, 16, 20, 24, 32)
"""Bits of cameras, and of the files that their images lie in."""
MOST_LEVELS, HALF_WHITE = 8, 128
"""Most grey levels that number kinds of defects in a mask, and the least level beyond numbers."""


def read_rgb(path: Path, white: Callable[[], float | None] = lambda: None) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB.

    - EXIF orientation is applied; of several frames or pages the first counts.
    - Grey becomes three equal channels; 1-bit becomes 0 and 255.
    - More than 8 bits a channel, and floats, are scaled so that `white()` becomes 255, rounded and
      clipped. Where it is not known, it is 65535 of integers and 1 of floats.
    - A palette becomes its colours; CMYK and YCbCr become RGB by Pillow's formula.
    - Alpha, also that of a palette or a transparent colour, is composited on black. What was cut
      out becomes 0, like the padding of a convolution, whatever colour hides beneath.

    DataError for an unreadable, empty, truncated, non-image or over-limit file, for pixels that are
    negative or no numbers, and for floats that can't be of the scale of the training images.
    """
    with _opened(path) as image:
        deep = _deep_pixels(path, image)
        if deep is None:
            return _to_rgb(ImageOps.exif_transpose(image))
    scaled = 255 * (deep.astype(np.float64) / _white(path, deep, white()))
    rgb = np.rint(scaled).clip(0, 255).astype(np.uint8)
    return np.repeat(rgb[:, :, None], 3, axis=2) if rgb.ndim == 2 else rgb


def _white(path: Path, values: NDArray[Any], known: float | None) -> float:
    if values.dtype.kind != "f":
        return SIXTEEN_BITS if known is None else known
    most = float(values.max())
    if known is None and most > 1:
        fault = f"has floats up to {most:g}, and training images have 8 bits; save it with up to 1"
    elif known is not None and 0 < most <= 1 and known in [2**bits - 1 for bits in DEPTHS]:
        fault = f"has floats up to 1, and white is {known:g}; save it as the training images are"
    else:
        return 1.0 if known is None else known
    raise DataError(f"{path}: {fault}")


def white_of(values: Iterable[np.integer[Any] | np.floating[Any] | None]) -> float | None:
    """The white of images that belong together: the smallest depth that holds all their values.

    Of 8, 10, 12, 14, 16 bits and more; of floats 1, else the largest value. `values` are those of
    `deepest`; images with 8 bits a channel have no say, None if all have.
    """
    largest = [value for value in values if value is not None]
    if not largest:
        return None
    most = max(float(value) for value in largest)
    if any(isinstance(value, np.floating) for value in largest):
        return max(1.0, most)
    return next((float(2**bits - 1) for bits in DEPTHS if most < 2**bits), most)


def deepest(path: Path) -> np.integer[Any] | np.floating[Any] | None:
    """The largest value of an image with more than 8 bits a channel, None where it has not.

    DataError as `read_rgb`.
    """
    with _opened(path) as image:
        deep = _deep_pixels(path, image)
        return None if deep is None else cast("np.integer[Any] | np.floating[Any]", deep.max())


def is_deep(path: Path) -> bool:
    """Whether an image has more than 8 bits a channel, from its header; DataError as `read_rgb`."""
    with _opened(path) as image:
        return image.mode in DEEP_GREY or bool(_deep_colour(image))


def losses(path: Path) -> list[str]:
    """Losses when an image file is read, in words; DataError as `read_rgb`."""
    with _opened(path) as image:
        clear = (
            image.has_transparency_data and np.asarray(image.convert("RGBA"))[:, :, 3].min() < 255
        )
        found = {
            f"of {getattr(image, 'n_frames', 1)} pages or frames the first is read": (
                getattr(image, "n_frames", 1) > 1
            ),
            "what is transparent becomes black": bool(clear),
            "CMYK becomes RGB by a formula, without its colour profile": image.mode == "CMYK",
            "of 16 bits the upper 8 are read; save it as RGB to keep them": (
                image.mode not in DEEP_GREY
                and not _deep_colour(image)
                and any("16" in layout for layout in _layouts(image))
            ),
        }
        return [loss for loss, there in found.items() if there]


def read_marks(path: Path) -> NDArray[np.bool_]:
    """A mask file as (H, W) bool: True where any channel is above 0, before any scaling.

    Orientation, palette and alpha are treated as in `read_rgb`, so transparent means unmarked.
    DataError for the same files.
    """
    return _mask_values(path) > 0


def soft_levels(path: Path) -> int:
    """The number of a mask file's values, if they are more than kinds of defects; else 0.

    So many, or some between black and white that are nearly black, are left by JPEG and by resizes.
    DataError as `read_marks`.
    """
    levels = np.unique(_mask_values(path))
    marked = levels[levels > 0]
    nearly_black = len(marked) > 1 and marked[-1] >= HALF_WHITE and marked[0] < marked[-1] / 4
    return len(levels) if len(levels) > MOST_LEVELS or nearly_black else 0


def _mask_values(path: Path) -> NDArray[Any]:
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in (*DEEP_GREY, "L", "1"):
            return np.asarray(upright)
        return np.asarray(_to_rgb(upright).max(axis=2))


def orientation(path: Path) -> int:
    """How EXIF turns an image: 1 not at all, 2 to 4 in place, 5 to 8 onto its side."""
    with _opened(path) as image:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))


def unread_image(path: Path) -> str:
    """Why an image is not read, by its ending, and what to do; empty for any other file."""
    ending = path.suffix.casefold()
    for endings, (what, how) in UNREAD.items():
        if ending in endings.split() and ending not in ENDINGS:
            return f"is {what}, which is not read; convert it to PNG, or remove it ({how})"
    return ""


def image_shape(path: Path) -> tuple[int, int]:
    """(H, W) of the upright image, from the header alone; DataError as `read_rgb`."""
    with _opened(path) as image:
        width, height = image.size
        # Pillow swaps the size of a rotated TIFF itself.
        turned = image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
        return (width, height) if turned else (height, width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The file as a Pillow image; an error in opening it or in the block becomes DataError."""
    # Pillow only warns about huge images. As an error it can be caught here, in every thread;
    # `catch_warnings` is not safe in threads. Appended, so that a filter of the user's own wins.
    warnings.simplefilter("error", Image.DecompressionBombWarning, append=True)
    try:
        if fault := unread_image(path):
            raise DataError(f"{path}: {fault}")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty (0 bytes); copy it again or remove it")
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: has more than {MAX_PIXELS:,} pixels, the limit; shrink it or remove it"
        ) from error
    except UnidentifiedImageError as error:
        fault = "is not an image; replace it or remove it"
        if _begins(path, POINTER):
            fault = "is a pointer of Git LFS, not the image; fetch it with git lfs pull"
        raise DataError(f"{path}: {fault}") from error
    except Exception as error:  # Pillow hands on whatever its decoders raise
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError.unreadable(error, path) from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: is damaged or truncated ({reason}); copy it again or remove it"
        ) from error


def _begins(path: Path, content: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(content)) == content


def _deep_pixels(path: Path, image: Image.Image) -> NDArray[Any] | None:
    """(H, W) or (H, W, 3) of an image with more than 8 bits a channel, else None."""
    if image.mode in DEEP_GREY:
        values = np.asarray(ImageOps.exif_transpose(image))
    elif layout := _deep_colour(image):
        values = _sixteen_bit_colour(path, layout)
    else:
        return None
    if values.dtype.kind != "u" and not (np.isfinite(values).all() and values.min() >= 0):
        raise DataError(
            f"{path}: has pixels that are negative or no numbers; save it with values from 0 on"
        )
    return values


def _deep_colour(image: Image.Image) -> str:
    """The layout of 16 bits a colour, such as "RGB;16B"; empty for any other."""
    layouts = {layout for layout in _layouts(image) if re.fullmatch(r"RGBA?;16[BLN]", layout)}
    return layouts.pop() if len(layouts) == 1 else ""


def _layouts(image: Image.Image) -> Iterator[str]:
    """Layouts of the pixels in the file, in Pillow's words."""
    for tile in getattr(image, "tile", ()):
        args = tile.args
        yield str(args if isinstance(args, str) else (args or ("",))[0])


def _sixteen_bit_colour(path: Path, layout: str) -> NDArray[np.uint16]:
    """(H, W, 3), upright, and composited on black where there is alpha.

    Pillow keeps one byte of each value: told the other byte order, it keeps the other byte.
    """
    native = "L" if sys.byteorder == "little" else "B"
    order = layout[-1].replace("N", native)
    high, low = (_one_byte_of_two(path, layout[:-1] + kept) for kept in (order, "LB"[order == "L"]))
    values = high.astype(np.uint16) * 256 + low
    if values.shape[2] == 3:
        return values
    alpha = values[:, :, 3:] / SIXTEEN_BITS
    return np.rint(values[:, :, :3] * alpha).astype(np.uint16)


def _one_byte_of_two(path: Path, layout: str) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        image.tile = [
            tile._replace(args=(layout, *tile.args[1:]) if isinstance(tile.args, tuple) else layout)
            for tile in image.tile
        ]
        return np.asarray(ImageOps.exif_transpose(image))


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))
