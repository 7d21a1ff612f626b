"""PatchSVDD: where patches lie, what the encoder sees, how distances spread, by plain geometry."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from made_training import drawn, numbers, served
from torch import Tensor

from harness.checks.subject import batches, inputs
from methods.networks.patch_encoder import (
    COARSE,
    FINE,
    Direction,
    Encoder,
    beside,
    cells,
    jittered,
    spread,
)
from methods.parts.batches import Draws
from methods.parts.windows import anywhere
from methods.patchsvdd import METHOD, PatchSVDD

COUNT, SIDE = 4000, 256
CONFIG, KNOBS = METHOD.presets["smoke"]
CONFIG = replace(CONFIG, image_size=80, patches=2, epochs=1, batch_size=6)


def compass(first: Tensor, second: Tensor) -> Tensor:
    """The eighth of the circle in which the second centre lies; 0 is right, 2 is up."""
    away = (second - first).double()
    angle = torch.atan2(-away[:, 0], away[:, 1])
    return torch.round(angle / (math.pi / 4)).long() % 8


def test_labels_are_the_directions_in_which_neighbours_lie() -> None:
    by_angle = {0: 4, 1: 2, 2: 1, 3: 0, 4: 3, 5: 5, 6: 6, 7: 7}
    for patch in (COARSE, FINE):
        draws = drawn(COUNT)
        first = anywhere(draws, SIDE, patch)
        second, label = beside(first, draws, SIDE, patch)
        assert int(second.min()) >= 0 and int(second.max()) == SIDE - patch
        # Those at the border were moved back into the image, and their direction with them.
        inside = ((second > 0) & (second < SIDE - patch)).all(dim=1)
        assert 0.1 < inside.double().mean() < 0.9
        directions = [by_angle[int(eighth)] for eighth in compass(first, second)[inside]]
        assert directions == label[inside].tolist()
        reach = (second - first)[inside].abs().amax(dim=1)
        assert reach.min() == 3 * patch // 4 and reach.max() == patch - 1
        assert label.bincount(minlength=8).min() > 0.8 * COUNT / 8


def test_jitter_is_one_of_all_small_moves_but_none() -> None:
    for patch, reach in ((COARSE, 2), (FINE, 1)):
        draws = drawn(COUNT)
        first = torch.full((COUNT, 2), 100)
        moves = jittered(first, draws, SIDE, patch) - first
        window = 2 * reach + 1
        counts = ((moves[:, 0] + reach) * window + moves[:, 1] + reach).bincount()
        assert len(counts) == window**2 and counts[window**2 // 2] == 0
        others = counts[counts > 0]
        assert len(others) == window**2 - 1 and others.min() > 0.6 * others.double().mean()


@pytest.mark.parametrize(("coarse", "fine"), [(16, 4), (32, 2), (8, 8)])
def test_one_pass_over_an_image_embeds_its_patches_as_one_by_one(coarse: int, fine: int) -> None:
    torch.manual_seed(0)
    encoder, images, side = Encoder(4, 6), numbers(2, 3, 112, 112), 112
    for embedded, patch, stride, embed in (
        (encoder.dense(images, coarse=coarse, fine=fine)[0], COARSE, coarse, encoder.coarse),
        (encoder.dense(images, coarse=coarse, fine=fine)[1], FINE, fine, encoder.fine),
    ):
        row = cells(side, patch, stride)
        patches = F.unfold(images, patch, stride=stride).transpose(1, 2)
        wanted = (
            embed(patches.reshape(-1, 3, patch, patch)).view(2, row, row, 6).permute(0, 3, 1, 2)
        )
        assert embedded.shape == wanted.shape
        torch.testing.assert_close(embedded, wanted)


@pytest.mark.parametrize(("side", "patch", "stride"), [(256, 64, 16), (70, 32, 6)])
def test_a_pixel_has_the_mean_of_the_patches_that_hold_it(
    side: int, patch: int, stride: int
) -> None:
    row = cells(side, patch, stride)
    maps = numbers(2, row, row)
    whole, count = torch.zeros(2, side, side), torch.zeros(side, side)
    for i in range(row):
        for j in range(row):
            window = slice(i * stride, i * stride + patch), slice(j * stride, j * stride + patch)
            whole[:, *window] += maps[:, i, j, None, None]
            count[window] += 1
    torch.testing.assert_close(spread(maps, side, patch, stride), whole / count.clamp(min=1))


def trained(**changes: object) -> tuple[PatchSVDD, Tensor]:
    images = torch.rand(7, 3, 80, 80, generator=torch.Generator().manual_seed(1))
    method = PatchSVDD(replace(CONFIG, **changes), seed=0)
    method.fit(served(images))
    return method, images


def test_scores_are_brute_force_distances_multiplied() -> None:
    method, images = trained(coarse_rate=1.0, fine_rate=1.0)
    torch.testing.assert_close(method.mean, images.mean(dim=0))
    queries = torch.rand(2, 3, 80, 80, generator=torch.Generator().manual_seed(2))
    scales = []
    for normal, embedded, patch, stride in zip(
        method.embed(images), method.embed(queries), (COARSE, FINE), (16, 8), strict=True
    ):
        rows, near = (x.permute(0, 2, 3, 1).flatten(0, 2).double() for x in (normal, embedded))
        apart = torch.cdist(near, rows).amin(dim=1).view(2, *embedded.shape[2:])
        scales.append(spread(apart.float(), 80, patch, stride))
    scores = method.score(queries, KNOBS)
    torch.testing.assert_close(scores.maps, scales[0] * scales[1], rtol=1e-4, atol=1e-6)
    assert torch.equal(scores.images, scores.maps.flatten(1).amax(dim=1))
    summed = method.score(queries, replace(KNOBS, combine="sum"))
    torch.testing.assert_close(summed.maps, scales[0] + scales[1], rtol=1e-4, atol=1e-6)


def test_the_loss_is_cross_entropy_and_lambda_times_distance() -> None:
    method = PatchSVDD(CONFIG)
    logits, distances = numbers(2, 5, 8), numbers(2, 5, seed=1).abs()
    labels: list[Tensor] = []

    def pretext(coarse: Tensor, fine: Tensor) -> tuple[Tensor, Tensor]:
        assert coarse.shape == (20, 3, 64, 64) and fine.shape == (20, 3, 32, 32)
        return logits, distances

    patches = method._patches

    def spying(images: Tensor, draws: Draws, patch: int) -> tuple[Tensor, Tensor]:
        cut, label = patches(images, draws, patch)
        labels.append(label)
        return cut, label

    method._patches = spying  # type: ignore[method-assign]
    losses = method.losses(pretext, torch.rand(5, 3, 80, 80), drawn(5))  # type: ignore[arg-type]
    odds = [
        [math.log(sum(map(math.exp, row))) - row[label] for row, label in zip(*pair, strict=True)]
        for pair in zip(logits.tolist(), [label.tolist() for label in labels], strict=True)
    ]
    wanted = torch.tensor(odds).sum(dim=0) + CONFIG.svdd_weight * distances.sum(dim=0)
    torch.testing.assert_close(losses, wanted)


def test_patches_that_tell_directions_have_colours_and_noise_of_their_own() -> None:
    method = PatchSVDD(replace(CONFIG, noise=0.5))
    grey = torch.zeros(300, 3, 80, 80)
    first, neighbour, second, moved = method._patches(grey, drawn(300), FINE)[0].chunk(4)
    assert not second.any() and not moved.any()
    for patches in (first, neighbour):
        # Shift and grain have a variance of 0.25 each; the shift is all that a mean keeps.
        assert float(patches.var()) == pytest.approx(0.5, rel=0.1)
        assert float(patches.mean(dim=(2, 3)).var()) == pytest.approx(0.25, rel=0.15)
    assert abs(float((first * neighbour).mean())) < 0.02


def test_the_last_layer_of_the_directions_is_never_trained() -> None:
    torch.manual_seed(0)
    direction = Direction(6)
    assert "head" not in dict(direction.named_parameters())
    torch.testing.assert_close(direction.head.norm(dim=0), torch.ones(128))
    direction(numbers(4, 6), numbers(4, 6, seed=1)).sum().backward()
    assert all(parameter.grad is not None for parameter in direction.parameters())


@pytest.mark.slow
def test_directions_of_coarse_patches_are_learned_and_hold_for_unseen_images() -> None:
    # Half a side of the image, so that a few hundred steps suffice; fine ones need many more.
    config = replace(CONFIG, image_size=128, noise=0.02, patches=8, epochs=5, batch_size=16)
    method = PatchSVDD(replace(config, learning_rate=1e-3))
    method.fit(batches(method.inputs(config)))
    unseen = inputs(method.inputs(config), "test") - method.mean
    patches, label = method._patches(unseen, drawn(len(unseen)), COARSE)
    first, neighbour, _, _ = method.network.encoder.coarse(patches).flatten(1).chunk(4)
    predicted = method.network.coarse(first, neighbour).argmax(dim=1)
    # Chance, and an encoder that learned nothing, is 0.125.
    assert (predicted == label).double().mean() > 0.4


def test_the_encoder_and_its_grids_are_the_official_ones() -> None:
    widths = [m.out_channels for m in Encoder(32, 64).fine if isinstance(m, torch.nn.Conv2d)]
    assert widths == [32, 64, 128, 128, 64, 32, 32, 64]
    assert (cells(256, COARSE, 16), cells(256, FINE, 4)) == (13, 57)
