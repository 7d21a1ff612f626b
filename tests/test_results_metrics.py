"""Metrics against scikit-learn and against a slow, direct AUPRO."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from results import metrics
from results.metrics import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    Measured,
    image_metrics,
    pixel_metrics,
)


def _random_maps(seed, n=6, size=24, decimals=None):
    generator = np.random.default_rng(seed)
    masks = np.zeros((n, size, size), dtype=bool)
    for mask in masks[1:]:
        for _ in range(generator.integers(1, 4)):
            top, left = generator.integers(0, size - 6, 2)
            height, width = generator.integers(1, 7, 2)
            mask[top : top + height, left : left + width] = True
    maps = (generator.standard_normal(masks.shape) + 1.5 * masks).astype(np.float32)
    return masks, maps if decimals is None else maps.round(decimals)


def _regions_by_flooding(mask):
    """8-connected regions as lists of pixels, without any library."""
    left = set(zip(*np.nonzero(mask), strict=True))
    regions = []
    while left:
        todo, region = [left.pop()], []
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        regions.append(region)
    return regions


def _direct_aupro(masks, maps, limit=0.3):
    """Every distinct score of any pixel as a threshold; overlap counted region by region."""
    regions = [(n, *np.transpose(r)) for n, m in enumerate(masks) for r in _regions_by_flooding(m)]
    points = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        above = maps >= threshold
        overlap = np.mean([above[n, ys, xs].mean() for n, ys, xs in regions])
        points.append((above[~masks].mean(), overlap))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x1 > limit:
            area += (limit - x0) * (y0 + y0 + (y1 - y0) * (limit - x0) / (x1 - x0)) / 2
            break
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def _direct_f1_max(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    return max(2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r > 0)


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_metrics_equal_independent_references(seed, decimals):
    masks, maps = _random_maps(seed, decimals=decimals)
    got = {name: measured.value for name, measured in pixel_metrics(masks, maps).items()}
    truth, scores = masks.ravel(), maps.ravel()
    assert tuple(got) == PIXEL_METRICS
    assert got["pixel_auroc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-9)
    assert got["pixel_ap"] == pytest.approx(average_precision_score(truth, scores), abs=1e-9)
    assert got["pixel_f1max"] == pytest.approx(_direct_f1_max(truth, scores), abs=1e-9)
    assert got["pixel_aupro"] == pytest.approx(_direct_aupro(masks, maps), abs=1e-6)
    assert got["pixel_aupro_5"] == pytest.approx(_direct_aupro(masks, maps, limit=0.05), abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_image_metrics_equal_scikit_learn(dtype):
    generator = np.random.default_rng(3)
    labels = generator.random(200) < 0.4
    scores = (10 * generator.standard_normal(200) + 5 * labels).astype(dtype)
    got = {name: measured.value for name, measured in image_metrics(labels, scores).items()}
    assert tuple(got) == IMAGE_METRICS
    assert got["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert got["image_ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert got["image_f1max"] == pytest.approx(_direct_f1_max(labels, scores), abs=1e-9)


def test_constant_maps_are_chance():
    masks, maps = _random_maps(0)
    got = pixel_metrics(masks, np.zeros_like(maps))
    assert got["pixel_auroc"].value == 0.5
    assert got["pixel_ap"].value == pytest.approx(masks.mean(), abs=1e-12)
    assert got["pixel_aupro"].value == pytest.approx(0.15, abs=1e-12)


def test_perfect_maps_reach_one_and_inverted_maps_stay_below_one_half():
    masks, _ = _random_maps(0)
    perfect = pixel_metrics(masks, masks.astype(np.float32))
    assert {measured.value for measured in perfect.values()} == {1.0}
    inverted = pixel_metrics(masks, -masks.astype(np.float32))
    assert inverted["pixel_auroc"].value == 0.0
    assert inverted["pixel_aupro"].value == 0.0


@pytest.mark.parametrize("corner, share", [(9, 1 / 2), (5, 25 / 26)])
def test_small_regions_weigh_as_much_as_large_ones_and_corners_join(corner, share):
    masks = np.zeros((1, 10, 10), dtype=bool)
    masks[0, :5, :5] = masks[0, corner, corner] = True
    maps = np.zeros(masks.shape, dtype=np.float32)
    maps[0, :5, :5] = 1
    # The share found before the first false positive, then a straight line to (1, 1).
    aupro = pixel_metrics(masks, maps)["pixel_aupro"].value
    assert aupro == pytest.approx(share + (1 - share) * 0.15)


@pytest.mark.parametrize("decimals", [None, 1])
def test_order_of_images_changes_no_bit(decimals):
    masks, maps = _random_maps(5, n=20, decimals=decimals)
    order = np.random.default_rng(0).permutation(len(masks))
    assert pixel_metrics(masks, maps) == pixel_metrics(masks[order], maps[order])


@pytest.mark.parametrize("threads, chunk", [("1", 1 << 23), ("3", 1000), ("2", 1), ("8", 577)])
def test_neither_threads_nor_chunks_change_a_bit(monkeypatch, threads, chunk):
    masks, maps = _random_maps(6, n=3, size=12, decimals=1)
    expected = pixel_metrics(masks, maps)
    monkeypatch.setattr(metrics, "CHUNK", chunk)
    monkeypatch.setattr(metrics, "SMALL", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert pixel_metrics(masks, maps) == expected


@pytest.mark.parametrize("marked, kind", [(False, "anomalous"), (True, "normal")])
def test_one_class_only_is_undefined_with_a_reason(marked, kind):
    images = image_metrics(np.full(4, marked), np.arange(4.0))
    assert set(images.values()) == {Measured(None, f"no {kind} test images")}
    pixels = pixel_metrics(np.full((2, 3, 3), marked), np.zeros((2, 3, 3), np.float32))
    assert set(pixels.values()) == {Measured(None, f"no {kind} test pixels")}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_broken_scores_are_refused_with_their_number(bad):
    masks, maps = _random_maps(0)
    maps[0, 0, :3] = bad
    with pytest.raises(ValueError, match=r"3 of 3,456 values in the anomaly maps are NaN or inf"):
        pixel_metrics(masks, maps)
    with pytest.raises(ValueError, match="1 of 2 values in the image scores"):
        image_metrics([True, False], [0.5, bad])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 4, 4\).*shape \(2, 4, 5\)"):
        pixel_metrics(np.zeros((2, 4, 5), bool), np.zeros((2, 4, 4), np.float32))


def test_counts_beyond_float32_stay_exact():
    # 2^24 + 2 normal items: float32 counts would stop growing.
    labels = np.zeros(2**24 + 4, dtype=bool)
    labels[:2] = True
    scores = np.zeros(len(labels), dtype=np.float32)
    scores[0], scores[-1] = 1, 2
    normals = 2**24 + 2
    expected = ((normals - 1) + (normals - 1) / 2) / (2 * normals)
    assert image_metrics(labels, scores)["image_auroc"].value == expected
