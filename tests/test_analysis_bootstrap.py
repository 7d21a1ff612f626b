"""Intervals over images: against scikit-learn, Hanley and McNeil, and what pairing must do."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from made_rows import made_frame
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from results.analysis.bootstrap import bootstrap, gaps_over_images, resample
from results.analysis.statistics import pairwise
from results.analysis.summary import summary


def _scores(generator, n=40, decimals=1):
    labels = np.arange(n) % 3 > 0
    return labels, (generator.normal(0, 1, n) + labels).round(decimals)


def test_resampled_metrics_equal_scikit_learn_on_repeated_images():
    generator = np.random.default_rng(0)
    labels, scores = _scores(generator)
    weights = generator.integers(0, 3, (6, len(labels)))
    drawn = resample(labels, scores, weights)
    for number, weight in enumerate(weights):
        truth, judged = labels.repeat(weight), scores.repeat(weight)
        precision, recall, _ = precision_recall_curve(truth, judged)
        f1 = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
        assert drawn["image_auroc"][number] == pytest.approx(roc_auc_score(truth, judged))
        assert drawn["image_ap"][number] == pytest.approx(average_precision_score(truth, judged))
        assert drawn["image_f1max"][number] == pytest.approx(f1)


def _scored(**gains):
    """Frame and scores of rows on the same 60 images of category "x": a seed for each gain."""
    values, rows = {}, []
    labels, noise = _scores(np.random.default_rng(0), n=60, decimals=6)
    for method, of_method in gains.items():
        for seed, gain in enumerate(of_method):
            scores = noise + gain * labels
            values[method, seed, "x"] = roc_auc_score(labels, scores)
            rows += [
                {"cell_id": f"{method}-{seed}", "key": f"x/{i:03d}", "category": "x", "defect": "",
                 "label": bool(label), "score": float(score)}
                for i, (label, score) in enumerate(zip(labels, scores, strict=True))
            ]  # fmt: skip
    return made_frame(values), pl.DataFrame(rows)


def test_bootstrap_of_one_seed_has_the_spread_of_auroc_over_images():
    frame, scores = _scored(a=[1])
    row = bootstrap(frame, scores, draws=4000).filter(metric="image_auroc").row(0, named=True)
    auc = frame["value"][0]
    assert row["low"] < auc < row["high"]
    # Hanley and McNeil (1982): the standard error of an AUROC, 40 anomalous and 20 normal images.
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 39 * (q1 - auc**2) + 19 * (q2 - auc**2)) / (40 * 20)
    assert (row["high"] - row["low"]) / (2 * 1.96) == pytest.approx(variance**0.5, rel=0.35)
    assert (row["seeds"], row["categories"], row["complete"]) == (1, 1, True)


def test_bootstrap_draws_the_same_images_for_every_seed():
    def width(*quality):
        row = bootstrap(*_scored(a=quality)).filter(metric="image_auroc").row(0, named=True)
        return row["high"] - row["low"]

    # Equal trainings do not make the test set any larger; different ones are a noise of their own.
    assert width(1, 1, 1, 1) == pytest.approx(width(1), rel=1e-9)
    assert width(0, 0, 2, 2) > 1.5 * width(1)


def test_bootstrap_never_claims_less_noise_than_the_seeds_have():
    frame, scores = _scored(a=[0, 1, 2])
    student = summary(frame).row(0, named=True)
    drawn = bootstrap(frame, scores, draws=4000).filter(metric="image_auroc").row(0, named=True)
    assert drawn["high"] - drawn["low"] > 0.9 * (student["high"] - student["low"])


def test_bootstrap_is_repeatable_and_independent_of_row_order():
    frame, scores = _scored(a=[0, 1, 2])
    shuffled = bootstrap(frame.reverse(), scores.sample(fraction=1, shuffle=True, seed=1))
    assert bootstrap(frame, scores).equals(shuffled)


def test_another_test_set_moves_both_rows_together():
    frame, scores = _scored(a=[1, 1], b=[1, 1])
    row = gaps_over_images(frame, scores, "a", "b").filter(metric="image_auroc").row(0, named=True)
    assert (row["low"], row["high"]) == (0, 0), "equal scores stay equal on any images"
    frame, scores = _scored(a=[0.6, 0.6], b=[0.4, 0.4])
    row = gaps_over_images(frame, scores, "a", "b").filter(metric="image_auroc").row(0, named=True)
    alone = bootstrap(frame, scores).filter(metric="image_auroc", method="a").row(0, named=True)
    gap = pairwise(frame).row(0, named=True)["difference"]
    assert row["low"] < gap < row["high"]
    assert row["high"] - row["low"] < 0.7 * (alone["high"] - alone["low"]), "paired"
    back = gaps_over_images(frame, scores, "b", "a").filter(metric="image_auroc").row(0, named=True)
    assert (back["low"], back["high"]) == pytest.approx((-row["high"], -row["low"]))
    assert gaps_over_images(frame, scores.clear(), "a", "b").is_empty()
