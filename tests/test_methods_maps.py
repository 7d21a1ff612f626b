"""Anomaly maps and image scores, against SciPy and direct sums."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_training import numbers
from scipy.ndimage import gaussian_filter

from methods.parts.maps import error_map, image_score, smooth_upsample


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("cells", "side", "sigma"), [(8, 64, 1.0), (14, 50, 4.0), (4, 9, 7.5)])
def test_smooth_upsample_is_interpolation_then_scipy_gaussian(
    cells: int, side: int, sigma: float, align: bool
) -> None:
    maps = numbers(3, cells, cells)
    large = F.interpolate(maps[:, None].double(), side, mode="bilinear", align_corners=align)[:, 0]
    wanted = [gaussian_filter(plane, sigma, mode="reflect", truncate=4) for plane in large.numpy()]
    smooth = smooth_upsample(maps, side, sigma, align_corners=align)
    assert smooth.dtype == torch.float32
    np.testing.assert_allclose(smooth, np.stack(wanted), atol=1e-6)


def test_smooth_upsample_without_gaussian_is_interpolation() -> None:
    maps = numbers(2, 5, 7)
    wanted = F.interpolate(maps[:, None], (20, 20), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(smooth_upsample(maps, 20, 0.0), wanted, rtol=0, atol=1e-6)


def test_error_map_is_the_norm_over_channels() -> None:
    first, second = numbers(2, 5, 3, 4), numbers(2, 5, 3, 4, seed=1)
    wanted = np.sqrt(((first - second).numpy() ** 2).sum(axis=1))
    np.testing.assert_allclose(error_map(first - second), wanted, rtol=1e-5)


def test_image_score_is_the_largest_window_average() -> None:
    maps = numbers(3, 9, 9)
    windows = [maps[:, y : y + 4, x : x + 4].mean(dim=(1, 2)) for y in range(6) for x in range(6)]
    torch.testing.assert_close(image_score(maps, 4), torch.stack(windows).amax(dim=0))
    assert torch.equal(image_score(maps, 1), maps.amax(dim=(1, 2)))
