"""Each data set by itself: where it is looked for, its published counts, what it renders."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from made_data import WRITERS, opened, write_category

from benchmarks.base import Counts, DataError, Sample
from benchmarks.parts.content import check, duplicates
from benchmarks.parts.folder import folder_benchmark

SHARED = Path(__file__).parents[1] / "../shared/data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not here")


@pytest.mark.parametrize("name", ["mvtec", "mpdd", "dtd_synthetic", "visa", "btad"])
def test_missing_data_says_where_layout_and_source(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LAFITE_BENCH_DATA", raising=False)
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(DataError, match=r"no data root was given; set --data"):
        module.BENCHMARK(None)
    with pytest.raises(DataError) as error:
        module.BENCHMARK(tmp_path)
    message, known = str(error.value), module.KNOWN
    assert "\n" not in message
    for part in (str(tmp_path), known.usual_folders[-1], known.layout, known.source):
        assert part in message


@pytest.mark.parametrize("name", ["mvtec", "mpdd", "dtd_synthetic"])
def test_usual_folders_and_the_environment_variable(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    category = next(iter(module.KNOWN.counts))
    for number, usual in enumerate(module.KNOWN.usual_folders):
        root = tmp_path / str(number)
        write_category(root / usual / category)
        assert module.BENCHMARK(root).categories() == (category,)
        monkeypatch.setenv("LAFITE_BENCH_DATA", str(root))
        assert module.BENCHMARK(None).categories() == (category,)


def test_a_named_data_set_takes_its_own_categories_only(tmp_path: Path) -> None:
    write_category(tmp_path / "screw")
    write_category(tmp_path / "metal_plate")
    mvtec = importlib.import_module("benchmarks.mvtec").BENCHMARK(tmp_path)
    assert mvtec.categories() == ("screw",)
    assert "bottle" in mvtec.absent


@needs_shared
@pytest.mark.parametrize("name", ["mvtec", "mpdd"])
def test_published_counts_of_the_real_categories(name: str) -> None:
    data = importlib.import_module(f"benchmarks.{name}").BENCHMARK(SHARED)
    assert data.categories() == ({"mvtec": "screw", "mpdd": "metal_plate"}[name],)
    assert data.count_problems() == []
    assert data.problems() == []
    assert data.pixel_truth


@needs_shared
def test_the_mixed_folder_of_three_real_categories() -> None:
    data = folder_benchmark("mixed", SHARED / "mixed")
    assert data.categories() == ("commutator", "metal_plate", "screw")
    train, test = data.train(["commutator"]), data.test(["commutator"])
    assert len(train) == 278
    assert sum(sample.anomalous for sample in test) == 52
    assert len(test) == 121
    assert check(data, [*train[:5], *test[:5]]) == []
    notes = duplicates(data, train, test)
    assert len(notes) == 14
    assert all(note.endswith("twice in training") for note in notes)


def test_elpv_counts(tmp_path: Path) -> None:
    data = opened("elpv", tmp_path)
    train, test = data.train(), data.test()
    defective = [sample for sample in test if sample.anomalous]
    assert len(train) == 470 + 736
    assert len(train) + len(test) - len(defective) == 1508
    assert len(defective) == 715
    assert data.published["mono"] == Counts(470, 118, 313)
    # The split is fixed: another one would be another data set under the same name.
    keys = "\n".join(sample.key for sample in train)
    assert hashlib.sha256(keys.encode()).hexdigest()[:16] == "e446ef50d48aa278"


def test_elpv_absent_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'lafite-bench\[demo\]'"):
        importlib.import_module("benchmarks.elpv").BENCHMARK(None)


def test_shapes_masks_hold_exactly_what_the_flaw_changed(tmp_path: Path) -> None:
    shapes = opened("shapes", tmp_path)
    for sample in shapes.test():
        mask = shapes.read_mask(sample)
        assert mask is not None
        clean = shapes.read_image(Sample(sample.key, sample.category, "good", None))
        changed = (shapes.read_image(sample) != clean).any(axis=2)
        assert not changed[~mask].any()
        if sample.anomalous:
            assert changed[mask].mean() > 0.9
            assert 10 <= mask.sum() < mask.size / 10


def test_shapes_pixels_follow_from_the_key_alone(tmp_path: Path) -> None:
    shapes = opened("shapes", tmp_path)
    first, second = shapes.train()[:2]
    image = shapes.read_image(first)
    np.random.default_rng(1).random()
    assert (shapes.read_image(first) == image).all()
    assert (shapes.read_image(second) != image).any()


def test_what_each_layout_means(tmp_path: Path) -> None:
    """Of data sets that are not in the MVTec layout: defects, masks and what is left out."""
    sets = {}
    for name in WRITERS:
        (tmp_path / name).mkdir()
        sets[name] = opened(name, tmp_path / name)
    visa, loco, surface = sets["visa"], sets["mvtec_loco"], sets["kolektorsdd2"]
    [first, *_] = [sample for sample in visa.test(["candle"]) if sample.anomalous]
    marks = visa.read_mask(first)
    assert marks is not None and marks.sum() == 9, "marked from 1 of 255"
    assert [s.defect for s in loco.test(["pushpins"])] == [
        "good", "logical_anomalies", "structural_anomalies",
    ]  # fmt: skip
    assert all(len(s.masks) == 2 for s in loco.test() if s.anomalous)
    assert not [s for s in loco.train() if "validation" in str(s.path)]
    assert [len(surface.train()), len(surface.test())] == [4, 5], "a defective one is left out"
    assert [s.defect for s in surface.test()].count("defect") == 1
    assert {s.category for s in sets["real_iad"].train()} == {"audiojack", "toy"}
    assert all(s.path and s.path.suffix == ".bmp" for s in sets["btad"].train())
    assert not [s for s in sets["mvtec2"].test() if "private" in str(s.path)]


def test_files_that_a_list_names_and_are_missing_are_faults(tmp_path: Path) -> None:
    WRITERS["visa"](tmp_path)
    (tmp_path / "candle/Data/Images/Normal/0000.JPG").unlink()
    (tmp_path / "pcb1/Data/Masks/Anomaly/000.png").unlink()
    WRITERS["kolektorsdd2"](tmp_path / "ksdd2")
    (tmp_path / "ksdd2/train/00002_GT.png").unlink()
    surface = importlib.import_module("benchmarks.kolektorsdd2").BENCHMARK(tmp_path / "ksdd2")
    [line] = surface.problems()
    assert "00002_GT.png: is named by kolektorsdd2 and missing" in line, "not taken for normal"
    visa = importlib.import_module("benchmarks.visa").BENCHMARK(tmp_path)
    assert [line.partition(":")[0].rpartition("/")[2] for line in visa.problems()] == [
        "0000.JPG", "000.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("visa", "split_csv/1cls.csv", "object,split\n"),
        ("real_iad", "realiad_jsons/realiad_jsons/toy.json", "[" * 100_000),
        ("real_iad", "realiad_jsons/realiad_jsons/toy.json", '{"train": [1], "test": []}'),
    ],
)
def test_a_list_that_is_none_is_one_line(
    tmp_path: Path, name: str, file: str, content: str
) -> None:
    WRITERS[name](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match="copy it again") as caught:
        importlib.import_module(f"benchmarks.{name}").BENCHMARK(tmp_path)
    assert "\n" not in str(caught.value)
