"""Promises that every method keeps, on the made data set `shapes` with the `smoke` preset."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from made_features import (
    anomalous_share,
    batches,
    inputs,
    mean_image_auroc,
    need_lite0,
    one_thread,  # noqa: F401
    score,
    unseen,
)
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score

from benchmarks.base import SealedError, sealed
from benchmarks.shapes import BENCHMARK
from harness.registry import load, names
from methods.base import BankSearch, Method, Preset, Progress, Scores, SearchesBank

METHODS = names("methods")
SMOKE = "smoke"
FLOOR = 0.8
FLOORS = {
    # Networks from scratch need more than seconds for faint defects; untrained it has 0.5.
    "draem": 0.6,
    # An encoder with random weights finds defects as well as one that learned directions for
    # seconds: more than chance is asked of it here, and that directions are learned has a test in
    # test_methods_patchsvdd.
    "patchsvdd": 0.5,
}
"""Mean image AUROC that a method must exceed, where it can't be FLOOR."""
MARGIN = 0.2
MARGINS = {"fastflow": (0.2, 0.05), "uniad": (0.2, 0.1)}
"""By how much training must raise image AUROC and pixel AUROC, where it isn't MARGIN for both:
untrained, these two already tell places apart by how far features are from the origin."""
TWINS = {
    # The preconditioned one is the Gaussian of the data before its first step: 0.87. That gradients
    # teach more than this has a test in test_methods_lafite.
    "lafite": {"parameterisation": "noise"},
}
"""What else an untrained twin must not have learned."""
every_method = pytest.mark.parametrize("name", METHODS)


def fitted(name: str, config: Any, seed: int) -> tuple[Method, list[Progress]]:
    """A method that learned from `shapes` while the test split was sealed."""
    need_lite0()
    reports: list[Progress] = []
    with sealed():
        method: Method = load("methods", name).method(config, seed=seed)
        method.fit(batches(method.inputs(config), seed), on_progress=reports.append)
        with pytest.raises(SealedError):
            BENCHMARK(None).test()
    return method, reports


@cache
def learned(name: str) -> tuple[Method, list[Progress]]:
    """The method after its whole smoke fit, once a session."""
    return fitted(name, load("methods", name).presets[SMOKE].config, seed=0)


@cache
def scored(name: str) -> Scores:
    return score(learned(name)[0], knobs(name))


def knobs(name: str) -> Any:
    return load("methods", name).presets[SMOKE].knobs


def short(name: str) -> Any:
    """The smoke configuration with one epoch, where there are epochs."""
    config = load("methods", name).presets[SMOKE].config
    return dataclasses.replace(config, epochs=1) if hasattr(config, "epochs") else config


@every_method
def test_scores_are_finite_float32_of_the_promised_shapes(name: str) -> None:
    maps, images = scored(name)
    count, side = len(unseen()), learned(name)[0].inputs(learned(name)[0].config).side
    assert maps.shape == (count, side, side)
    assert images.shape == (count,)
    assert maps.dtype == images.dtype == torch.float32
    assert maps.isfinite().all() and images.isfinite().all()
    assert not maps.requires_grad


@every_method
def test_it_learned_to_tell_normal_from_anomalous(name: str) -> None:
    # Random backbone weights, or a network that learned nothing, stay near 0.6 or below.
    assert mean_image_auroc(scored(name).images) > FLOORS.get(name, FLOOR)


@every_method
def test_maps_are_higher_inside_the_masks(name: str) -> None:
    maps = scored(name).maps
    side = maps.shape[-1]
    inside = anomalous_share(side, side) > 0
    outside = maps[~inside].mean()
    assert maps[inside].mean() > outside + 0.1 * outside.abs()


class Aurocs(NamedTuple):
    """Of images, the mean over categories, and of all pixels together."""

    image: float
    pixel: float


def aurocs(scores: Scores) -> Aurocs:
    side = scores.maps.shape[-1]
    inside = anomalous_share(side, side) > 0
    pixel = roc_auc_score(inside.flatten().numpy(), scores.maps.flatten().numpy())
    return Aurocs(mean_image_auroc(scores.images), float(pixel))


def of_the_network(name: str) -> Any:
    """Knobs with which nothing scores but what gradients taught: no editing, where there is any."""
    own = knobs(name)
    return dataclasses.replace(own, k=0) if hasattr(own, "weighting") else own


@cache
def twin(name: str, seed: int) -> Aurocs:
    """A method that differs from the learned one in its gradient steps alone: they go nowhere."""
    still = dataclasses.replace(short(name), learning_rate=1e-12, **TWINS.get(name, {}))
    return aurocs(score(fitted(name, still, seed)[0], of_the_network(name)))


def learned_something(name: str, trained: Aurocs, untrained: Aurocs) -> bool:
    image, pixel = MARGINS.get(name, (MARGIN, MARGIN))
    return trained.image > untrained.image + image and trained.pixel > untrained.pixel + pixel


@every_method
def test_training_beats_an_untrained_twin(name: str) -> None:
    if not hasattr(short(name), "learning_rate"):
        pytest.skip(f"{name} is not trained by gradients")
    if name == "patchsvdd":
        pytest.skip("a random encoder finds defects as well: see FLOORS")
    trained = aurocs(score(learned(name)[0], of_the_network(name)))
    assert learned_something(name, trained, twin(name, 0)), (trained, twin(name, 0))
    assert not learned_something(name, twin(name, 1), twin(name, 0)), "this test can't fail"


@every_method
def test_training_loss_falls(name: str) -> None:
    losses = [p.loss for p in learned(name)[1] if p.stage == "train" and p.loss is not None]
    if not losses:
        pytest.skip(f"{name} is not trained by gradients")
    config = learned(name)[0].config
    assert len(losses) == config.epochs
    assert losses[-1] < losses[0]


