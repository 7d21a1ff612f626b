"""The place of the object, estimated from one image without any training."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GRID = 64  # cells along the shorter side
RING = 2  # cells that count as the border
LEAST_STEP = 16.0  # grey levels; below it, light and noise are taken for an object
SHARES = (0.02, 0.75)  # of the image that an object fills; else there is none, or no background


def foreground(image: NDArray[np.uint8]) -> NDArray[np.float64] | None:
    """Centres of the coarse cells that show the object, (n, 2) as (y, x) in pixels of the image.

    A cell's distance is that of its mean colour from the median colour of the image's border. It
    shows the object if that is above `LEAST_STEP` and above 1.5 times the 90 % quantile of the
    border's cells. None for a texture, where no object stands out or nearly all of the image does.
    """
    height, width = image.shape[:2]
    scale = min(1.0, GRID / min(height, width))
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    small = Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=np.float64)
    ring = np.ones((rows, columns), dtype=bool)
    ring[RING:-RING, RING:-RING] = False
    distance = np.abs(colours - np.median(colours[ring], axis=0)).max(axis=2)
    marks = distance > max(LEAST_STEP, 1.5 * float(np.quantile(distance[ring], 0.9)))
    if not SHARES[0] <= marks.mean() <= SHARES[1]:
        return None
    y, x = np.nonzero(marks)
    return np.stack([(y + 0.5) * height / rows, (x + 0.5) * width / columns], axis=1)
