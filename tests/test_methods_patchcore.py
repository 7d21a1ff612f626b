"""PatchCore: distances to a coreset, by brute force."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from made_training import served
from torch import Tensor

from harness.plan.overrides import with_overrides
from methods import patchcore
from methods.parts.maps import smooth_upsample
from methods.parts.seeds import generator
from methods.parts.shapes import layer_shapes
from methods.patchcore import METHOD, PatchCore

CONFIG, KNOBS = METHOD.presets["smoke"]
CONFIG = replace(CONFIG, resize=32, grid=4, channels=6, bank_rate=0.5)
KNOBS = replace(KNOBS, coreset=0.5)


IM320 = ("resize=366", "crop=320", "grid=40", "bank_rate=0.01", "coreset=0.01")


def numbers(count: int, seed: int) -> Tensor:
    return torch.randn(count, 6, 4, 4, generator=torch.Generator().manual_seed(seed))


def fitted(seed: int = 0, **config: Any) -> PatchCore:
    values = numbers(10, 0)
    method = PatchCore(replace(CONFIG, **config), seed=seed)
    method.fit(served(values))
    return method


@pytest.mark.parametrize(("k", "coreset"), [(1, 0.5), (1, 0.1), (4, 0.3)])
def test_scores_are_brute_force_distances(k: int, coreset: float) -> None:
    method, queries = fitted(), numbers(3, 1)
    bank = method.bank.rows_MD[: int(160 * coreset)]
    rows = queries.permute(0, 2, 3, 1).reshape(-1, 6)
    apart = (rows[:, None] - bank[None]).square().sum(dim=2)
    wanted = apart.sort(dim=1).values[:, :k].mean(dim=1).view(3, 4, 4)
    scores = method.score(queries, replace(KNOBS, k=k, coreset=coreset))
    torch.testing.assert_close(scores.images, wanted.amax(dim=(1, 2)))
    torch.testing.assert_close(scores.maps, smooth_upsample(wanted, 32, 1.0))


def test_reweighting_is_eq_7_of_the_paper() -> None:
    method, queries = fitted(), numbers(3, 1)
    bank = method.bank.rows_MD[:40].double()
    for image, score in enumerate(
        method.score(queries, replace(KNOBS, coreset=0.25, reweight=5)).images
    ):
        rows = queries[image].permute(1, 2, 0).reshape(-1, 6).double()
        apart = (rows[:, None] - bank[None]).norm(dim=2)
        patch = int(apart.amin(dim=1).argmax())
        nearest = int(apart[patch].argmin())
        around = (bank - bank[nearest]).norm(dim=1).argsort()[:5]
        share = apart[patch, nearest].exp() / apart[patch, around].exp().sum()
        assert float(score) == pytest.approx(float((1 - share) * apart[patch, nearest]), rel=1e-5)


def test_the_approximate_choice_is_that_of_the_official_code() -> None:
    method = fitted(projection=None, starts=10)
    rows = numbers(10, 0).permute(0, 2, 3, 1).reshape(-1, 6).double()
    drawn = torch.randperm(160, generator=generator(0, "coreset start"))[:10]
    apart, picks = (rows[:, None] - rows[drawn][None]).norm(dim=2).mean(dim=1), []
    for _ in range(80):
        picks.append(int(apart.argmax()))
        apart = torch.minimum(apart, (rows - rows[picks[-1]]).norm(dim=1))
    assert torch.equal(method.bank.rows_MD, rows[picks].float())
    assert not torch.equal(method.bank.rows_MD, fitted().bank.rows_MD)


def test_a_float16_bank_of_features_from_the_cache_loses_nothing() -> None:
    # The cache holds halves, so its features are halves already.
    values, scores = numbers(10, 0).half().float(), []
    for precision in ("float16", "float32"):
        method = PatchCore(replace(CONFIG, bank_precision=precision))
        method.fit(served(values))
        scores.append(method.score(numbers(5, 1), KNOBS))
    assert torch.equal(scores[0].maps, scores[1].maps)


def test_im320_is_within_reach_of_the_command_line() -> None:
    paper = METHOD.presets["paper"]
    config, knobs = with_overrides("patchcore", *paper, dict(text.split("=") for text in IM320))
    METHOD.check(config, knobs, 200)
    view = PatchCore.inputs(config)
    # The official 320-pixel run: layer 2 has 40x40 cells there.
    layers = replace(view, aggregate="pyramid", grid=0)
    assert (view.resize, view.side, view.grid) == (366, 320, layer_shapes(layers)[0][1])
    cost = METHOD.cost(config, 200)
    assert cost.bank_rows == 3200
    words = " ".join(str(patchcore.__doc__).split())
    assert " ".join(f"--set patchcore.{text}" for text in IM320) in words


def test_cost_knows_what_the_choice_holds() -> None:
    config, patches = PatchCore.Config(), 100 * 28**2
    rows = patches // 10
    whole = 4 * 1024 * (patches + rows)
    assert METHOD.cost(config, 100).bank_bytes == whole + 4 * 128 * patches
    half = replace(config, bank_precision="float16")
    assert METHOD.cost(half, 100).bank_bytes == whole // 2 + 4 * 128 * patches
    assert METHOD.cost(replace(config, projection=None), 100).bank_bytes == whole


def test_maps_have_the_side_of_the_crop() -> None:
    config = replace(CONFIG, crop=24)
    assert PatchCore.inputs(config).side == 24
    method = PatchCore(config)
    values = numbers(4, 0)
    method.fit(served(values))
    assert method.score(values[:1], KNOBS).maps.shape == (1, 24, 24)
