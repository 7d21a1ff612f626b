"""Intervals over images: against DeLong's published example, exact bounds, and coverage."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from made_rows import made_frame
from scipy import stats
from sklearn.metrics import roc_auc_score

from results.analysis.images import gaps_over_images, with_images
from results.analysis.statistics import compare
from results.reports.text import render


def _tables(scores, labels, categories=("x",)):
    """Frame and scores of {method: an array (seeds, categories, images)} on the same images."""
    values, rows = {}, []
    for method, of_method in scores.items():
        for seed, of_seed in enumerate(of_method):
            for category, of_images in zip(categories, of_seed, strict=True):
                values[method, seed, category] = roc_auc_score(labels, of_images)
                rows += [
                    {"cell_id": f"{method}-{seed}", "key": f"{category}/{i:03d}", "defect": "",
                     "category": category, "label": bool(label), "score": float(score)}
                    for i, (label, score) in enumerate(zip(labels, of_images, strict=True))
                ]  # fmt: skip
    return made_frame(values), pl.DataFrame(rows)


def _ends(scores, labels, categories=("x",)):
    rows = with_images(*_tables({"a": scores}, labels, categories))
    return rows.select("images_low", "images_high").row(0)


def _noise(seed=0, shape=(1, 1, 60), gain=1.0):
    labels = np.arange(shape[-1]) % 3 > 0
    return labels, np.random.default_rng(seed).normal(0, 1, shape) + gain * labels


def test_the_interval_of_one_training_is_delongs_on_the_logit():
    labels, scores = _noise()
    anomalous, normal = scores[0, 0, labels], scores[0, 0, ~labels]
    wins = (anomalous[:, None] > normal) + 0.5 * (anomalous[:, None] == normal)
    auc, error = wins.mean(), 0.0
    for axis in (0, 1):
        placed = wins.mean(axis=axis)
        error += placed.var(ddof=1) / len(placed)
    slope = auc * (1 - auc)
    low, high = _ends(scores, labels)
    step = stats.norm.ppf(0.975) * error**0.5 / slope
    odds = auc / (1 - auc)
    plain = [odds * np.exp(sign * step) / (1 + odds * np.exp(sign * step)) for sign in (-1, 1)]
    assert (low, high) == pytest.approx(plain, abs=0.02), "but for Student's t in place of normal"
    assert low < plain[0] and plain[1] < high


@pytest.mark.parametrize("categories, low", [(1, 0.05 ** (1 / 14)), (3, 0.05 ** (1 / 42))])
@pytest.mark.parametrize("seeds", [1, 2])
def test_where_all_images_are_told_apart_there_is_a_bound(categories, low, seeds):
    labels = np.arange(32) >= 14
    names = [f"c{number}" for number in range(categories)]
    scores = np.broadcast_to(labels.astype(float), (seeds, categories, 32))
    assert _ends(scores, labels, names) == (pytest.approx(low), None)
    if categories == seeds == 1:
        assert _ends(-scores, labels) == (None, pytest.approx(1 - low))
        frame, kept = _tables({"a": scores}, labels)
        assert "at least 80.7" in render(frame, "md", scores=kept)
        assert "100.0 to 100.0" not in render(frame, "md", scores=kept)


def test_equal_scores_and_single_images_have_no_interval():
    labels = np.arange(32) >= 14
    assert _ends(np.zeros((1, 1, 32)), labels) == (None, None)
    single = np.arange(32) >= 1
    assert _ends(_noise(shape=(1, 1, 32))[1], single) == (None, None)


def test_more_trainings_make_the_test_set_no_larger():
    labels, scores = _noise()

    def width(*gains):
        low, high = _ends(np.concatenate([scores + gain * labels for gain in gains]), labels)
        return high - low

    assert width(0, 0, 0, 0) == pytest.approx(width(0), rel=1e-9)
    assert width(-1, -1, 1, 1) > 1.5 * width(0), "unlike trainings are a noise of their own"


def test_rows_without_all_scores_have_no_interval():
    labels, scores = _noise(shape=(2, 1, 60))
    frame, kept = _tables({"a": scores}, labels)
    assert with_images(frame, None).columns == with_images(frame, kept).columns[:-2]
    rows = with_images(frame, kept.filter(pl.col("cell_id") == "a-0"))
    assert rows.select("images_low", "images_high").rows() == [(None, None)]
    other = made_frame({("a", 0, "x"): 0.5}, metric="image_ap")
    assert with_images(other, kept)["images_low"].to_list() == [None]


def test_another_test_set_moves_both_rows_together():
    labels, scores = _noise(shape=(2, 1, 60))
    alike = _tables({"a": scores, "b": scores}, labels)
    assert gaps_over_images(*alike, "a", "b").is_empty(), "no image tells them apart"
    frame, kept = _tables({"a": scores + 0.2 * labels, "b": scores - 0.2 * labels}, labels)
    row = gaps_over_images(frame, kept, "a", "b").row(0, named=True)
    alone = with_images(frame, kept).filter(method="a").row(0, named=True)
    gap = compare(frame, "a", "b").row(0, named=True)["difference"]
    assert row["low"] < gap < row["high"]
    assert row["high"] - row["low"] < 0.7 * (alone["images_high"] - alone["images_low"]), "paired"
    back = gaps_over_images(frame, kept, "b", "a").row(0, named=True)
    assert (back["low"], back["high"]) == pytest.approx((-row["high"], -row["low"]))
    assert gaps_over_images(frame, kept.clear(), "a", "b").is_empty()


@pytest.mark.parametrize("auroc, images", [(0.97, (5, 20)), (0.9, (14, 18)), (0.999, (14, 18))])
def test_intervals_over_images_hold_the_truth(auroc, images):
    normal, anomalous = images
    labels = np.arange(normal + anomalous) >= normal
    lift = 2**0.5 * stats.norm.ppf(auroc)
    draw, held, runs = np.random.default_rng(1), 0, 150
    scores = {f"m{n}": draw.normal(size=(1, 1, len(labels))) + lift * labels for n in range(runs)}
    rows = with_images(*_tables(scores, labels))
    for low, high in rows.select("images_low", "images_high").iter_rows():
        held += (0 if low is None else low) <= auroc <= (1 if high is None else high)
    assert held / runs > 0.95 - 2.6 * (0.05 * 0.95 / runs) ** 0.5
