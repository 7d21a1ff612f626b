"""Curves over pixels: exact at each point, from end to end, whatever the thresholds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from results import evidence
from results.metrics import pixel_metrics


def _maps(seed=0, images=12, side=48):
    random = np.random.default_rng(seed)
    masks = np.zeros((images, side, side), bool)
    for mask in masks[: images // 2]:
        for _ in range(2):
            top, left = random.integers(0, side - 12, 2)
            mask[top : top + random.integers(2, 12), left : left + random.integers(2, 12)] = True
    noise = ndimage.gaussian_filter(random.normal(size=masks.shape), (0, 2, 2))
    return masks, (noise + 0.1 * masks).astype(np.float32)


def test_curves_run_from_end_to_end_and_never_fall():
    curves = evidence.pixel_curves(*_maps())
    for name in ("fpr", "tpr", "pro"):
        points = curves[name]
        assert points[0] == 0 and points[-1] == 1
        assert (np.diff(points) >= 0).all()
        assert 100 < len(points) <= evidence.POINTS + 2


def test_each_point_is_counted_over_all_pixels():
    masks, maps = _maps()
    curves = evidence.pixel_curves(masks, maps)
    normal = np.sort(maps[~masks])[::-1]
    for fpr, tpr in zip(curves["fpr"][1:-1], curves["tpr"][1:-1], strict=True):
        allowed = round(fpr * len(normal))
        # Every threshold that admits so many normal pixels lies between two of their scores.
        low = normal[allowed] if allowed < len(normal) else -np.inf
        high = normal[allowed - 1] if allowed else np.inf
        shares = [(maps[masks] > low).mean(), (maps[masks] >= high).mean()]
        assert min(shares) - 1e-9 <= tpr <= max(shares) + 1e-9


def test_the_areas_are_those_of_the_exact_metrics():
    masks, maps = _maps(seed=3)
    exact = pixel_metrics(masks, maps)
    curves = evidence.pixel_curves(masks, maps)
    roc = np.trapezoid(curves["tpr"], curves["fpr"])
    assert roc == pytest.approx(exact["pixel_auroc"].value, abs=2e-3)
    fpr = np.linspace(0, 0.3, 2000)
    pro = np.trapezoid(np.interp(fpr, curves["fpr"], curves["pro"]), fpr) / 0.3
    assert pro == pytest.approx(exact["pixel_aupro"].value, abs=4e-3)


def test_each_region_counts_alike_in_pro():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 0, 0] = masks[0, 4:, 4:] = True  # one pixel, and sixteen
    maps = np.zeros((1, 8, 8), np.float32)
    maps[0, 0, 0] = 1
    curves = evidence.pixel_curves(masks, maps)
    at = int(np.flatnonzero(curves["tpr"] > 0)[0])
    assert curves["pro"][at] == pytest.approx(1 / 2)
    assert curves["tpr"][at] == pytest.approx(1 / 17)


def test_there_is_no_curve_without_both_kinds_of_pixels():
    masks, maps = _maps()
    assert evidence.pixel_curves(np.zeros_like(masks), maps) is None
    assert evidence.pixel_curves(np.ones_like(masks), maps) is None
    assert evidence.curve_rows("c", "disc", np.zeros_like(masks), maps) == []


def test_evidence_is_read_as_it_was_written_and_absent_where_it_was_not(tmp_path):
    curves = evidence.curve_rows("c1", "disc", *_maps())
    picture = dict.fromkeys(evidence.PICTURES_SCHEMA.names, "x") | {
        "cell_id": "c1", "score": 0.5, "image": b"1", "mask": None, "map": b"2",
        "low": 0.1, "high": 0.9, "level": 0.4,
    }  # fmt: skip
    evidence.write_evidence(tmp_path, "c1", evidence.Evidence(curves, [picture]))
    evidence.write_evidence(tmp_path, "c2", evidence.Evidence([], []))
    assert evidence.read_curves(tmp_path, "c1").height == len(curves)
    assert evidence.read_pictures(tmp_path, "c1").to_dicts() == [picture]
    assert evidence.read_curves(tmp_path, "c2").is_empty()
    assert evidence.read_pictures(tmp_path, "c2").is_empty()
    evidence.pictures_path(tmp_path, "c2").write_bytes(b"no parquet")
    with pytest.raises(ValueError, match=r"c2\.parquet: cannot be read"):
        evidence.read_pictures(tmp_path, "c2")


@pytest.mark.parametrize("ties", [False, True])
def test_the_threshold_of_the_largest_f1_is_the_lowest_of_all_that_have_it(ties):
    random = np.random.default_rng(3)
    for size in range(2, 40):
        labels = random.random(size) < 0.4
        scores = random.integers(5, size=size) / 4 if ties else random.random(size)
        f1 = {
            t: 2 * (labels & (scores >= t)).sum() / max(labels.sum() + (scores >= t).sum(), 1)
            for t in scores
        }
        best = max(f1.values())
        expected = min(t for t, value in f1.items() if value == best)
        if labels.any():
            assert evidence.f1max_threshold(labels, scores) == expected
