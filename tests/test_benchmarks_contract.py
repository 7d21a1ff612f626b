"""Promises that every data set keeps; a new file in benchmarks/ is found and held to them."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from made_data import opened, write_category

import benchmarks
from benchmarks.base import Benchmark, DataError, SealedError, sealed
from benchmarks.parts.content import check, fingerprint
from benchmarks.parts.folder import folder_benchmark

NAMES = sorted(
    path.stem
    for path in Path(benchmarks.__path__[0]).glob("*.py")
    if path.stem != "base" and not path.stem.startswith("_")
)


@pytest.fixture(params=NAMES)
def benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> Benchmark:
    return opened(request.param, tmp_path)


def test_splits_are_disjoint_and_keys_unique(benchmark: Benchmark) -> None:
    train, test = benchmark.train(), benchmark.test()
    keys = [sample.key for sample in train + test]
    assert train
    assert test
    assert len(set(keys)) == len(keys)
    files = [sample.path for sample in train + test if sample.path is not None]
    assert len(set(files)) == len(files)


def test_training_is_normal_and_every_sample_in_its_category(benchmark: Benchmark) -> None:
    assert not any(sample.anomalous for sample in benchmark.train())
    assert any(sample.anomalous for sample in benchmark.test())
    for category in benchmark.categories():
        for sample in benchmark.train([category]) + benchmark.test([category]):
            assert sample.category == category
            assert sample.key.startswith(f"{category}/")


def test_order_is_that_of_the_keys_and_repeats(benchmark: Benchmark) -> None:
    for split in (benchmark.train, benchmark.test):
        samples = split()
        assert all(before.key < after.key for before, after in pairwise(samples))
        assert split(tuple(reversed(benchmark.categories()))) == samples
        assert split() == samples


def test_name_licence_source_and_counts_are_stated(benchmark: Benchmark) -> None:
    assert benchmark.name in NAMES
    assert benchmark.licence
    assert benchmark.source
    assert set(benchmark.categories()) <= set(benchmark.published)
    assert set(benchmark.absent) == set(benchmark.published) - set(benchmark.categories())
    assert benchmark.pixel_truth == (benchmark.no_pixel_reason == "")


def test_masks_lie_on_anomalies_only_and_fit_their_image(benchmark: Benchmark) -> None:
    test = benchmark.test()
    some = [next(s for s in test if s.anomalous is wanted) for wanted in (False, True)]
    for sample in some:
        image, mask = benchmark.read_image(sample), benchmark.read_mask(sample)
        assert image.dtype == np.uint8
        assert image.shape[2:] == (3,)
        if not benchmark.pixel_truth:
            assert mask is None
            continue
        assert mask is not None
        assert mask.dtype == bool
        assert mask.shape == image.shape[:2]
        assert mask.any() == sample.anomalous


def test_fingerprint_is_stable_and_sees_one_byte(benchmark: Benchmark, tmp_path: Path) -> None:
    samples = benchmark.train()[:3]
    before = fingerprint(benchmark, samples)
    assert len(before) == 16
    assert fingerprint(benchmark, samples[::-1]) == before
    assert fingerprint(benchmark, samples[:2]) != before
    changed = replace(samples[0], key=samples[0].key + "x")
    assert fingerprint(benchmark, [changed, *samples[1:]]) != before
    if (path := samples[0].path) is not None:
        copy = tmp_path / "copy.png"
        copy.write_bytes(path.read_bytes())
        assert fingerprint(benchmark, [replace(samples[0], path=copy), *samples[1:]]) == before
        copy.write_bytes(path.read_bytes() + b"\0")
        assert fingerprint(benchmark, [replace(samples[0], path=copy), *samples[1:]]) != before


def test_fingerprint_sees_a_mask_byte(tmp_path: Path) -> None:
    write_category(tmp_path / "widget")
    data = folder_benchmark("mine", tmp_path)
    before = fingerprint(data, data.test())
    mask = tmp_path / "widget/ground_truth/crack/000_mask.png"
    mask.write_bytes(mask.read_bytes() + b"\0")
    assert fingerprint(data, data.test()) != before


def test_seal_holds_in_threads_and_nests(benchmark: Benchmark) -> None:
    caught: list[bool] = []

    def ask() -> None:
        try:
            benchmark.test()
        except SealedError:
            caught.append(True)

    with sealed():
        with sealed():
            pass
        with pytest.raises(SealedError, match=benchmark.name):
            benchmark.test()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        assert benchmark.train()
    assert caught == [True]
    assert benchmark.test()


def test_seal_opens_after_an_error(tmp_path: Path) -> None:
    shapes = opened("shapes", tmp_path)
    with pytest.raises(RuntimeError, match="inside"), sealed():
        raise RuntimeError("inside")
    assert shapes.test()


def test_unknown_category_is_named_beside_those_present(benchmark: Benchmark) -> None:
    category, present = benchmark.categories()[0], ", ".join(benchmark.categories())
    with pytest.raises(DataError, match=f": no category '{category}x'; there are: {present}$"):
        benchmark.train([category + "x"])


def test_check_passes_and_reports_progress(benchmark: Benchmark) -> None:
    done: list[None] = []
    samples = [*benchmark.train()[:3], *benchmark.test()[:3], *benchmark.test()[-3:]]
    assert check(benchmark, samples, lambda: done.append(None)) == []
    assert len(done) == len(samples)


def test_count_problems_compare_with_what_is_published(
    benchmark: Benchmark, tmp_path: Path
) -> None:
    miniature = benchmark.location == str(tmp_path)
    counted = [name for name in benchmark.categories() if benchmark.published.get(name)]
    assert len(benchmark.count_problems()) == (len(counted) if miniature else 0)
