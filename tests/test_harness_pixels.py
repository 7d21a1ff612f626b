"""A method that reads pixels goes the way of one that reads features: cache, rows, pictures."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from made_studies import made_place
from torch import Tensor

from benchmarks.base import SealedError, sealed
from benchmarks.parts.images import load_views
from harness import features, registry
from harness.cell import Cell, Held
from harness.commands._estimate import estimate
from harness.commands.show import show
from harness.execute import batches, run
from harness.features import FeatureCache, feature_task, missing_features
from harness.place import Place
from harness.plan import plan
from harness.search.stages import one_by_one, search
from harness.search.study import plan_studies
from methods.base import Batches, Method, Preset, Scores, Stage, quiet
from methods.parts.backbone import Pixels
from methods.parts.cost import Cost
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

    presets: ClassVar = {"smoke": Preset(Config(), Knobs())}
    mean: Tensor

    def __init__(self, config: Config, *, seed: int = 0) -> None:
        super().__init__(config, seed=seed)
        side = self.inputs(config).side
        self.register_buffer("mean", torch.zeros(3, side, side))

    @classmethod
    def inputs(cls, config: Config) -> Pixels:
        return Pixels(resize=config.side, crop=config.crop)

    @classmethod
    def check(cls, config: Config, knobs: Knobs, images: int) -> None:
        pass

    @classmethod
    def search(cls, config: Config) -> tuple[Stage, ...]:
        return (Stage({"power": (0.5, 1.0)}),)

    @classmethod
    def cost(cls, config: Config, images: int) -> Cost:
        return Cost(train_flops=float(images))

    def fit(self, train: Batches, **told: Any) -> None:
        for batch in train.ordered(32):
            self.mean += batch.inputs.sum(dim=0) / len(train)

    def score(self, inputs: Tensor, keys: Sequence[str], knobs: Knobs, found: Any = None) -> Scores:
        maps = (inputs - self.mean).square().mean(dim=1) ** knobs.power
        return Scores(maps, maps.mean(dim=(1, 2)))


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """MeanImage stands among the methods, as if it had a file there."""
    module, names = ModuleType("methods.meanimage"), registry.names
    module.METHOD = MeanImage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "methods.meanimage", module)
    monkeypatch.setattr(registry, "names", lambda kind: [*names(kind), "meanimage"])
    yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return made_place(tmp_path / "runs", FeatureCache(root=tmp_path / "cache"))


def cells(*overrides: str, **how: Any) -> list[Cell]:
    how = {"seeds": 1, "categories": ["disc", "gear"]} | how
    return plan(["shapes"], ["meanimage"], preset="smoke", overrides=overrides, **how)


def test_pixels_are_the_views_bytes_in_the_cache_and_shares_of_one_for_the_method(
    place: Place,
) -> None:
    [cell] = cells("meanimage.crop=20")
    task = feature_task(cell, "train")
    assert task is not None and "pixels of train (20 x 20)" in task.label
    kept = cell.data.open_kept()
    samples = kept.train(cell.data.categories)
    read = batches(cell, samples, "train", place, quiet)
    rows, noted = place.cache.open(task)
    wanted = load_views(kept, samples, 24, 20)
    assert rows.dtype == np.uint8 and noted["images"] == len(samples)
    assert np.array_equal(rows, wanted)
    found = read.batches.fetch([3, 1])
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.from_numpy(wanted[[3, 1]]).float() / 255)


def test_images_are_decoded_once_for_all_seeds_and_settings(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    views = features.load_views
    monkeypatch.setattr(
        features, "load_views", lambda b, s, *view: (decoded.append(len(s)), views(b, s, *view))[1]
    )
    found = cells(seeds=2) + cells("meanimage.power=0.5", seeds=2)
    assert len(missing_features(found, place.cache)) == 2
    assert [error for _, error in run([[cell] for cell in found], place)] == [None] * 4
    assert sum(decoded) == found[0].data.train_images + found[0].data.test_images
    assert missing_features(found, place.cache) == []
    frame = read(place.store.out)
    assert frame["value"].is_between(0, 1).all()
    assert set(frame["weights_sha256"]) == {""}
    assert (frame["images_per_second"] > 0).all()


def test_another_view_is_another_entry_and_features_keep_theirs(place: Place) -> None:
    entries = {
        place.cache.path(task)
        for cell in cells() + cells("meanimage.crop=20") + cells("meanimage.side=32")
        for split in cell.splits
        if (task := feature_task(cell, split))
    }
    assert len(entries) == 6


def test_the_test_split_stays_sealed(place: Place) -> None:
    [cell] = cells()
    task = feature_task(cell, "test")
    assert task is not None
    with sealed(), pytest.raises(SealedError):
        place.cache.make(task, place.device, quiet)


def test_a_dry_run_counts_the_bytes_of_pixels(place: Place) -> None:
    [cell] = cells()
    images = cell.data.train_images + cell.data.test_images
    caption = str(estimate([cell], place.store, place.cache).caption)
    assert f"2 sets of features or pixels to make, {3 * 24**2 * images / 1e9:.2f} GB" in caption


def test_knobs_are_searched_on_pixels_of_the_pseudo_validation(place: Place) -> None:
    with sealed():
        [study] = plan_studies(cells(held=Held()), [], "image_auroc", joint=False, named=True)
        knobs, [stage] = search(study, place, one_by_one)
    assert [len(one.values) for one in stage.tried] == [1, 1]
    assert knobs == replace(study.first.knobs, power=knobs.power)


def test_what_it_sees_is_drawn(place: Place, tmp_path: Path) -> None:
    assert [error for _, error in run([cells()], place)] == [None]
    wanted = {"method": "meanimage", "seed": 0, "category": "disc", "image": None}
    written = show(place.store.out, tmp_path / "pictures", **wanted)  # type: ignore[arg-type]
    assert len(written) == 5 and all(path.stat().st_size > 1000 for path in written)
