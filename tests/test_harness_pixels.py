"""A method that reads pixels goes the way of one that reads features: cache, rows, pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from made_cells import smoke_cells
from made_studies import made_place, score_here, study
from torch import Tensor

from benchmarks.base import SealedError, sealed
from benchmarks.parts.images import load_views
from harness.commands.show import command
from harness.plan import registry
from harness.plan.cell import Cell
from harness.search.tuning import search_stages
from harness.work import features as features_module
from harness.work.cache import FeatureCache, missing_features
from harness.work.execute import inputs, run
from harness.work.features import feature_set
from harness.work.place import Place
from methods.base import Declaration, Method, Preset, Scores, Stage
from methods.parts.backbone import Pixels
from methods.parts.batches import Batches
from methods.parts.cost import Cost
from methods.parts.progress import quiet
from results.table import read


class MeanImage(Method):
    """Squared distance of each pixel to the mean training image."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        side: int = 24
        crop: int | None = None
        precision: str = "float32"

    @dataclass(frozen=True, kw_only=True)
    class Knobs:
        power: float = 1.0

    mean: Tensor

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        side = self.inputs(config).side
        self.register_buffer("mean", torch.zeros(3, side, side))

    @classmethod
    def inputs(cls, config: Config) -> Pixels:
        return Pixels(resize=config.side, crop=config.crop)

    def fit(self, train: Batches, **told: Any) -> None:
        for batch in train.ordered(32):
            self.mean += batch.inputs.sum(dim=0) / len(train)

    def score(self, inputs: Tensor, knobs: Knobs) -> Scores:
        maps = (inputs - self.mean).square().mean(dim=1) ** knobs.power
        return Scores(maps, maps.mean(dim=(1, 2)))


METHOD = Declaration(
    method=MeanImage,
    presets={"smoke": Preset(MeanImage.Config(), MeanImage.Knobs())},
    check=lambda config, knobs, images: None,
    cost=lambda config, images: Cost(train_flops=float(images)),
    stages=lambda config, knobs: (Stage({"power": (0.5, 1.0)}),),
)


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MeanImage stands among the methods, as if it had a file there."""
    module, names = ModuleType("methods.meanimage"), registry.names
    module.METHOD = METHOD  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "methods.meanimage", module)
    monkeypatch.setattr(registry, "names", lambda kind: [*names(kind), "meanimage"])
    yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return made_place(tmp_path / "runs", FeatureCache(root=tmp_path / "cache"))


def cells(*overrides: str, **how: Any) -> list[Cell]:
    how = {"seeds": 1, "categories": ["disc", "gear"]} | how
    return smoke_cells("meanimage", overrides=overrides, **how)


def test_pixels_are_the_views_bytes_in_the_cache_and_shares_of_one_for_the_method(
    place: Place,
) -> None:
    [cell] = cells("meanimage.crop=20")
    features = feature_set(cell, "train")
    assert features is not None and "pixels of train (20 x 20)" in features.label
    kept = cell.data.open_kept()
    samples = kept.train(cell.data.categories)
    read = inputs(cell, samples, "train", place, quiet)
    rows, _ = place.cache.read(features, place.device, quiet)
    wanted = load_views(kept, samples, 24, 20)
    assert rows.dtype == np.uint8 and len(rows) == len(samples)
    assert np.array_equal(rows, wanted)
    fetched = read.batches.fetch([3, 1])
    assert fetched.dtype == torch.float32
    assert torch.equal(fetched, torch.from_numpy(wanted[[3, 1]]).float() / 255)


def test_images_are_decoded_once_for_all_seeds_and_settings(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    views = features_module.load_views

    def counted(benchmark: Any, samples: Any, *view: Any) -> Any:
        decoded.append(len(samples))
        return views(benchmark, samples, *view)

    monkeypatch.setattr(features_module, "load_views", counted)
    both = cells(seeds=2) + cells("meanimage.power=0.5", seeds=2)
    assert len(missing_features(both, place.cache)) == 2
    assert [error for _, error in run(both, place)] == [None] * 2
    assert sum(decoded) == both[0].data.train_images + both[0].data.test_images
    assert missing_features(both, place.cache) == []
    frame = read(place.store.out)
    assert frame["value"].is_between(0, 1).all()
    assert set(frame["weights_sha256"]) == {""}
    assert (frame["images_per_second"] > 0).all()


def test_the_test_split_stays_sealed(place: Place) -> None:
    [cell] = cells()
    features = feature_set(cell, "test")
    assert features is not None
    with sealed(), pytest.raises(SealedError):
        place.cache.make([features], place.device, quiet)


def test_knobs_are_searched_on_pixels_of_the_pseudo_validation(place: Place) -> None:
    with sealed():
        of = study("meanimage")
        found, [stage] = search_stages(of, place, score_here)
    assert [len(setting.values) for setting in stage.tried] == [1, 1]
    assert found.knobs == replace(of.first.knobs, power=found.knobs.power)


def test_what_it_sees_is_drawn(place: Place, tmp_path: Path) -> None:
    assert [error for _, error in run(cells(), place)] == [None]
    out = tmp_path / "pictures"
    command(place.store.out, method="meanimage", category="disc", out=out)
    written = list(out.glob("*.png"))
    assert len(written) == 5 and all(path.stat().st_size > 1000 for path in written)