@every_method
def test_same_seed_same_scores(name: str) -> None:
    first, second = (fitted(name, short(name), seed=3)[0] for _ in range(2))
    scores, again = score(first, knobs(name)), score(second, knobs(name))
    assert torch.equal(scores.maps, again.maps)
    assert torch.equal(scores.images, again.images)


@every_method
def test_another_seed_gives_another_model(name: str) -> None:
    first, second = (fitted(name, short(name), seed=seed)[0].state_dict() for seed in (3, 4))
    assert first.keys() == second.keys()
    differing = [key for key in first if not torch.equal(first[key], second[key])]
    assert differing, "the seed changes nothing"


@every_method
def test_stored_state_gives_equal_scores(name: str, tmp_path: Path) -> None:
    method = learned(name)[0]
    state = {key: value.contiguous() for key, value in method.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    # The seed belongs to the cell, not to the state: it also decides the noise of an image.
    fresh = load("methods", name).method(method.config, seed=method.seed)
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again = score(fresh, knobs(name))
    assert torch.equal(again.maps, scored(name).maps)
    assert torch.equal(again.images, scored(name).images)


@every_method
@pytest.mark.parametrize("size", [1, 32])
def test_batch_size_and_order_do_not_change_scores(name: str, size: int) -> None:
    # Every third image, so that one by one does not take long.
    order = list(range(len(unseen())))[::-3]
    again = score(learned(name)[0], knobs(name), order, size)
    torch.testing.assert_close(again.images, scored(name).images[order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(again.maps, scored(name).maps[order], rtol=1e-4, atol=1e-3)


@every_method
def test_scoring_changes_neither_state_nor_inputs(name: str) -> None:
    method = learned(name)[0]
    before = {key: value.clone() for key, value in method.state_dict().items()}
    values = inputs(method.inputs(method.config), "test")
    copied = values.clone()
    score(method, knobs(name), range(4))
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())
    assert torch.equal(values, copied)


@every_method
def test_methods_are_final(name: str) -> None:
    with pytest.raises(TypeError, match="final"):
        type("Derived", (load("methods", name).method,), {})


@every_method
def test_settings_are_frozen_keyword_only_and_have_defaults(name: str) -> None:
    method = load("methods", name).method
    for kind in (method.Config, method.Knobs):
        settings = kind()
        fields = dataclasses.fields(kind)
        assert fields and all(field.kw_only for field in fields)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(settings, fields[0].name, None)
    config, knobs_ = (
        {f.name for f in dataclasses.fields(k)} for k in (method.Config, method.Knobs)
    )
    assert not config & knobs_, "--set could not tell them apart"


@every_method
def test_presets(name: str) -> None:
    declared = load("methods", name)
    method = declared.method
    assert set(declared.presets) - {"ader"} == {"paper", "quick", "smoke"}
    assert declared.presets["paper"] == Preset(method.Config(), method.Knobs())
    for preset in declared.presets.values():
        assert isinstance(preset.config, method.Config)
        assert isinstance(preset.knobs, method.Knobs)
        declared.check(preset.config, preset.knobs, 96)


@every_method
@pytest.mark.parametrize("preset", ["paper", "quick", "smoke"])
def test_cost_grows_with_images(name: str, preset: str) -> None:
    declared = load("methods", name)
    config = declared.presets[preset].config
    some, more = (dataclasses.astuple(declared.cost(config, images)) for images in (100, 200))
    assert all(a <= b for a, b in zip(some, more, strict=True))
    assert some != more


def test_importing_methods_loads_no_heavy_package() -> None:
    modules = [f"{kind}.{name}" for kind in ("methods", "kernels") for name in names(kind)]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "print(sorted({'ray', 'polars', 'faiss', 'timm', 'diffusers'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@every_method
@pytest.mark.parametrize("preset", ["paper", "quick", "smoke"])
def test_every_setting_of_the_search_is_in_range_and_the_cheapest_come_first(
    name: str, preset: str
) -> None:
    declared = load("methods", name)
    config, knobs_ = declared.presets[preset]
    fields = {field.name for field in dataclasses.fields(declared.method.Knobs)}
    for stage in declared.search(config, knobs_):
        assert stage.grid and stage.grid.keys() | stage.fixed.keys() <= fields
        for field, values in stage.grid.items():
            assert list(values) == sorted(set(values)) and len(values) > 1
            for value in values:
                tried = dataclasses.replace(knobs_, **{**stage.fixed, field: value})
                declared.check(config, tried, 96)


@every_method
def test_scores_with_neighbours_found_before_are_those_of_a_search_of_its_own(name: str) -> None:
    method = learned(name)[0]
    if not isinstance(method, SearchesBank) or method.bank_search(knobs(name)) is None:
        pytest.skip(f"{name} searches no bank in this preset")
    values = inputs(method.inputs(method.config), "test")[:8]
    keys = [sample.key for sample in unseen()[:8]]
    search = BankSearch(knobs(name).coreset, k=9)
    neighbours = method.neighbours(values, search)
    assert neighbours.distances.shape == neighbours.rows.shape
    assert (neighbours.distances.diff(dim=-1) >= 0).all()
    for k in (1, 4):
        few = dataclasses.replace(knobs(name), k=k)
        wanted = method.bank_search(few)
        assert wanted is not None and search.serves(wanted)
        plain, shared = method.score(values, keys, few), method.score(values, keys, few, neighbours)
        torch.testing.assert_close(shared.images, plain.images, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(shared.maps, plain.maps, rtol=1e-4, atol=1e-4)
