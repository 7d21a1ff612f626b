"""Image files to arrays by stated rules; a fault of a file becomes an error of one line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from benchmarks.base import DataError

# Below Pillow's own limit (89 million, where it warns), so that the user reads our message.
MAX_PIXELS = 80_000_000

SIXTEEN_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """An image file as (H, W, 3) uint8 RGB.

    - EXIF orientation is applied; of several frames the first counts.
    - Grey becomes three equal channels; 1-bit becomes 0 and 255.
    - 16-bit grey is divided by 257 and rounded (65535 -> 255); values beyond 16 bits are clipped.
      16-bit colour keeps its high byte, which is how Pillow reads it.
    - A palette becomes its colours; CMYK and YCbCr become RGB by Pillow's formula.
    - Alpha, also that of a palette or a transparent colour, is composited on black. What was cut
      out becomes 0, like the padding of a convolution, whatever colour hides beneath.

    DataError for an unreadable, empty, truncated, non-image, floating-point or over-limit file.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        return _grey_16_bit(upright) if upright.mode in SIXTEEN_BIT else _to_rgb(upright)


def read_marks(path: Path) -> NDArray[np.bool_]:
    """A mask file as (H, W) bool: True where any channel is above 0, before any scaling.

    Orientation, palette and alpha are treated as in `read_rgb`, so transparent means unmarked.
    DataError for the same files.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in (*SIXTEEN_BIT, "L", "1"):
            return np.asarray(upright) > 0
        return np.asarray(_to_rgb(upright).max(axis=2) > 0)


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
        if path.stat().st_size == 0:
            raise DataError(f"{path}: is empty (0 bytes); copy it again or remove it")
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            if image.mode == "F":
                raise DataError(f"{path}: has floating-point pixels; save it with 8 or 16 bits")
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            f"{path}: has more than {MAX_PIXELS:,} pixels, the limit; shrink it or remove it"
        ) from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: is not an image; replace it or remove it") from error
    except Exception as error:  # Pillow hands on whatever its decoders raise
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be read ({error.strerror}); replace it") from error
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: is damaged or truncated ({reason}); copy it again or remove it"
        ) from error


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def _grey_16_bit(image: Image.Image) -> NDArray[np.uint8]:
    values = np.asarray(image).astype(np.int64).clip(0, 65535)
    grey = ((values + 128) // 257).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)
