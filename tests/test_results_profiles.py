"""The metric profiles against the peers' rules, written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import auc

from results.metrics import pixel_metrics
from results.profiles import PROFILES, judge


def _maps(seed, n=5, size=32):
    generator = np.random.default_rng(seed)
    masks = np.zeros((n, size, size), dtype=bool)
    for mask in masks[1:]:
        for top, left in generator.integers(0, size - 8, (2, 2)):
            mask[top : top + 7, left : left + 5] = True
    noise = ndimage.gaussian_filter(generator.standard_normal(masks.shape), (0, 1, 1))
    return masks, (noise + masks).astype(np.float32)


def _ader_aupro(masks, maps, steps=100, limit=0.3):
    """ADer's rule: thresholds in equal steps, FPR below the limit stretched to 0 to 1."""
    regions = [ndimage.label(mask, np.ones((3, 3)))[0] for mask in masks]
    low, high = maps.min(), maps.max()
    points = []
    for step in range(steps):
        above = maps > low + (high - low) / steps * step
        overlaps = [
            above[n][region == number].mean()
            for n, region in enumerate(regions)
            for number in range(1, region.max() + 1)
        ]
        points.append((above[~masks].mean(), np.mean(overlaps)))
    fpr, overlap = np.array([point for point in points if point[0] < limit]).T
    return auc((fpr - fpr.min()) / (fpr.max() - fpr.min()), overlap)


def _ader_f1_max(masks, maps):
    scaled = (maps - maps.min()) / (maps.max() - maps.min())
    values = []
    for threshold in np.arange(0, 1.001, 0.05):
        above = scaled > threshold
        hit = (above & masks).sum()
        precision, recall = hit / max(above.sum(), 1), hit / masks.sum()
        values.append(2 * precision * recall / max(precision + recall, 1e-12))
    return max(values)


@pytest.mark.parametrize("seed", range(3))
def test_ader_takes_aupro_and_f1_at_equal_steps(seed):
    masks, maps = _maps(seed)
    stepped = judge(PROFILES["ader"], masks, maps)
    assert stepped["pixel_aupro"].value == pytest.approx(_ader_aupro(masks, maps), abs=1e-6)
    assert stepped["pixel_f1max"].value == pytest.approx(_ader_f1_max(masks, maps), abs=1e-6)
    exact = pixel_metrics(masks, maps)
    assert stepped["pixel_aupro"] != exact["pixel_aupro"]
    assert stepped["pixel_f1max"].value < exact["pixel_f1max"].value
    assert [stepped[name] for name in ("pixel_auroc", "pixel_ap")] == [
        exact[name] for name in ("pixel_auroc", "pixel_ap")
    ]


@pytest.mark.parametrize("name", ["default", "uniad", "patchcore"])
def test_the_other_profiles_take_exact_thresholds(name):
    masks, maps = _maps(0)
    assert judge(PROFILES[name], masks, maps) == pixel_metrics(masks, maps)


def test_what_has_no_steps_is_undefined_with_a_reason():
    masks, maps = _maps(0)

    def reason(masks, maps):
        return judge(PROFILES["ader"], masks, maps)["pixel_aupro"].reason

    assert "no thresholds" in reason(masks, np.zeros_like(maps))
    assert reason(np.zeros_like(masks), maps) == "no anomalous test pixels"
    maps[1][~masks[1]] = 0
    maps[0, 0, 0] = 1e9
    assert "fewer than two" in reason(masks, maps)
